"""What an engine costs: seconds and bytes a job, what the driver does in them, and the overhead.

    python examples/benchmarks/engines.py --jobs-counts 10,1000 --engines processes,ray
    python examples/benchmarks/engines.py --long 10 --each 6

*Empty jobs*: a job returns at once, so its time is that of the engine. Printed are, a job, the time
by the clock, the processor time of the driver, the bytes that the job and its result take as
pickles, and the share of the driver's processor time in its costliest functions (cProfile, in a run
of its own): that part saturates first, at one job per its time.

*Overhead* (`--long SECONDS`): `--each` jobs for each of 2 workers, which compute for so many
seconds of the clock. The bar: 2 % of wall time for processes, 5 % for Ray, the start of the engine
and of its workers apart, in which a first map of short jobs is run. Jobs compute by the clock and
not by work done, so that a loaded machine delays the engine alone; the load is printed.
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import json
import os
import pickle
import pstats
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.engines.choice import engine_for
from agent.engines.engine import Engine, Job, Report, processor
from agent.recording.atomic import write_json

WORKERS = 2


def nothing(folder: None, report: Report) -> None:
    """An empty job."""


def compute(seconds: float, folder: None, report: Report) -> int:
    """Computes until so many seconds have passed by the clock."""
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        rounds += 1
    return rounds


def finished(engine: Engine, jobs: Sequence[Job]) -> list[Any]:
    """All results; raises AssertionError where one is missing or there twice."""
    results = list(engine.map(jobs))
    assert sorted(one.job.name for one in results) == sorted(job.name for job in jobs)
    return results


def short(count: int) -> list[Job]:
    """Empty jobs."""
    return [Job(f"job {number}", nothing) for number in range(count)]


def costliest(work: Callable[[], object], count: int = 6) -> list[tuple[str, float]]:
    """The functions with the largest share of the time of `work` in themselves, waiting apart."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(work)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    own = {f"{Path(file).name}:{name}": entry[2] for (file, _, name), entry in stats.items()}
    total = sum(own.values()) or 1.0
    largest = sorted(own.items(), key=lambda item: -item[1])[:count]
    return [(name, seconds / total) for name, seconds in largest]


def empty_jobs(name: str, counts: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each number of empty jobs."""
    rows = []
    began = time.perf_counter()
    with engine_for(name, WORKERS if name != "serial" else None) as engine:
        finished(engine, short(2 * WORKERS))
        start_s = time.perf_counter() - began
        for count in counts:
            jobs, load = short(count), os.getloadavg()[0]
            wall, driver = time.perf_counter(), time.process_time()
            results = finished(engine, jobs)
            wall, driver = time.perf_counter() - wall, time.process_time() - driver
            size = len(pickle.dumps(jobs[-1])) + len(pickle.dumps(results[-1].value))
            rows.append({
                "engine": name, "jobs": count, "start_s": round(start_s, 2),
                "ms_a_job": round(1e3 * wall / count, 3),
                "driver_cpu_ms_a_job": round(1e3 * driver / count, 3),
                "most_jobs_a_s": round(count / driver) if driver else None,
                "bytes_a_job": size, "load": round(load, 1),
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
        many = short(min(1000, max(counts)))
        rows[-1]["costliest"] = costliest(lambda: finished(engine, many))
        for function, share in rows[-1]["costliest"]:
            print(f"  {100 * share:4.1f} % {function}", flush=True)
    return rows


def overhead(name: str, seconds: float, each: int) -> dict[str, Any]:
    """The share of wall time that jobs of `seconds` do not take, with 2 workers."""
    with engine_for(name, WORKERS) as engine:
        finished(engine, short(2 * WORKERS))
        load = os.getloadavg()[0]
        jobs = [
            Job(f"job {number}", functools.partial(compute, seconds))
            for number in range(each * WORKERS)
        ]
        began = time.perf_counter()
        finished(engine, jobs)
        wall = time.perf_counter() - began
    row = {
        "engine": name, "jobs": len(jobs), "seconds_a_job": seconds, "wall_s": round(wall, 3),
        "overhead_percent": round(100 * (wall / (seconds * each) - 1), 2), "load": round(load, 1),
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measures and prints a JSON object a row; all of them also into `--out`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--engines", default="serial,processes,ray")
    parser.add_argument("--jobs-counts", default="10,1000", help="empty jobs (10,1000)")
    parser.add_argument("--long", type=float, help="seconds a job: measure the overhead instead")
    parser.add_argument("--each", type=int, default=6, help="jobs for each worker (6)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(json.dumps({"processor": processor(), "cores": len(os.sched_getaffinity(0))}))
    rows: list[dict[str, Any]] = []
    for name in options.engines.split(","):
        if options.long is None:
            rows += empty_jobs(name, [int(count) for count in options.jobs_counts.split(",")])
        elif name != "serial":
            rows.append(overhead(name, options.long, options.each))
    if options.out is not None:
        write_json(options.out, {"processor": processor(), "rows": rows})


if __name__ == "__main__":
    main()
