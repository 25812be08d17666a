"""A training and a growing run with its page open, for 45 minutes: nothing may leak.

Three processes, as a user starts them: a training, a play that is recorded, and the page of that
play, which is asked as a browser asks it. Resident memory, open handles and threads of each are
measured all along; the first third is the warm-up. SEXTET_SOAK_MINUTES sets another length.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.torture.harness import HOME, Outcome
from tests.torture.kill import folder

CASES = 1

MINUTES = float(os.environ.get("SEXTET_SOAK_MINUTES", "45"))

GROWTH = 0.02
"""The share by which resident memory may grow after the warm-up."""

FOREVER = "1000000000"

TRAIN = (
    "train", "CartPole-v1", "--steps", FOREVER, "--run", "t", "--no-live",
    "--memory.capacity=1000", "--learner.warmup_steps=100", "--learner.batch=8",
    "--training.report_every=200", "--training.evaluate_every=1000",
    "--training.checkpoint_every=1000", "--training.evaluate_episodes=2",
)  # fmt: skip

PLAY = ("play", "CartPole-v1", "--steps", FOREVER, "--run", "p", "--no-live")
"""With the planner of the default settings: some steps a second, as a person watches."""


class Usage(NamedTuple):
    """Of a process: resident memory in MB, open handles, threads."""

    rss: float
    handles: float
    threads: float


def usage(process: int) -> Usage:
    """What a running process uses now."""
    place = Path("/proc", str(process))
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines())
    rss = float(status["VmRSS"].split()[0]) / 1024
    return Usage(rss, len(list((place / "fd").iterdir())), float(status["Threads"]))


class Page:
    """A browser's requests to the page of a growing run."""

    def __init__(self, url: str) -> None:
        self.url, self.steps = url.rstrip("/"), 0
        self.ask("/")

    def ask(self, path: str) -> bytes:
        """What the server answers."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            body: bytes = answer.read()
        return body

    def follow(self) -> None:
        """Asks for what has been recorded since, and looks at the last moment."""
        grown: dict[str, Any] = json.loads(self.ask("/grown?run=0"))
        if grown["steps"] > self.steps:
            self.ask(f"/series?run=0&row=0&from={self.steps}")
            self.steps = grown["steps"]
            self.ask(f"/moment?run=0&row=0&step={self.steps - 1}")


def begin(at: Path, name: str, words: tuple[str, ...]) -> subprocess.Popen[str]:
    """A process of the command, which writes into `name.out`."""
    with open(at / f"{name}.out", "w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "agent.cli", *words], cwd=at, stdout=out,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)},
        )  # fmt: skip


def until(ready: Any, timeout_s: float = 120) -> Any:
    """What `ready` returns once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := ready()):
        assert time.monotonic() < deadline, "not begun in time"
        time.sleep(0.1)
    return value


def case(number: int, seed: int) -> Outcome:
    """The soak."""
    return soak(60 * MINUTES, GROWTH)


def soak(seconds: float, growth: float) -> Outcome:
    """Runs the three processes for so long; `growth`: what is allowed."""
    with folder() as at:
        processes = {"train": begin(at, "train", TRAIN), "play": begin(at, "play", PLAY)}
        try:
            until((at / "t" / "metrics.jsonl").exists)
            until((at / "p" / "trace.sqlite").exists)
            processes["page"] = begin(at, "page", ("view", "p", "--no-open"))
            out = at / "page.out"
            until(lambda: "http" in out.read_text())
            page = Page(next(w for w in out.read_text().split() if w.startswith("http")))
            series: dict[str, list[Usage]] = {name: [] for name in processes}
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                page.follow()
                for name, process in processes.items():
                    if process.poll() is not None:
                        said = (at / f"{name}.out").read_text()[-300:]
                        return Outcome("soak", "ended", f"{name} ended: {' '.join(said.split())}")
                    series[name].append(usage(process.pid))
                time.sleep(min(1.0, seconds / 20))
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                process.wait(60)
    faults, figures = [], {"minutes": seconds / 60, "steps of the page": float(page.steps)}
    for name, used in series.items():
        fault, share = judged(used, growth)
        figures |= {f"{name} MB": round(used[-1].rss, 1), f"{name} growth": round(share, 4)}
        faults += [f"{name}: {fault}"] if fault else []
    return Outcome("soak", "leaks" if faults else "steady", "; ".join(faults), figures)


def judged(used: list[Usage], growth: float) -> tuple[str, float]:
    """What leaks, and the growth of memory after the warm-up, a share: a line is fitted."""
    after = np.array(used[len(used) // 3 :])
    rss = after[:, 0]
    slope = np.polyfit(np.arange(len(rss)), rss, 1)[0]
    share = float(slope * len(rss) / rss.mean())
    if share > growth:
        return f"memory grew by {share:.1%}", share
    for at, what in ((1, "handles"), (2, "threads")):
        first, last = (np.median(part[:, at]) for part in (after[: len(after) // 2], after[-9:]))
        if last > first + 1:
            return f"{first:g} {what} became {last:g}", share
    return "", share
