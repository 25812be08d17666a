"""The engine that runs jobs in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import torch

from agent.engines.allocator import keep_freed_memory
from agent.engines.engine import Job, JobError, JobResult, OnReport, Where, describe, here
from agent.engines.folders import in_folder

_POLL_S = 0.5

_DISMISSED_S = 2.0
"""The time in which a worker without a job ends by itself."""

_FOREIGN = {signal.SIGINT, signal.SIGHUP}
"""Signals of a terminal to all its processes, of which the calling one takes care."""


class ProcessEngine:
    """Runs up to `processes` jobs at a time, each worker a spawned process with one thread.

    Workers ignore Ctrl-C and a closed terminal, which the calling process handles, and end when
    that process ends. Where `map` is left early, by Ctrl-C, an error or `close`, running jobs are
    killed; with `stop_timeout_s` above 0 they first get SIGTERM and that long to return, so that a
    training can write a checkpoint. A second Ctrl-C kills them at once.

    A worker that is killed is an error and no retry: on one machine the reason is nearly always
    its memory, which the next attempt would not have either.
    """

    def __init__(self, processes: int, stop_timeout_s: float = 0.0) -> None:
        self.slots, self.stop_timeout_s = processes, stop_timeout_s
        self._workers: list[_Worker] = []
        self._entered = 0

    def __enter__(self) -> Self:
        self._entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._end()

    def map(self, jobs: Sequence[Job], on_report: OnReport | None = None) -> Iterator[JobResult]:
        """Yields results in the order in which jobs end; see `Engine.map`."""
        waiting, whole = list(reversed(jobs)), False
        try:
            for place in range(min(self.slots, len(jobs))):
                if place == len(self._workers):
                    self._workers.append(_Worker(self.stop_timeout_s))
                self._workers[place].start(waiting.pop())
            while busy := {w.connection: w for w in self._workers if w.job is not None}:
                for ready in wait(list(busy)):
                    worker = busy[ready]  # type: ignore[index]
                    job = worker.job
                    assert job is not None
                    kind, value, seconds, where = worker.receive()
                    if kind == "error":
                        raise JobError(f"{job.name}: {value}")
                    if kind == "result":
                        worker.job = None
                        if waiting:
                            worker.start(waiting.pop())
                        elif not self._entered:
                            worker.dismiss()
                        yield JobResult(job, value, seconds, where)
                    elif on_report is not None:
                        on_report(job, value)
            whole = True
        finally:
            if not (whole and self._entered):
                self._end()

    def _end(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            if worker.job is None:
                worker.dismiss()
        deadline = time.monotonic() + max(self.stop_timeout_s, _DISMISSED_S)
        try:
            for worker in workers:
                if self.stop_timeout_s > 0 and worker.job is not None:
                    worker.process.terminate()
                # A job that is stopping must not wait for a reader of its reports.
                worker.connection.close()
            for worker in workers:
                if self.stop_timeout_s > 0 or worker.job is None:
                    worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in workers:
                worker.process.kill()
            for worker in workers:
                worker.process.join(5)


_Answer = tuple[str, Any, float, Where]
"""Kind (report, result or error), value, seconds and place of a job."""


class _Worker:
    """A process that runs jobs one after the other; `job` is the present one."""

    def __init__(self, stop_timeout_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.job: Job | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), stop_timeout_s))
        # Blocked until the worker ignores them: else Ctrl-C would interrupt its imports.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FOREIGN)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def start(self, job: Job) -> None:
        """Hands over the next job."""
        self.job = job
        with suppress(OSError):  # a process that was killed is noticed by `receive`
            self.connection.send(job)

    def dismiss(self) -> None:
        """Ends the process, which has no job."""
        with suppress(OSError):
            self.connection.send(None)

    def receive(self) -> _Answer:
        """The next message of the present job."""
        try:
            message: _Answer = self.connection.recv()
        except (EOFError, OSError):
            killed = "its process was killed, perhaps for lack of memory; use fewer jobs"
            return "error", killed, 0.0, here()
        return message


def _serve(connection: Connection[Any, Any], parent: int, stop_timeout_s: float) -> None:
    """The body of a worker."""
    for number in _FOREIGN:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOREIGN)
    torch.set_num_threads(1)
    keep_freed_memory()
    watch = threading.Thread(target=_end_with, args=(parent, stop_timeout_s), daemon=True)
    watch.start()

    where = here()

    def report(value: Any) -> None:
        with suppress(OSError):
            connection.send(("report", value, 0.0, where))

    with suppress(EOFError, OSError):
        while (job := connection.recv()) is not None:
            start = time.perf_counter()
            try:
                with in_folder(job) as folder:
                    kind, value = "result", job.work(folder, report)
            except BaseException as error:
                kind, value = "error", describe(error)
            connection.send((kind, value, time.perf_counter() - start, where))


def _end_with(parent: int, stop_timeout_s: float) -> None:
    """Ends this process once its parent has ended, as `ProcessEngine` would have."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    if stop_timeout_s > 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(stop_timeout_s)
    os._exit(1)
