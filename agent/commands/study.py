"""`sextet study`: a question carried out with paired seeds, and the report that answers it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from agent.commands.failure import running
from agent.studies.report import write_report
from agent.studies.runner import StudyProgress, begin, reopen, run_study
from agent.studies.study import chosen, quick, read_study
from modules.messages import ConfigError


def study(
    name: str | None,
    jobs: int | None,
    seeds: str | None,
    worlds: str | None,
    small: bool,
    run: Path | None,
    resume: Path | None,
    as_json: bool,
) -> None:
    """Runs or resumes a study and prints what it came to; as JSON in the last line where asked.

    Everything is checked before the folder is made. Ctrl-C keeps what is finished.
    """
    if resume is not None:
        folder = resume
        asked = reopen(folder)
    else:
        assert name is not None
        named = None if worlds is None else tuple(worlds.split(","))
        asked = chosen(read_study(name), _whole(seeds), named)
        if small:
            asked = quick(asked)
        folder = begin(asked, run)
    began, stopped = time.monotonic(), False
    several = jobs or len(os.sched_getaffinity(0))
    with running(kept=f"{folder}; go on with: sextet study --resume {folder}"):
        try:
            run_study(asked, folder, several, lambda done: print(_line(done), flush=True))
        except KeyboardInterrupt:
            stopped = True
        findings = write_report(folder)
    for verdict in findings.verdicts:
        print(f"{'met   ' if verdict.met else 'short '}    {verdict.text}")
    print(f"report    {folder / 'report.html'}")
    if stopped:
        print(f"go on     sextet study --resume {folder}")
    if as_json:
        figures = {
            "study": asked.name,
            "run": str(folder),
            "runs": len(findings.runs),
            "missing": len(findings.missing),
            "stopped": stopped,
            "seconds": round(time.monotonic() - began, 1),
            "verdicts": [{"text": v.text, "met": v.met} for v in findings.verdicts],
            "report": str(folder / "report.html"),
        }
        print(json.dumps(figures, ensure_ascii=False))


def _whole(seeds: str | None) -> tuple[int, ...] | None:
    """Seeds as given, `0,1,2` or `0-11`. Raises ConfigError."""
    if seeds is None:
        return None
    numbers: list[int] = []
    for part in seeds.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(
                f"study seeds: expected whole numbers like 0,1,2 or 0-11, got {seeds!r}"
            )
        numbers += range(int(first), int(last if dash else first) + 1)
    return tuple(numbers)


def _line(done: StudyProgress) -> str:
    left = time.strftime("%H:%M:%S", time.gmtime(done.remaining_s))
    return f"{done.done}/{done.total}  left {left}  {done.what}"
