"""The engine that runs jobs on a Ray cluster, or on one that it starts on this machine.

A job is one remote task, a streaming generator: it runs the work in a thread and yields what the
job reports, the pieces of its folder where that was written on a disk of the worker's own, and the
result. The driver repeats a job whose worker died. Ray itself repeats nothing, so that retries are
counted and a job is never reported twice.

Jobs and results travel as Ray sends all objects, as pickles between the processes of one cluster;
no file is ever unpickled.
"""

from __future__ import annotations

import os
import queue
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import ray
from ray import cloudpickle, exceptions

from agent.engines import folders
from agent.engines.allocator import keep_freed_memory
from agent.engines.engine import Job, JobError, JobResult, OnReport, describe, here
from agent.engines.folders import Piece, in_folder, partial, pieces, put_together
from agent.engines.version import digest
from modules.messages import ConfigError

MOST_RETRIES = 3
"""A job whose workers die this often is tried once more; then it fails."""

_REACH_S = 3.0
"""The time in which a head node must accept a connection. Ray itself waits for a minute."""

_STORE_BYTES = 256 * 2**20
"""The object store of a local cluster: its workers share the disk, so no folder goes through it."""

_DEATHS = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OutOfMemoryError,
)
"""How Ray reports that a worker or its node died, or the pieces that it held were lost."""


class _Order(NamedTuple):
    """What a worker gets. `token`: a file of the driver and its text; None: the disk is not shared.

    `attempt` tells attempts apart that may write at the same time: the worker of a node that is
    taken for dead may live.
    """

    job: Job
    token: tuple[Path, str] | None
    attempt: str
    current_folder: str


@dataclass
class _Attempt:
    """An attempt at a job, the name that its part folder has on a shared disk, and the part folder
    into which its pieces have been written.
    """

    job: Job
    retries: int
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    part: Path | None = None


class RayEngine:
    """Runs jobs in the workers of a Ray cluster, one processor each.

    `jobs`: the number of them at a time; None: as many as the cluster has processors, those that
    join it included. `address`: of the head node, "auto" or HOST:PORT, seen from a machine of the
    cluster; None: a cluster of this machine is started, and stopped at the end. `shared`: whether
    the workers reach the disk of the driver; None: each finds out by a file.

    Ctrl-C kills running jobs; a resumable one goes on from what its folder holds.
    """

    def __init__(
        self, jobs: int | None = None, address: str | None = None, shared: bool | None = None
    ) -> None:
        self.jobs, self.address, self.shared = jobs, address, shared
        self._entered, self._started = 0, False
        self._running: dict[Any, _Attempt] = {}

    def __enter__(self) -> Self:
        # Linux kills the processes of a local cluster with the thread that started them, so the one
        # that has the engine starts it, and not a thread that maps for a while.
        self._start()
        self._entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._stop()

    @property
    def slots(self) -> int:
        """Jobs at a time: `jobs`, or the processors that the cluster has now."""
        if self.jobs is not None:
            return self.jobs
        if not ray.is_initialized():
            return len(os.sched_getaffinity(0))
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(self, jobs: Sequence[Job], on_report: OnReport | None = None) -> Iterator[JobResult]:
        """Yields results in the order in which jobs end; see `Engine.map`."""
        if not jobs:
            return
        self._start()
        running = self._running = {}
        try:
            with _token(jobs, self.shared) as token:
                yield from self._run(jobs, token, running, on_report)
        finally:
            self._cancel(running)
            if not self._entered:
                self._stop()

    def _run(
        self,
        jobs: Sequence[Job],
        token: tuple[Path, str] | None,
        running: dict[Any, _Attempt],
        on_report: OnReport | None,
    ) -> Iterator[JobResult]:
        waiting = [_Attempt(job, 0) for job in reversed(jobs)]
        serve = ray.remote(num_returns="streaming", max_retries=0, num_cpus=1)(_serve)
        serve = serve.options(_generator_backpressure_num_objects=32)
        slots, counted = self.slots, time.monotonic()
        while waiting or running:
            if time.monotonic() - counted > 1:
                slots, counted = self.slots, time.monotonic()
            # With a given number no more may run; else one more than there are processors waits
            # for each of them, so that none idles while the driver is busy.
            most = slots if self.jobs is not None else 2 * slots
            while waiting and len(running) < most:
                attempt = waiting.pop()
                running[_submit(serve, attempt, token)] = attempt
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for stream in ready:
                attempt = running[stream]
                job = attempt.job
                try:
                    kind, value, seconds, where = ray.get(next(stream))
                except _DEATHS as error:
                    del running[stream]
                    waiting.append(_retried(attempt, error))
                    continue
                except exceptions.RayError as error:
                    raise JobError(f"{job.name}: {_one_line(error)}") from None
                if kind == "error":
                    raise JobError(f"{job.name}: {value}")
                if kind == "report":
                    if on_report is not None:
                        on_report(job, value)
                elif kind == "piece":
                    _write(attempt, value)
                else:
                    del running[stream]
                    _finish(attempt)
                    yield JobResult(job, value, seconds, where, attempt.retries)

    def _start(self) -> None:
        """Connects to the cluster, or starts one. Raises ConfigError, one line."""
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            try:
                ray.init(
                    num_cpus=self.slots, include_dashboard=False, object_store_memory=_STORE_BYTES,
                    address="local", **quiet,
                )  # fmt: skip
            except Exception as error:  # Ray raises it where its processes do not start in time
                ray.shutdown()
                raise JobError(
                    f"--engine ray: no cluster could be started here ({_one_line(error)}); try "
                    "again, or --engine processes"
                ) from None
        else:
            require_reachable(self.address)
            try:
                ray.init(address=self.address, **quiet)
            except (ConnectionError, RuntimeError, ValueError, exceptions.RayError) as error:
                raise _no_cluster(self.address, _one_line(error)) from None
        self._started = True

    def _cancel(self, running: dict[Any, _Attempt]) -> None:
        """Kills the jobs under way: the work is in a thread, which only its process can end."""
        while running:
            stream, attempt = running.popitem()
            with suppress(exceptions.RayError, ValueError):
                ray.cancel(stream, force=True)
            _remove(attempt)

    def _stop(self) -> None:
        # A `map` that was left is closed later, perhaps after the connection: nothing is left then.
        self._cancel(self._running)
        if self._started:
            ray.shutdown()
        self._started = False


