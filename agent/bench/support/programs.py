"""What the programs of `examples/benchmarks/` share: an engine, `sextet` commands as its jobs."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.engines.choice import engine_for
from agent.engines.engine import Engine, Job, JobResult
from agent.engines.schedule import Schedule

STOP_TIMEOUT_S = 600.0
"""The time in which an interrupted command ends: a training writes its checkpoint."""


class Ended(NamedTuple):
    """The exit code and the lines of output of a command; `stopped`: its time was up."""

    code: int
    lines: list[str]
    stopped: bool


def add_engine_options(parser: argparse.ArgumentParser, usual_jobs: int = 1) -> None:
    """Adds `--jobs`, `--engine` and `--address` to a program's options."""
    parser.add_argument(
        "--jobs", type=int, help=f"side by side ({usual_jobs}, or all processors of a cluster)"
    )
    parser.add_argument("--engine", help="serial, processes or ray (processes)")
    parser.add_argument("--address", help="with --engine ray: the head node; nothing: here")
    parser.set_defaults(usual_jobs=usual_jobs)


def engine_of(options: argparse.Namespace) -> Engine:
    """The engine of a program's options. Raises ConfigError, one line."""
    return engine_for(
        options.engine, options.jobs, options.address,
        usual_jobs=options.usual_jobs, stop_timeout_s=STOP_TIMEOUT_S,
    )  # fmt: skip


def results_of(engine: Engine, jobs: Sequence[Job]) -> Iterator[JobResult]:
    """Yields results as jobs end; a line on stderr says how many are done and the time left."""
    schedule = Schedule(
        engine, [job.kind for job in jobs], lambda now: print(now, file=sys.stderr, flush=True)
    )
    with engine:
        yield from schedule.run(jobs)


def sextet(words: Sequence[str], log: Path, until: float | None = None) -> Ended:
    """Runs `sextet WORDS` on one thread, its output added to `log`.

    At `until`, in seconds of `time.time()`, and where this process is to stop, the command gets
    SIGTERM, upon which a training writes a checkpoint, and is waited for.
    """
    with open(log, "ab") as out:
        begun = out.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", *words],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        stopped = _wait(child, until)
    with open(log, "rb") as read:
        read.seek(begun)
        lines = read.read().decode(errors="replace").splitlines()
    return Ended(child.returncode, lines, stopped)


def _wait(child: subprocess.Popen[bytes], until: float | None) -> bool:
    """Waits for the end of a process; whether its time was up."""
    # Only the main thread may set handlers; where it is another one, the engine ends the process.
    handles = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if handles else None
    try:
        child.wait(None if until is None else max(0.0, until - time.time()))
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()
        return True
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    finally:
        if handles:
            signal.signal(signal.SIGTERM, before)
    return False
