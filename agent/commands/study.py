"""`sextet study`: a question answered by experiments with paired seeds, and its report."""

from __future__ import annotations

import time
from typing import Any

from agent.api.failure import RunInterrupted
from agent.commands.text import whole_numbers
from agent.recording.plain_json import dumps
from agent.studies.conduct import study as call
from modules.messages import ConfigError


def study(
    *, as_json: bool, seeds: str | None = None, worlds: str | None = None, **options: Any
) -> None:
    """Runs or resumes a study and prints its verdicts; as JSON in the last line with `as_json`.

    `options` are those of `agent.study`. Ctrl-C keeps what is finished and reports it; then
    RunInterrupted is raised.
    """
    if seeds is not None:
        options["seeds"] = whole_numbers("--seeds", seeds)
    if worlds is not None:
        options["worlds"] = worlds.split(",")
    fresh = options["quick"] or {"seeds", "worlds", "run"} & options.keys()
    if "resume" in options and fresh:
        raise ConfigError("study --resume: continues a study as it was begun; leave options out")
    start, interrupted = time.monotonic(), None
    try:
        run = call(**options, on_progress=lambda done: print(done, flush=True))
    except RunInterrupted as error:
        run, interrupted = error.run, error
    findings, folder = run.findings, run.folder
    for verdict in findings.verdicts:
        print(f"{'met   ' if verdict.met else 'short '}    {verdict.text}")
    print(f"report    {run.report}")
    if interrupted is not None:
        print(f"go on     sextet study --resume {folder}")
    if as_json:
        figures = {
            "study": run.study.name,
            "run": str(folder),
            "runs": len(findings.runs),
            "missing": len(findings.missing),
            "stopped": interrupted is not None,
            "seconds": round(time.monotonic() - start, 1),
            "verdicts": [{"text": v.text, "met": v.met} for v in findings.verdicts],
            "report": str(run.report),
        }
        print(dumps(figures, ensure_ascii=False))
    if interrupted is not None:
        raise interrupted
