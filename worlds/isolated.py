"""An environment in a process of its own, whose crash or silence does not end this one.

The process (`worlds.isolated_process`) makes the same `GymnasiumRows`. Requests and replies are
JSON headers with raw bytes, never pickles. In memory that both processes see, it keeps the call of
foreign code that it is in, so that an error can name row and step also when the process has ended.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from typing import Any

import torch
from torch import Tensor

from modules.messages import ConfigError, Message, Observation, WorldError, WorldSpec
from worlds.edge import note
from worlds.seeded import SeededWorld

CALL = struct.Struct("<d200s")
"""When the present call of foreign code began (monotonic, s; 0: there is none), and its name."""
_POLL_S = 0.1
_CLOSE_S = 5.0


class IsolatedWorld(SeededWorld):
    """B environments of one Gymnasium id, as `GymnasiumRows` with the same arguments.

    `step_seconds`: a call that takes longer ends the process, also where it is stuck in C code.
    There is no simulator: handles are copies of environments, which stay in their process.

    Raises WorldError, as all methods do, where the environment fails or its process ends.
    """

    def __init__(
        self, *, id: str, num_envs: int, step_seconds: float | None, **others: Any
    ) -> None:
        self._id, self._step_seconds = id, step_seconds
        self.num_envs = num_envs
        self._connection, theirs = Pipe()
        with theirs, tempfile.TemporaryFile() as shared:
            shared.truncate(CALL.size)
            self._call = mmap.mmap(shared.fileno(), CALL.size)
            passed = (theirs.fileno(), shared.fileno())
            # The same modules are found, and Ctrl-C is left to this process.
            path = os.pathsep.join(os.path.abspath(place) for place in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worlds.isolated_process", *map(str, passed)],
                stdin=subprocess.DEVNULL, pass_fds=passed, start_new_session=True,
                env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        arguments = {"id": id, "num_envs": num_envs, "step_seconds": step_seconds, **others}
        try:
            self.spec = WorldSpec.model_validate(self._ask("make", **arguments)[0])
        except BaseException:
            self._end()
            raise

    def reset(self, seed: int) -> Observation:
        """See `GymnasiumRows.reset`."""
        self._seed = seed
        return self._observation(self._ask("reset", seed=seed)[1])

    def step(self, action: Tensor) -> Observation:
        """See `GymnasiumRows.step`."""
        self._require_seed()
        values = action.detach().double().contiguous()
        return self._observation(self._ask("step", values.numpy().tobytes())[1])

    def render(self) -> Tensor:
        """See `GymnasiumRows.render`."""
        self._require_seed()
        shape, data = self._ask("render")
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(shape)

    def snapshot(self) -> bytes:
        """See `GymnasiumRows.snapshot`."""
        self._require_seed()
        return self._ask("snapshot")[1]

    def restore(self, data: bytes) -> Observation:
        """See `GymnasiumRows.restore`."""
        self._seed, observation = self._ask("restore", data)
        return self._observation(observation)

    def rehearse(self) -> str | None:
        """See `GymnasiumRows.rehearse`."""
        fault: str | None = self._ask("rehearse")[0]
        return fault

    def close(self) -> None:
        """Closes the environments and ends their process."""
        self._seed = None
        if self._process.returncode is None:
            try:
                self._ask("close")
            except WorldError as error:
                note(str(error))
            self._end()

    def _observation(self, data: bytes) -> Observation:
        message = Message.from_bytes(data)
        assert isinstance(message, Observation)
        return message

    def _ask(self, call: str, data: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        """The reply to a request: a value, and bytes."""
        if self._process.returncode is not None:
            raise WorldError(f"world {self._id}: expected its process, got one that has ended")
        try:
            self._connection.send_bytes(json.dumps({"call": call, **arguments}).encode())
            self._connection.send_bytes(data)
            self._wait(call)
            header = json.loads(self._connection.recv_bytes())
            received = self._connection.recv_bytes()
        except (EOFError, OSError):
            raise self._ended(call) from None
        for line in header["notes"]:
            note(line)
        if header["error"] is not None:
            raise (ConfigError if header["exit"] else WorldError)(header["error"])
        return header["value"], received

    def _wait(self, call: str) -> None:
        """Waits for a reply. Raises WorldError where foreign code takes longer than it may."""
        if self._step_seconds is None:
            self._connection.poll(_CLOSE_S if call == "close" else None)
            return
        # The process itself interrupts code in Python after `step_seconds`, and can name more.
        limit = self._step_seconds + 0.5
        while not self._connection.poll(_POLL_S):
            began, _ = CALL.unpack_from(self._call)
            if began and time.monotonic() - began > limit:
                where = self._where(call)
                self._end()
                raise WorldError(
                    f"world {self._id}: {where}: expected an answer within {self._step_seconds:g} "
                    "s, got none; raise world.step_seconds"
                )

    def _where(self, call: str) -> str:
        """The call of foreign code that the process is in, or was in when it ended."""
        began, name = CALL.unpack_from(self._call)
        return name.rstrip(b"\0").decode(errors="replace") if began else call

    def _ended(self, call: str) -> WorldError:
        where = self._where(call)
        try:
            code = self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            code = 0
        self._end()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        return WorldError(
            f"world {self._id}: {where}: expected an answer, got the end of its process ({how})"
        )

    def _end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()
