"""Runs the numbered cases of a torture, in parts and resumably, and tallies what they showed.

A torture is a module beside this one with `CASES: int`, the number of its cases, and
`case(number, seed) -> Outcome`, which runs one of them: the same number and seed always make the
same case. Outcomes are appended to a log, one JSON line each; a case that is in the log is not run
again.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from agent.engines.engine import Job, Report
from agent.engines.processes import ProcessEngine

HOME = Path(__file__).parents[2]

_CASES_A_PROCESS = 200


@dataclass(frozen=True)
class Outcome:
    """What one case showed.

    `kind`: what was done, as the tally groups it. `verdict`: a word for what happened, such as
    "resumed" or "refused". `fault`: what is wrong, one line; empty where all is right. `figures`:
    numbers that the tally adds up.
    """

    kind: str
    verdict: str
    fault: str = ""
    figures: dict[str, float] = field(default_factory=dict)


def run_case(name: str, number: int, seed: int) -> dict[str, Any]:
    """One case of the torture `name` as a line of its log. An exception of the case is a fault."""
    began = time.monotonic()
    try:
        outcome = import_module(f"tests.torture.{name}").case(number, seed)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        outcome = Outcome("harness", "raised", f"{type(error).__name__}: {error} ({where})")
    seconds = round(time.monotonic() - began, 2)
    return {"case": number, "seed": seed, **asdict(outcome), "seconds": seconds}


def read_log(log: Path) -> list[dict[str, Any]]:
    """The outcomes in a log, one a case; a last line that is cut off is left out."""
    outcomes = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            outcome = json.loads(line)
        except ValueError:
            continue
        outcomes[outcome["case"], outcome["seed"]] = outcome
    return list(outcomes.values())


def run(
    name: str, numbers: Iterable[int], seed: int, log: Path, jobs: int, minutes: float
) -> list[dict[str, Any]]:
    """Runs the cases `numbers` that `log` lacks, `jobs` at a time, and returns all outcomes.

    `minutes`: no case begins after that many.
    """
    end = time.time() + 60 * minutes
    done = {outcome["case"] for outcome in read_log(log) if outcome["seed"] == seed}
    left = [number for number in numbers if number not in done]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines:
        # Processes are new after so many cases: what a torture leaves behind does not add up.
        for start in range(0, len(left), _CASES_A_PROCESS * jobs):
            some = left[start : start + _CASES_A_PROCESS * jobs]
            work = [Job(str(n), functools.partial(_case_before, end, name, n, seed)) for n in some]
            for result in ProcessEngine(jobs).map(work):
                if result.value is not None:
                    lines.write(json.dumps(result.value) + "\n")
                    lines.flush()
    return [outcome for outcome in read_log(log) if outcome["seed"] == seed]


def _case_before(
    end: float, name: str, number: int, seed: int, folder: None, report: Report
) -> dict[str, Any] | None:
    """A job: a case, or None where the time is up."""
    if time.time() >= end:
        return None
    # A worker ignores Ctrl-C, and what a case starts would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_case(name, number, seed)


def commit() -> str:
    """The commit that is tried, with `+` where files differ from it."""
    said = ("git", "-C", str(HOME))
    head = subprocess.run([*said, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run([*said, "status", "--porcelain"], capture_output=True, text=True)
    return head.stdout.strip() + "+" * bool(dirty.stdout.strip())


def tally(name: str, cases: int, seed: int, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of outcomes by verdict and by kind, the sums of their figures, and every fault."""
    figures: Counter[str] = Counter()
    for outcome in outcomes:
        figures.update(outcome["figures"])
    faults = [outcome for outcome in outcomes if outcome["fault"]]
    return {
        "torture": name,
        "commit": commit(),
        "seed": seed,
        "cases": len(outcomes),
        "of": cases,
        "faults": len(faults),
        "verdicts": dict(Counter(outcome["verdict"] for outcome in outcomes).most_common()),
        "kinds": dict(Counter(outcome["kind"] for outcome in outcomes).most_common()),
        "figures": {figure: round(total, 3) for figure, total in figures.items()},
        "slowest_s": max((outcome["seconds"] for outcome in outcomes), default=0),
        "seconds": round(sum(outcome["seconds"] for outcome in outcomes)),
        "cores": os.cpu_count(),
        "faulty": [f"{o['case']} {o['kind']}: {o['fault']}" for o in faults[:50]],
    }
