"""What each setting of a preset contributes: the same trainings with one setting changed.

    python examples/benchmarks/ablations.py --games Boxing,Breakout --out runs/ablations

Each arm runs `atari100k.py` with its own settings, in a folder of its own under `--out`: the same
steps, updates, episodes and seeds. The same command continues the work. The table has the score of
each game with its 95 % interval, the mean human-normalised score and the minutes of a run, since
some arms compute more in an update.

Other arguments are passed to every arm, as `--learner.batch=64`.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from statistics import mean

ARMS: dict[str, tuple[str, ...]] = {
    "preset": (),
    "sigreg": ("--world_model.objective.kind=sigreg",),
    "centred": ("--world_model.objective.kind=cosine-centered",),
    "no-objective": ("--world_model.objective.kind=none",),
    "no-shaping": ("--world_model.encoder_grad_scale=0",),
    "resets": ("--learner.reset_every=7000",),
    "n-3": ("--cost.critic.n_step_start=3",),
    "n-10": ("--cost.critic.n_steps=10",),
    "imagined-critic": ("--learner.imagination_horizon=3",),
    "unrolled-critic": ("--learner.critic_unroll_steps=2",),
    "mode-2": (
        "--actor.planner.kind=rollout", "--configurator.kind=random-rate",
        "--configurator.rate=0.125", "--directive.horizon_steps=8",
        "--directive.commit_steps=1", "--directive.model_calls=150",
        "--training.evaluation.configurator.rate=0",
    ),
}  # fmt: skip
"""Settings by name. Resets: two in 20,000 steps, the last 4,000 steps before the end. Mode-2: one
step in eight is planned while collecting, none in evaluations."""


def rows(folder: Path) -> list[dict[str, str]]:
    """The scores of an arm, a row a game and seed."""
    with open(folder / "scores.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores(results: list[dict[str, str]], game: str) -> str:
    """The game's scores in an arm, one a seed, separated by commas."""
    return ", ".join(
        f"{float(row['mean_return']):.4g} [{float(row['low']):.4g}, {float(row['high']):.4g}]"
        for row in results
        if row["game"] == game
    )


def games_of(out: Path, arms: list[str], text: str) -> list[str]:
    """The games of `Pong,Boxing`; for 26 or 57 those that have rows."""
    games = [game.strip() for game in text.split(",")]
    if not games[0].isdigit():
        return games
    folders = [out / arm for arm in arms if (out / arm / "scores.csv").is_file()]
    return sorted({row["game"] for folder in folders for row in rows(folder)})


def table(out: Path, arms: list[str], games: list[str]) -> str:
    """All arms that have rows, as Markdown."""
    lines = [
        f"| arm | {' | '.join(games)} | mean HNS | minutes a run |",
        f"|---|{'---|' * len(games)}---|---|",
    ]
    for arm in arms:
        results = rows(out / arm) if (out / arm / "scores.csv").is_file() else []
        if results := [row for row in results if row["game"] in games]:
            each = [float(row["human_normalised"]) for row in results if row["human_normalised"]]
            # The mean of fewer games cannot be compared.
            whole = {row["game"] for row in results} == {*games}
            normalised = f"{mean(each):.2f}" if each and whole else "–"
            minutes = mean(float(row["train_minutes"]) for row in results)
            cells = " | ".join(scores(results, game) or "–" for game in games)
            lines.append(f"| {arm} | {cells} | {normalised} | {minutes:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Runs the arms one after another. Returns the largest of their exit codes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--arms", default=",".join(ARMS), help="which, by name (all)")
    parser.add_argument("--games", default="Boxing,Breakout", help="as in atari100k.py")
    parser.add_argument("--steps", default="20000", help="of each training (20000)")
    parser.add_argument("--jobs", default="2", help="trainings side by side (2)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder")
    options, more = parser.parse_known_args()
    arms = options.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        print(f"ablations: --arms: {unknown[0]!r} is not one of {', '.join(ARMS)}", file=sys.stderr)
        return 2
    program, worst = Path(__file__).with_name("atari100k.py"), 0
    for arm in arms:
        request = ["--games", options.games, "--steps", options.steps, "--jobs", options.jobs]
        words = [*request, "--out", str(options.out / arm), *more, *ARMS[arm]]
        print(f"{arm}:", flush=True)
        worst = max(worst, subprocess.run([sys.executable, str(program), *words]).returncode)
        if worst in (2, 3):  # wrong usage for every arm, or the time is up
            break
    print(table(options.out, arms, games_of(options.out, arms, options.games)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
