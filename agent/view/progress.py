"""Progress of a training: a live page on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.engines.schedule import clock
from agent.learning.evaluation import EvaluationProgress
from agent.learning.training import Progress

_REFRESH_S = 0.25
_LINE_S = 10.0
"""Seconds between lines about an evaluation, which would be the same line again and again."""


class ProgressView(Protocol):
    """A view of progress; a context manager."""

    def __enter__(self) -> Self:
        """Opens the view."""

    def __exit__(self, *_: object) -> None:
        """Closes the view and restores the terminal."""

    def show(self, progress: Progress) -> None:
        """Shows the progress; called after every turn."""


def progress_view(title: str, live: bool, prefix: str = "") -> ProgressView:
    """A page where `live` and the output is a terminal, else lines that begin with `prefix`."""
    console = Console()
    if live and console.is_terminal:
        return LiveProgress(title, console)
    return PlainProgress(title, prefix)


def grouped(losses: dict[str, float]) -> dict[str, str]:
    """Losses by module, each module's as one readable line; those of no module under `learner`."""
    lines: dict[str, list[str]] = {}
    for name, value in losses.items():
        module, slash, loss = name.rpartition("/")
        lines.setdefault(module if slash else "learner", []).append(
            f"{loss.replace('_', ' ')} {value:.3g}"
        )
    return {module.replace("_", " "): "  ".join(parts) for module, parts in lines.items()}


def lasting(seconds: float) -> str:
    """1:02:03, or 2:03 within the hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


class PlainProgress:
    """A line for each report and each new warning, each after `prefix`."""

    def __init__(self, title: str, prefix: str = "") -> None:
        self.title, self.prefix = title, prefix
        self._warned: list[str] = []
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        self._print(self.title)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        """Prints a line where there is a new report, and now and then during an evaluation."""
        if progress.evaluating is None:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > _LINE_S:
            self._last = time.monotonic()
            self._print(f"{progress.steps}/{progress.of_steps} steps  eval {progress.evaluating}")
        if not progress.fresh:
            return
        losses = "  ".join(f"{m}: {line}" for m, line in grouped(progress.losses).items())
        self._print(
            f"{progress.steps}/{progress.of_steps} steps  {progress.frames} frames  "
            f"{progress.steps_per_s:.0f}/s  left {lasting(progress.remaining_s)}  "
            f"return {_number(progress.mean_return)}  eval "
            f"{'–' if progress.evaluation is None else progress.evaluation}  "
            f"best {_number(progress.best)}  {losses}".rstrip()
        )
        for warning in progress.warnings:
            if warning not in self._warned:
                self._print(f"warning   {warning}")
        self._warned = list(progress.warnings)

    def _print(self, line: str) -> None:
        print(f"{self.prefix}{line}", flush=True)


class LiveProgress:
    """Bar, pace and time left; returns, evaluations, losses by module, warnings."""

    def __init__(self, title: str, console: Console) -> None:
        self.title, self.console = title, console
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._last = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Redraws, four times a second at most."""
        now = time.monotonic()
        ends = progress.steps >= progress.of_steps and progress.evaluating is None
        if now - self._last < _REFRESH_S and not (progress.fresh or ends):
            return
        self._last = now
        self._live.update(self.page(progress), refresh=True)

    def page(self, progress: Progress) -> RenderableType:
        """The whole page."""
        bar = Table.grid(padding=(0, 1))
        share = progress.steps / max(1, progress.of_steps)
        bar.add_row(
            ProgressBar(total=max(1, progress.of_steps), completed=progress.steps, width=30),
            Text(f"{share:4.0%}", style="bold"),
            Text(f"{progress.steps:,} of {progress.of_steps:,} steps".replace(",", " ")),
            Text(f"{progress.frames:,} frames".replace(",", " "), style="dim"),
            Text(f"{progress.steps_per_s:,.0f}/s".replace(",", " ")),
            Text(f"left {lasting(progress.remaining_s)}", style="bold"),
        )
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim")
        facts.add_column()
        returns = f"{_number(progress.mean_return)} over the last {len(progress.returns)}"
        facts.add_row("return", f"{returns} of {progress.episodes} episodes")
        if progress.evaluating is not None:
            facts.add_row("evaluating", str(progress.evaluating))
        if progress.evaluation is not None:
            facts.add_row(
                "evaluation",
                f"{progress.evaluation} over {progress.evaluation.size} episodes   "
                f"best {_number(progress.best)}",
            )
        facts.add_row("updates", str(progress.updates))
        for module, line in grouped(progress.losses).items():
            facts.add_row(module, line)
        parts: list[RenderableType] = [Text(self.title, style="bold"), bar, facts]
        parts += [Text(f"warning   {warning}", style="yellow") for warning in progress.warnings]
        return Group(*parts)


class EvaluationView:
    """A line on stderr that says how far an evaluation is: redrawn on a terminal, else a new one
    every ten seconds.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, progress: EvaluationProgress) -> None:
        """Shows the progress; called after every turn."""
        now, terminal = time.monotonic(), self._console.is_terminal
        if now - self._last < (_REFRESH_S if terminal else _LINE_S):
            return
        self._last, left = now, ""
        if progress.ended:
            left_s = (now - self._began) / progress.ended * (progress.episodes - progress.ended)
            left = f", left {clock(left_s)}"
        if terminal:
            self._live.update(Text(f"eval      {progress}{left}"), refresh=True)
        else:
            print(f"eval      {progress}{left}", file=sys.stderr, flush=True)
