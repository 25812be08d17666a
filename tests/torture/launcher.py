"""Runs commands that are killed, or whose disk fails, at a chosen moment.

A `Launcher` is a process that has imported everything once, with `fault.c` preloaded, and forks a
child for each command: nothing of the program knows of it. In the child the functions of a `Moment`
are wrapped to count what they do, and to end the process with SIGKILL at the n-th.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import io
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

SOURCE = Path(__file__).with_name("fault.c")
TIMEOUT_S = 240.0
WARM = (
    "train CartPole-v1 --steps 9 --training.evaluate_episodes=1 --run t --no-live",
    "report t --out o",
)
KILL = -1
"""In place of an error: the process is killed."""

MOMENTS = ("call", "save", "create", "update", "step")
"""What is counted: calls that write, lines executed in a save or while a run folder is made,
updates, and steps of the agent. The index is the place of the count in the shared memory.
"""


@dataclass(frozen=True)
class Moment:
    """The `nth` of what is counted (one of MOMENTS); 0: never. "lines": only count those, too.

    At a "call" `error` is what it fails with, KILL to kill instead; with `sticky` all later calls
    fail, too. `folder`: the calls that write under it count.
    """

    what: str = "call"
    nth: int = 0
    error: int = KILL
    sticky: bool = False


@dataclass(frozen=True)
class Ended:
    """How a command ended. `code`: its exit code, −9 killed, None where it hung and was ended.

    `counts`: of each of MOMENTS, how many there were. `lines`: of stderr.
    """

    code: int | None
    out: str
    err: str
    counts: dict[str, int]

    @property
    def lines(self) -> list[str]:
        """The lines on stderr that are not notes."""
        return [line for line in self.err.splitlines() if not line.startswith("note ")]


class Launcher:
    """A warm process that forks one child for each command."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="sextet-torture-", dir=shared_memory()))
        library = self.place / "fault.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", library, SOURCE, "-ldl"], check=True
        )
        environment = {
            **os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.place), "SEXTET_FAULT": str(library),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.launcher"], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=SOURCE.parents[2],
        )  # fmt: skip
        atexit.register(self.close)

    def run(self, words: Sequence[str], at: Path, moment: Moment | None = None) -> Ended:
        """Runs `sextet WORDS` in the folder `at`."""
        request = {"words": list(words), "at": str(at), **asdict(moment or Moment())}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """Ends the process and removes its folder."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self.place, ignore_errors=True)
        atexit.unregister(self.close)


@functools.cache
def launcher() -> Launcher:
    """The launcher of this process."""
    return Launcher()


def shared_memory() -> str | None:
    """A folder in memory, where there is one: there a sync takes no time."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# -- within the launcher's process ------------------------------------------------------------


class Counts:
    """The counts of MOMENTS, in memory shared by a child and the launcher."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8 * len(MOMENTS))

    def as_dict(self) -> dict[str, int]:
        """Each count by its name."""
        return dict(zip(MOMENTS, struct.unpack(f"{len(MOMENTS)}q", self.memory[:]), strict=True))

    def hit(self, what: str, moment: Moment) -> None:
        """Counts one, and ends the process where it is the moment."""
        at = 8 * MOMENTS.index(what)
        (count,) = struct.unpack_from("q", self.memory, at)
        struct.pack_into("q", self.memory, at, count + 1)
        if moment.what == what and count + 1 == moment.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def address(self, what: str) -> int:
        """Where a count lies in memory."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + 8 * MOMENTS.index(what)


def count_calls(owner: Any, name: str, hit: Callable[[], None]) -> None:
    """Wraps a function to count its calls."""
    wrapped = getattr(owner, name)

    @functools.wraps(wrapped)
    def counting(*arguments: Any, **named: Any) -> Any:
        hit()
        return wrapped(*arguments, **named)

    setattr(owner, name, counting)


def count_lines(owner: Any, name: str, files: set[str], hit: Callable[[], None]) -> None:
    """Wraps a function to count the lines of `files` that it executes."""
    wrapped = getattr(owner, name)

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            hit()
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename in files else None

    @functools.wraps(wrapped)
    def counting(*arguments: Any, **named: Any) -> Any:
        sys.settrace(call)
        try:
            return wrapped(*arguments, **named)
        finally:
            sys.settrace(None)

    setattr(owner, name, counting)


def child(request: dict[str, Any], counts: Counts, library: ctypes.CDLL) -> int:
    """Runs the command in this process, which is a fork; its exit code."""
    from agent import cli
    from agent.agent import Agent
    from agent.learning.learner import Learner
    from agent.recording import atomic, checkpoint, run_folder

    words, at = request["words"], request["at"]
    moment = Moment(**{name: request[name] for name in ("what", "nth", "error", "sticky")})
    os.chdir(at)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{at}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # Small ones, so that a small replay is cut into pieces that checkpoints share.
    checkpoint.LARGE, checkpoint.PIECE = 1 << 14, 1 << 13
    files = {atomic.__file__, checkpoint.__file__, run_folder.__file__}
    # Lines are counted only where they matter: it takes its time.
    for what, owner in (("save", checkpoint), ("create", run_folder.RunFolder)):
        if moment.what in ("lines", what):
            count_lines(owner, what, files, functools.partial(counts.hit, what, moment))
    count_calls(Learner, "update", lambda: counts.hit("update", moment))
    count_calls(Agent, "step", lambda: counts.hit("step", moment))
    calls = ctypes.c_void_p(counts.address("call"))
    nth = moment.nth if moment.what == "call" else 0
    arm = library.fault_arm
    arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    arm(at.encode(), nth, moment.error, int(moment.sticky), calls)
    code = cli.run(words)
    library.fault_disarm()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def carry_out(request: dict[str, Any], library: ctypes.CDLL) -> Ended:
    """Forks a child for a command and waits for it."""
    counts, at = Counts(), request["at"]
    process = os.fork()
    if process == 0:
        code = 99
        try:
            code = child(request, counts, library)
        except BaseException as error:
            print(f"launcher: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    deadline, code = time.monotonic() + TIMEOUT_S, None
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.005)
    else:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    out, err = (Path(f"{at}.{name}").read_text() for name in ("out", "err"))
    return Ended(code, out, err, counts.as_dict())


def serve() -> None:
    """Carries out the requests on stdin, a JSON object a line, until there are no more."""
    library = ctypes.CDLL(os.environ.pop("SEXTET_FAULT"))
    del os.environ["LD_PRELOAD"]
    import matplotlib.pyplot  # noqa: F401

    import agent.cli
    import agent.commands.evaluate
    import agent.commands.play
    import agent.commands.report
    import agent.commands.study
    import agent.commands.train
    import agent.contracts.check
    import worlds.make  # noqa: F401

    # What is imported, compiled and cached at a first use.
    with (
        tempfile.TemporaryDirectory() as place,
        contextlib.chdir(place),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        for words in ("play CartPole-v1 --steps 9 --run p --no-live", *WARM):
            assert agent.cli.run(words.split()) == 0, words
    for line in sys.stdin:
        answer = carry_out(json.loads(line), library)
        print(json.dumps(asdict(answer)), flush=True)


if __name__ == "__main__":
    serve()