def require_reachable(address: str) -> None:
    """Raises ConfigError where no head node listens at an address."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise ConfigError(
            f"--address: expected HOST:PORT or auto, got {address!r}; a machine that is not of the "
            "cluster sends the whole command there with `ray job submit`"
        )
    try:
        socket.create_connection((host, int(port)), _REACH_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None


def _no_cluster(address: str, reason: str) -> ConfigError:
    return ConfigError(
        f"--address: expected a Ray cluster at {address}, got: {reason}; start one with "
        "`ray start --head`, and let this machine join it with `ray start --address=HEAD:6379`"
    )


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The last line of a traceback of a task is its reason.
    line = lines[-1] if isinstance(error, exceptions.RayTaskError) else (lines or [""])[0]
    return f"{type(error).__name__}: {line}"


# -- the driver ---------------------------------------------------------------------------------


class _token:
    """A file beside the folders of jobs, by which a worker sees that it shares their disk."""

    def __init__(self, jobs: Sequence[Job], shared: bool | None) -> None:
        places = [job.folder.parent for job in jobs if job.folder is not None]
        self.place = None
        if places and shared is not False:
            self.place = places[0].absolute() / f"{folders.PARTIAL}shared-{uuid.uuid4().hex}"

    def __enter__(self) -> tuple[Path, str] | None:
        if self.place is None:
            return None
        text = uuid.uuid4().hex
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self.place.write_text(text, encoding="utf-8")
        return self.place, text

    def __exit__(self, *_: object) -> None:
        if self.place is not None:
            self.place.unlink(missing_ok=True)


def _submit(serve: Any, attempt: _Attempt, token: tuple[Path, str] | None) -> Any:
    """Sends a job to the cluster, with what its folder holds if it is resumed."""
    job, sent = attempt.job, list[Any]()
    if job.folder is not None and job.resumes and job.folder.is_dir():
        sent = [ray.put(piece) for piece in pieces(job.folder)]
    order = _Order(_absolute(job), token, attempt.name, os.getcwd())
    return serve.remote(cloudpickle.dumps(order), digest(), sent, sys.path)


def _absolute(job: Job) -> Job:
    reads = tuple(path.absolute() for path in job.reads)
    return replace(job, folder=job.folder and job.folder.absolute(), reads=reads)


def _retried(attempt: _Attempt, error: exceptions.RayError) -> _Attempt:
    """The next attempt after the death of a worker. Raises JobError after too many."""
    _remove(attempt)
    if attempt.retries == MOST_RETRIES:
        raise JobError(
            f"{attempt.job.name}: {MOST_RETRIES + 1} workers died ({_one_line(error)}), perhaps "
            "for lack of memory; use fewer jobs a machine"
        )
    return _Attempt(attempt.job, attempt.retries + 1)


def _write(attempt: _Attempt, piece: Piece) -> None:
    assert attempt.job.folder is not None
    if attempt.part is None:
        attempt.part = partial(attempt.job.folder, attempt.name)
    try:
        put_together([piece], attempt.part)
    except folders.JobFolderError as error:
        raise JobError(f"{attempt.job.name}: {error}") from None


def _finish(attempt: _Attempt) -> None:
    """Puts a folder that came in pieces in its place."""
    if attempt.part is not None and attempt.job.folder is not None:
        end = folders.replace if attempt.job.resumes else folders.complete
        try:
            end(attempt.part, attempt.job.folder)
        except folders.JobFolderError as error:
            raise JobError(f"{attempt.job.name}: {error}") from None


def _remove(attempt: _Attempt) -> None:
    """Removes what an attempt that is lost left on the disk of the driver."""
    if attempt.job.folder is not None:
        shutil.rmtree(partial(attempt.job.folder, attempt.name), ignore_errors=True)


# -- the worker ---------------------------------------------------------------------------------

Message = tuple[str, Any, float, Any]
"""Kind (report, piece, result or error), value, seconds and place."""


def _serve(
    order: bytes, expected: str, sent: Sequence[Any], path: Sequence[str]
) -> Iterator[Message]:
    """The body of a task. `order` is unpickled only where both versions are the same; `path`: where
    the driver finds modules, last here, as in a process that it starts.
    """
    where = here()
    if digest() != expected:
        yield "error", (
            f"the worker on {where.host} has another version of Sextet or of its libraries "
            f"({digest()}, here {expected}); install the same one there"
        ), 0.0, where  # fmt: skip
        return
    sys.path += [place for place in path if place not in sys.path and os.path.isdir(place)]
    messages: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=8)
    start = time.perf_counter()
    thread = threading.Thread(target=_work, args=(order, sent, messages.put), daemon=True)
    thread.start()
    kind = ""
    while kind not in ("result", "error"):
        kind, value = messages.get()
        yield kind, value, time.perf_counter() - start, where


def _work(order: bytes, sent: Sequence[Any], put: Callable[[tuple[str, Any]], None]) -> None:
    """Does the work of a job and puts its messages, the result or error last."""
    from agent.engines.threads import one_thread

    keep_freed_memory()

    def report(value: Any) -> None:
        put(("report", value))

    try:
        job, token, attempt, current_folder = cloudpickle.loads(order)
        _require_files(job)
        # A relative path means what it means to the driver.
        with suppress(OSError):
            os.chdir(current_folder)
        with one_thread():
            if job.folder is None or _shared(token):
                with in_folder(job, attempt) as folder:
                    value = job.work(folder, report)
            else:
                with tempfile.TemporaryDirectory(prefix="sextet-") as place:
                    folder = Path(place) / job.folder.name
                    if sent:
                        put_together((ray.get(piece) for piece in sent), folder)
                    value = job.work(folder, report)
                    for piece in pieces(folder):
                        put(("piece", piece))
        cloudpickle.dumps(value)
        put(("result", value))
    except BaseException as error:
        put(("error", describe(error)))


def _require_files(job: Job) -> None:
    """Raises ConfigError where a file that the job reads is not here."""
    if missing := [path for path in job.reads if not path.exists()]:
        raise ConfigError(
            f"expected '{missing[0]}' on {socket.gethostname()}, too, got nothing there; use a "
            "disk that all machines share"
        )


def _shared(token: tuple[Path, str] | None) -> bool:
    """Whether this process reads the file that the driver wrote."""
    if token is None:
        return False
    try:
        return token[0].read_text(encoding="utf-8") == token[1]
    except OSError:
        return False
