"""A study from its name to its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.api.failure import RunInterrupted, running
from agent.assembly.trust import require_named
from agent.engines.choice import engine_for
from agent.engines.engine import Engine
from agent.engines.schedule import JobProgress
from agent.studies.findings import Findings
from agent.studies.report import write_report
from agent.studies.runner import begin, reopen, run_study
from agent.studies.study import Study, chosen, read_study
from agent.studies.study import quick as reduced
from modules.messages import ConfigError


@dataclass(frozen=True)
class StudyRun:
    """A study, its folder and the findings of the runs that are finished."""

    study: Study
    folder: Path
    findings: Findings

    @property
    def report(self) -> Path:
        """The report as one HTML file."""
        return self.folder / "report.html"


def study(
    name: str | Path | None = None,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    worlds: Sequence[str] | None = None,
    jobs: int | None = None,
    engine: Engine | str | None = None,
    address: str | None = None,
    run: str | Path | None = None,
    resume: str | Path | None = None,
    plugins: Sequence[str] = (),
    on_progress: Callable[[JobProgress], object] | None = None,
) -> StudyRun:
    """Runs every arm of a study in every world with every seed, and writes its report.

    `name`: a study of the package or a YAML file; or `resume`: the folder of one to continue.
    `quick`: reduced, to see that it works. `seeds`, `worlds` replace those of the study. `engine`:
    serial, processes or ray, with the `address` of its head node; results are the same. `jobs`:
    runs at a time, None: one a core. `run`: the new folder. `plugins`: the packages that a resumed
    study may import. Raises ConfigError before the folder is created, RunFailedError at the first
    run that fails; Ctrl-C raises RunInterrupted, a KeyboardInterrupt with the findings so far. What
    is finished stays.

    >>> study("surprise-threshold", quick=True).findings.missing
    []
    """
    if (name is None) == (resume is None):
        raise ConfigError("study: expected a name, or a folder to resume, one of the two")
    chosen_engine = engine_for(engine, jobs, address)
    if resume is not None:
        folder = Path(resume)
        plan = reopen(folder)
        require_named(plan.model_dump(mode="json"), plugins, f"study {folder}")
    else:
        assert name is not None
        plan = chosen(
            read_study(name),
            None if seeds is None else tuple(seeds),
            None if worlds is None else tuple(worlds),
        )
        if quick:
            plan = reduced(plan)
        folder = begin(plan, None if run is None else Path(run))
    interrupted = False
    with running(f"{folder}; go on with: sextet study --resume {folder}"):
        try:
            run_study(plan, folder, chosen_engine, on_progress or (lambda _: None))
        except KeyboardInterrupt:
            interrupted = True
        result = StudyRun(plan, folder, write_report(folder))
    if interrupted:
        raise RunInterrupted(result) from None
    return result
