"""The live view of a run: the game, the messages of the six modules, and recent trends."""

from __future__ import annotations

import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol, Self, TextIO

import cv2
import numpy as np
from rich.color import Color
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text
from torch import Tensor

from agent.recording.episode_stats import EpisodeReturns
from agent.reporting.text import MODULES, Words, number, percent
from agent.view.keys import Steerable
from modules.messages import Moment, WorldSpec

_COLOURS = dict(zip(MODULES, ("cyan", "blue", "red", "magenta", "green", "yellow"), strict=True))
_BARS = "▁▂▃▄▅▆▇█"
_BOXED_FROM = 37
"""Terminals of this many lines have room for a box around each panel."""


class Screen(Protocol):
    """A view of a run in progress."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, moment: Moment) -> None:
        """Adds a moment, and redraws when the interval is over."""


def screen(
    world: WorldSpec,
    drives: Sequence[str],
    heads: Sequence[str],
    render: Callable[[], Tensor] | None,
    steered: Steerable | None = None,
) -> Screen:
    """The dashboard where stdout is a terminal, else plain lines."""
    if sys.stdout.isatty():
        return Dashboard(world, drives, heads, render, steered=steered)
    return ProgressLines(world)


class _Tally:
    """Counts that both views show: steps, speed, modes, and the episodes of row 0."""

    def __init__(self) -> None:
        self.step, self.steps, self.planned_steps = 0, 0, 0
        self.returns = EpisodeReturns(0)
        self.episode, self.last = 1, list[float]()
        self.recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=50)

    def add(self, moment: Moment) -> None:
        rows = len(moment.surprise)
        if not self.steps:
            self.returns = EpisodeReturns(rows)
        self.step = moment.step
        self.steps += rows
        self.planned_steps += int((moment.plan.mode == 2).sum())
        if ended := [value for row, value in self.returns.add(moment.observation) if row == 0]:
            self.episode, self.last = self.episode + 1, ended

    @property
    def mode2_share(self) -> float:
        return self.planned_steps / max(self.steps, 1)

    def speed(self) -> float:
        """Steps a second over the last updates, all rows counted."""
        now = time.monotonic()
        self.recent.append((now, self.steps))
        (then, before), (_, after) = self.recent[0], self.recent[-1]
        return (after - before) / max(now - then, 1e-6)


class ProgressLines:
    """A plain line every `every_s` seconds: for logs and pipes."""

    def __init__(self, world: WorldSpec, out: TextIO | None = None, every_s: float = 2.0) -> None:
        self.world, self.every_s = world, every_s
        self._out = sys.stdout if out is None else out
        self._tally = _Tally()
        self._next = time.monotonic() + every_s

    def show(self, moment: Moment) -> None:
        """Adds a moment, and prints when the interval is over."""
        self._tally.add(moment)
        if time.monotonic() >= self._next:
            self._print()

    def _print(self) -> None:
        tally = self._tally
        print(
            f"{self.world.id}  step {tally.steps}"
            f"  {tally.speed():.0f} steps/s  score {number(tally.returns.score)}"
            f"  Mode-2 {percent(tally.mode2_share)}",
            file=self._out,
            flush=True,
        )
        self._next = time.monotonic() + self.every_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


class HalfBlocks:
    """A picture [H W 3] uint8 as characters, two pixels each: `▀` over its background."""

    def __init__(self, picture: np.ndarray[Any, Any], columns: int, lines: int) -> None:
        height, width = picture.shape[:2]
        # Half a character cell is about square.
        scale = min(columns / width, 2 * lines / height)
        self.columns = max(1, min(columns, round(width * scale)))
        self.lines = max(1, min(lines, round(height * scale / 2)))
        self.pixels = cv2.resize(
            picture, (self.columns, 2 * self.lines), interpolation=cv2.INTER_AREA
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in range(self.lines):
            pairs = np.concatenate([self.pixels[2 * line], self.pixels[2 * line + 1]], -1)
            changes = np.flatnonzero((pairs[1:] != pairs[:-1]).any(-1)) + 1
            starts = [0, *changes.tolist()]
            for start, end in zip(starts, [*starts[1:], self.columns], strict=True):
                yield Segment("▀" * (end - start), _paint(*pairs[start].tolist()))
            yield Segment.line()


@lru_cache(maxsize=4096)
def _paint(r: int, g: int, b: int, below_r: int, below_g: int, below_b: int) -> Style:
    return Style(color=Color.from_rgb(r, g, b), bgcolor=Color.from_rgb(below_r, below_g, below_b))


def sparkline(values: Sequence[float], columns: int) -> str:
    """The last values as bars between their least and greatest, at most `columns`."""
    shown = list(values)[-columns:]
    finite = [v for v in shown if np.isfinite(v)]
    if not finite:
        return ""
    low = min(finite)
    width = max(finite) - low or 1.0
    return "".join(
        _BARS[min(7, int((v - low) / width * 8))] if np.isfinite(v) else "·" for v in shown
    )


def mode_bars(modes: Sequence[float], columns: int) -> str:
    """The last modes as bars, high for Mode-2."""
    return "".join(_BARS[-1] if mode == 2 else _BARS[0] for mode in list(modes)[-columns:])


class Dashboard:
    """Shows row 0 of a run in the terminal, at most some ten times a second.

    `render` gives the picture to show, [H W 3] or [B H W 3] uint8, or is None where there is
    none. Drawing takes at most a tenth of the time. Where the run is `steered` by keys, the last
    line shows the keys and the present settings.
    """

    def __init__(
        self,
        world: WorldSpec,
        drives: Sequence[str],
        heads: Sequence[str],
        render: Callable[[], Tensor] | None,
        console: Console | None = None,
        every_s: float = 0.1,
        steered: Steerable | None = None,
    ) -> None:
        self.world, self.every_s, self.steered = world, every_s, steered
        self.words = Words(world, drives, heads)
        self._render = render
        self._console = Console() if console is None else console
        self._tally = _Tally()
        named = [*((drive, "red") for drive in drives), ("surprise", "blue"), ("mode", "yellow")]
        self._trends = [(name, colour, deque[float](maxlen=240)) for name, colour in named]
        self._before: Moment | None = None
        self._next = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop"
        )
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, moment: Moment) -> None:
        """Adds a moment, and redraws when the interval is over."""
        self._tally.add(moment)
        energies = moment.energies.intrinsic[0].tolist()
        values = [*energies, float(moment.surprise[0]), int(moment.plan.mode[0])]
        for (*_, trend), value in zip(self._trends, values, strict=True):
            trend.append(value)
        now = time.monotonic()
        if self._live is not None and now >= self._next:
            self._live.update(self.picture(moment), refresh=True)
            done = time.monotonic()
            self._next = done + max(self.every_s - (done - now), 10 * (done - now))
        self._before = moment

    def picture(self, moment: Moment) -> RenderableType:
        """The whole screen for a moment, in the present size of the console."""
        width, height = self._console.size
        left = max(26, min(int(width * 0.42), width - 44))
        right = width - left - 1
        body = height - 1 - (self.steered is not None)
        lines = self.words.lines(moment, self._before)
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=left, no_wrap=True, overflow="crop")
        table.add_column(width=right)
        table.add_row(
            Group(self._game(left, body - len(self._trends)), *self._bars(left)),
            self._panels(lines, right, body),
        )
        steered = () if self.steered is None else (_help(self.steered, width),)
        return Group(self._headline(width), table, *steered)

    def _headline(self, width: int) -> Text:
        tally = self._tally
        parts = [
            f"step {tally.step}",
            f"episode {tally.episode}",
            f"score {number(float(tally.returns.running[:1].sum()))}",
            *(f"last {number(value)}" for value in tally.last),
            f"{tally.speed():.0f} steps/s",
            f"Mode-2 {percent(tally.mode2_share)}",
        ]
        line = Text(f" {self.world.id} ", style="bold black on white", no_wrap=True)
        line.append("  " + "  ".join(parts), style="not bold default on default")
        line.truncate(width)
        return line

    def _game(self, columns: int, lines: int) -> RenderableType:
        if self._render is None:
            return Text("\n" * max(lines - 2, 0) + "no picture", style="dim")
        shown = self._render()
        picture = (shown[0] if shown.dim() == 4 else shown).cpu().numpy()
        return HalfBlocks(picture, columns, lines)

    def _bars(self, width: int) -> list[Text]:
        """Name, last value and course of each trend, in a line."""
        wide = min(max(len(name) for name, *_ in self._trends), 12)
        wide = max(wide, len("surprise"))
        return [
            Text.assemble(
                (f"{name.replace('_', ' ')[:wide]:<{wide}} ", colour),
                f"{number(trend[-1]) if trend else '':>6} ",
                ((mode_bars if name == "mode" else sparkline)(trend, width - wide - 8), colour),
                no_wrap=True,
            )
            for name, colour, trend in self._trends
        ]

    def _panels(self, texts: dict[str, list[str]], width: int, height: int) -> RenderableType:
        boxed = height + 1 >= _BOXED_FROM
        # The modules with the longest texts get the remaining lines.
        sizes = dict.fromkeys(MODULES, height // len(MODULES))
        for name in ("configurator", "world model", "actor", "cost", "perception")[
            : height % len(MODULES)
        ]:
            sizes[name] += 1
        panels: list[RenderableType] = []
        for name in MODULES:
            colour, size = _COLOURS[name], sizes[name]
            if boxed:
                lines = _wrapped(texts[name], width - 4, size - 2)
                panels.append(
                    Panel(
                        Text("\n".join(lines), no_wrap=True),
                        title=name,
                        title_align="left",
                        border_style=colour,
                        height=size,
                        width=width,
                    )
                )
            else:
                head = Rule(Text(name, f"bold {colour}"), align="left", style=colour)
                lines = _wrapped(texts[name], width, size - 1)
                lines += [""] * (size - 1 - len(lines))
                panels += [head, *(Text(line, no_wrap=True) for line in lines)]
        return Group(*panels)


def _help(steered: Steerable, width: int) -> Text:
    """The present settings and the keys, in a line."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f" {steered.status} ", style="bold black on yellow")
    for key, does in steered.keys.items():
        line.append(f"  {key}", style="bold yellow")
        line.append(f" {does}", style="dim")
    line.truncate(width)
    return line


def _wrapped(lines: Sequence[str], width: int, height: int) -> list[str]:
    """As many lines as fit; lines are wrapped where there is room."""
    fitted: list[str] = []
    for below, line in zip(reversed(range(len(lines))), lines, strict=True):
        room = max(height - len(fitted) - below, 1)
        fitted += textwrap.wrap(
            line, width, subsequent_indent="  ", max_lines=room, placeholder="…"
        )
    return fitted[:height]
