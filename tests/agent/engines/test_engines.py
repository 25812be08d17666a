"""Engines: results in the order in which jobs end, one clear error, no process left behind."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agent.engines.engine import Job, JobError
from agent.engines.processes import ProcessEngine
from agent.engines.serial import SerialEngine
from modules.messages import ConfigError

ENGINES = [SerialEngine(), ProcessEngine(2)]


def square(number: int, _: None, report: Callable[[object], None]) -> int:
    report(("seen", number))
    return number * number


def threads(*_: object) -> int:
    return torch.get_num_threads()


def refuse(*_: object) -> None:
    raise ConfigError("config x: expected 1, got 2")


def divide(*_: object) -> None:
    raise ZeroDivisionError("by zero")


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds: float, *_: object) -> None:
    time.sleep(seconds)


def stubborn(place: Path, *_: object) -> None:
    """Ignores SIGTERM, as a training does until it has written its checkpoint."""
    signal.signal(signal.SIGTERM, lambda *_: place.write_text("SIGTERM"))
    (place.parent / "started").touch()
    until = time.monotonic() + 30
    while time.monotonic() < until and not place.exists():
        time.sleep(0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_results_and_reports_of_every_job(engine):
    jobs = [Job(f"square {n}", functools.partial(square, n)) for n in range(5)]
    reports = []
    results = list(engine.map(jobs, lambda job, value: reports.append((job.name, value))))
    assert {one.job.name: one.value for one in results} == {f"square {n}": n * n for n in range(5)}
    assert sorted(reports) == [(f"square {n}", ("seen", n)) for n in range(5)]
    assert all(one.seconds >= 0 for one in results)
    assert list(engine.map([])) == []


def test_processes_yield_results_as_jobs_end_and_have_one_thread():
    jobs = [
        Job("long", functools.partial(sleep, 4)),
        Job("short", functools.partial(sleep, 0)),
        Job("threads", threads),
    ]
    results = {one.job.name: one.value for one in ProcessEngine(2).map(jobs)}
    assert list(results) == ["short", "threads", "long"]
    assert results["threads"] == 1


@pytest.mark.parametrize(
    ("engine", "work", "message"),
    [
        (ENGINES[0], refuse, "it: config x: expected 1, got 2"),
        (ENGINES[0], divide, "it: ZeroDivisionError: by zero"),
        (ENGINES[1], divide, "it: ZeroDivisionError: by zero"),
    ],
)
def test_a_job_that_raises_is_one_error_with_its_name(engine, work, message):
    with pytest.raises(JobError) as error:
        list(engine.map([Job("it", work), Job("later", functools.partial(sleep, 60))]))
    assert str(error.value) == message


def test_a_killed_process_is_one_clear_error():
    with pytest.raises(JobError, match=r"^it: its process was killed"):
        list(ProcessEngine(2).map([Job("it", die), Job("more", functools.partial(sleep, 60))]))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("timeout_s", "stopped"), [(0.0, False), (20.0, True)])
def test_processes_end_with_an_interrupted_map(timeout_s, stopped, tmp_path):
    """A job has the timeout to end by itself, and no longer."""
    place = tmp_path / "place"
    jobs = [
        Job("short", functools.partial(sleep, 0)),
        Job("it", functools.partial(stubborn, place)),
    ]

    def leave():
        for _ in ProcessEngine(2, timeout_s).map(jobs):
            while not (tmp_path / "started").exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert multiprocessing.active_children() == []
    assert place.exists() is stopped


PROGRAM = """
import functools, os, sys, time
from pathlib import Path
from agent.engines.engine import Job
from agent.engines.processes import ProcessEngine
from tests.agent.engines.test_engines import announce
if __name__ == "__main__":
    jobs = [Job(str(n), functools.partial(announce, Path(str(n)))) for n in range(2)]
    list(ProcessEngine(2).map(jobs))
"""


def announce(place: Path, *_: object) -> None:
    place.with_suffix(".partial").write_text(str(os.getpid()))
    place.with_suffix(".partial").rename(place)
    time.sleep(60)


def test_workers_end_with_the_process_that_started_them(tmp_path):
    home = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(home)}
    )
    places = [tmp_path / "0", tmp_path / "1"]
    until = time.monotonic() + 60
    while not all(place.exists() for place in places) and time.monotonic() < until:
        time.sleep(0.05)
    child.kill()
    child.wait()
    workers = [int(place.read_text()) for place in places]
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
