"""What an example takes and prints: options, tables, shares with intervals, figures as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agent.learning.evaluation import score
from agent.recording.atomic import new_file


def natural(text: str) -> int:
    """A seed: an integer that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A number of at least 1."""
    if natural(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def options_of(
    document: str | None,
    *,
    quick: str,
    picture: str | None = None,
    runs: str | None = None,
    seed: bool = False,
    parts: Sequence[str] = (),
    counts: Sequence[str] = (),
) -> argparse.Namespace:
    """`quick` (described so) and `json`; `out` of an example that draws a `picture` of this name,
    `runs` of one that trains into a folder of this name, `seed`, `only` of one with `parts`, and
    `counts`, numbers of at least 1 such as `seeds`, None where they are left to the example.

    The folder of the picture is made. Bad input ends the program in a line, exit code 2. Torch has
    one thread from here on, so that figures do not depend on the machine's cores.
    """
    parser = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    if seed:
        parser.add_argument("--seed", type=natural, default=0, help="the first of the seeds")
    if parts:
        parser.add_argument("--only", choices=parts, help="one part")
    for name in counts:
        parser.add_argument(f"--{name}", type=positive, help=f"number of {name}")
    parser.add_argument("--quick", action="store_true", help=quick)
    if runs is not None:
        parser.add_argument("--runs", type=Path, default=Path("runs") / runs, help="trainings")
    if picture is not None:
        place = Path("runs") / f"{picture}.png"
        parser.add_argument("--out", type=Path, default=place, help="the picture")
    parser.add_argument("--json", action="store_true", help="one JSON object in the last line")
    options = parser.parse_args()
    if picture is not None:
        if options.out.is_dir():
            parser.error(f"--out: expected the path of a PNG, got the folder {str(options.out)!r}")
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out: expected a path that can be written, got {error}")
    torch.set_num_threads(1)
    return options


def save_picture(figure: Any, place: Path, dpi: int) -> None:
    """Writes a matplotlib figure as a PNG, whole or not at all."""
    with new_file(place) as out:
        figure.savefig(out, format="png", dpi=dpi)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def mean_of(values: Sequence[float]) -> str:
    """The mean over trainings with its 95 % bootstrap interval."""
    both = score(values)
    return f"{both.mean:.3f} [{both.low:.3f}, {both.high:.3f}]"


@dataclass(frozen=True)
class Share:
    """`count` of `of`, with the 95 % interval of the share after Wilson."""

    count: int
    of: int
    low: float
    high: float

    @staticmethod
    def of_draws(count: int, of: int) -> Share:
        """`count` of `of` draws."""
        from scipy.stats import binomtest

        interval = binomtest(count, of).proportion_ci(method="wilson")
        return Share(count, of, float(interval.low), float(interval.high))

    def __str__(self) -> str:
        return f"{self.count}/{self.of} [{self.low:.2f}, {self.high:.2f}]"


def print_results(
    tables: Sequence[str], bars: Mapping[str, bool], figures: Mapping[str, Any] | None
) -> None:
    """Prints tables, then each bar and whether it is met, then all `figures` as JSON, in which
    those that are not finite are null; None: no JSON.
    """
    print(*tables, sep="\n")
    for bar, met in bars.items():
        print(f"{'met' if met else 'falls short'}: {bar}")
    if figures is not None:
        text = json.dumps({**figures, "bars": dict(bars)})
        print(json.dumps(json.loads(text, parse_constant=lambda word: None)))
