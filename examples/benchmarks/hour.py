"""What an hour of one core buys: Sextet's `atari-hour` beside Stable-Baselines3's PPO and DQN.

    pip install -e .[peers]
    python examples/benchmarks/hour.py --games Boxing,Krull --seeds 0,1,2 --jobs 2
    python examples/benchmarks/hour.py --table

For each learner, game and seed one job of an engine trains, on one thread, for 60 minutes of CPU
time, its own evaluations included: Sextet's preset is fixed in steps, so that it needs 55 to 60
minutes on the machine named in `docs/atari.md`; the peers stop at the first evaluation after 60. At
10, 20, 40 and 60 minutes the agent that was best so far by its own evaluations (ten episodes every
tenth of the training) is judged: 30 episodes of held-out seeds under the protocols `100k` and `v5`,
the same for all. Judging is not part of the hour.

`--results` holds a JSON file of each training that is done; it is not repeated. An interrupted
training of Sextet continues, one of a peer begins anew. `--table` prints the table and draws
`hour.png` there. Exit codes: 0 all done; 1 a training failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent.bench.support import programs
from agent.bench.support.programs import add_engine_options, engine_of, results_of
from agent.engines.engine import Job, Report, processor
from agent.learning.evaluation import score
from agent.recording.atomic import new_file, write_json
from agent.recording.run_folder import RunFolder
from modules.messages import ConfigError
from modules.suggest import suggestion
from worlds.make import list_games
from worlds.scores import human_normalised

HERE = Path(__file__).parent
LEARNERS = ("sextet", "ppo", "dqn")
MARKS = (10, 20, 40, 60)
PROTOCOLS = ("100k", "v5")
HELD_SEED = 3_000_000
"""Added to a run's seed for the episodes that judge it, as in `peers.py`."""


class UsageError(Exception):
    """Wrong usage of the command, in one line."""


class Training(NamedTuple):
    """One training."""

    learner: str
    game: str
    seed: int

    @property
    def name(self) -> str:
        """`sextet-Boxing-0`."""
        return f"{self.learner}-{self.game}-{self.seed}"


def commit() -> str:
    """The commit of the program, empty outside a repository."""
    done = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return done.stdout.strip()


def one_thread() -> dict[str, str]:
    """The environment of a process that computes on one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def sextet(log: Path, *words: str) -> dict[str, Any]:
    """Runs `sextet WORDS --json` on one thread and returns its last line."""
    ended = programs.sextet([*words, "--json"], log)
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}, see {log}")
    return dict(json.loads(ended.lines[-1]))


def train_sextet(job: Training, options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """Trains by the preset, or continues an interrupted training, and judges its checkpoints."""
    place = options.out / job.name
    if (place / "config.yaml").is_file():
        result = sextet(log, "train", "--resume", str(place), "--no-live")
    else:
        result = sextet(
            log, "train", f"ALE/{job.game}-v5", "--protocol", "100k", "--preset", options.preset,
            "--seed", str(job.seed), "--run", str(place), "--no-live",
            "--training.keep_checkpoints=100", *options.more,
        )  # fmt: skip
    folder = RunFolder(place)
    evaluated = {
        line["steps"]: line["evaluation"]
        for line in map(json.loads, folder.metrics.read_text(encoding="utf-8").splitlines())
        if "evaluation" in line
    }
    saved = []
    for at in sorted(folder.checkpoints.glob("[0-9]*"), key=lambda path: int(path.name)):
        facts = json.loads((at / "facts.json").read_text(encoding="utf-8"))
        if facts["steps"] in evaluated:
            saved.append((facts["cpu_seconds"] / 60, facts["steps"], at))
    points = []
    for mark in MARKS:
        so_far = [one for one in saved if one[0] <= mark * 1.05]
        if not so_far:
            continue
        minutes, steps, _ = so_far[-1]
        best = max(so_far, key=lambda one: evaluated[one[1]])[2]
        judged = {}
        for protocol in PROTOCOLS:
            scores = sextet(
                log, "eval", str(best), "--protocol", protocol, "--episodes",
                str(options.episodes), "--num-envs", "10", "--seed", str(job.seed + HELD_SEED),
            )  # fmt: skip
            judged[protocol] = {**score(scores["returns"])._asdict(), "returns": scores["returns"]}
        points.append({"minutes": mark, "cpu": minutes, "steps": steps, **judged})
    return {
        "learner": job.learner, "game": job.game, "seed": job.seed, "preset": options.preset,
        "cpu_minutes": result["cpu_seconds"] / 60, "wall_minutes": result["seconds"] / 60,
        "steps": result["steps"], "updates": result["updates"], "points": points,
    }  # fmt: skip


def train_peer(job: Training, options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """Trains and judges PPO or DQN in a process of its own."""
    figures = options.out / f"{job.name}.json"
    with open(log, "ab") as out:
        done = subprocess.run(
            [sys.executable, str(HERE / "peers.py"), job.learner, job.game, "--seed", str(job.seed),
             "--episodes", str(options.episodes), "--out", str(figures)],
            stdout=out, stderr=out, env=one_thread(),
        )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}, see {log}")
    return dict(json.loads(figures.read_text(encoding="utf-8")))


def carry_out(
    training: Training, options: argparse.Namespace, folder: None, report: Report
) -> str | None:
    """A job: one training, unless it is done, and its figures; None, or why it failed."""
    results = options.results / f"{training.name}.json"
    if results.is_file():
        return None
    log = options.out / f"{training.name}.log"
    train = train_sextet if training.learner == "sextet" else train_peer
    try:
        figures = train(training, options, log)
    except RuntimeError as error:
        return str(error)
    load = os.getloadavg()[2]
    write_json(
        results,
        {**figures, "commit": commit(), "processor": processor(), "load": round(load, 2)},
    )
    return None


# -- table and plot ----------------------------------------------------------------------------


def results_in(folder: Path) -> list[dict[str, Any]]:
    """The figures of all trainings that are done."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*-*-*.json"))]


def at_mark(results: list[dict[str, Any]], learner: str, game: str, mark: int) -> list[Any]:
    """The points of all seeds of a learner in a game at a mark."""
    return [
        point
        for one in results
        if (one["learner"], one["game"]) == (learner, game)
        for point in one["points"]
        if point["minutes"] == mark
    ]


def figure(points: list[Any], protocol: str) -> tuple[float, float, float]:
    """Mean and 95 % interval: over seeds where there are several, else over episodes."""
    if len(points) > 1:
        over_seeds = score([point[protocol]["mean"] for point in points])
        return over_seeds.mean, over_seeds.low, over_seeds.high
    one = points[0][protocol]
    return one["mean"], one["low"], one["high"]


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table for each protocol and mark, with human-normalised means."""
    games = list(dict.fromkeys(one["game"] for one in results))
    lines = []
    for protocol in PROTOCOLS:
        for mark in MARKS:
            rows, normalised = [], {learner: list[float]() for learner in LEARNERS}
            for game in games:
                cells = []
                for learner in LEARNERS:
                    points = at_mark(results, learner, game, mark)
                    if not points:
                        cells.append("–")
                        continue
                    mean, low, high = figure(points, protocol)
                    steps = np.mean([point["steps"] for point in points])
                    hns = human_normalised(f"ALE/{game}-v5", mean)
                    normalised[learner].append(float("nan") if hns is None else hns)
                    cells.append(
                        f"{mean:.4g} [{low:.4g}, {high:.4g}], {len(points)} s., {steps / 1e3:.0f}k"
                    )
                rows.append(f"| {game} | " + " | ".join(cells) + " |")
            means = [
                f"{np.mean(values):.2f}, {np.median(values):.2f}" if values else "–"
                for values in normalised.values()
            ]
            lines += [
                f"**{protocol}, {mark} minutes** (mean [95 %], seeds, steps played)", "",
                "| game | " + " | ".join(LEARNERS) + " |", "|---|" + "---|" * len(LEARNERS),
                *rows, "| mean, median HNS | " + " | ".join(means) + " |", "",
            ]  # fmt: skip
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], place: Path) -> None:
    """Score against minutes, a panel a game, a line a learner."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    games = list(dict.fromkeys(one["game"] for one in results))
    columns = min(3, len(games))
    rows = -(-len(games) // columns)
    drawing, panels = pyplot.subplots(
        rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False, layout="constrained"
    )
    for panel in panels.flat[len(games) :]:
        panel.remove()
    for game, panel in zip(games, panels.flat, strict=False):
        for learner, colour in zip(LEARNERS, ("#0b7285", "#e8590c", "#7b8794"), strict=True):
            known = [mark for mark in MARKS if at_mark(results, learner, game, mark)]
            if known:
                scores = [figure(at_mark(results, learner, game, m), "100k") for m in known]
                mean, low, high = zip(*scores, strict=True)
                panel.plot(known, mean, "o-", color=colour, label=learner, markersize=4)
                panel.fill_between(known, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.set(title=game, xlabel="CPU minutes", xlim=(0, 62))
    panels.flat[0].legend(frameon=False)
    panels.flat[0].set_ylabel("return, protocol 100k")
    with new_file(place) as out:
        drawing.savefig(out, format="png", dpi=110)
    pyplot.close(drawing)


# -- command -----------------------------------------------------------------------------------


def trainings_of(options: argparse.Namespace) -> list[Training]:
    """All trainings that were named. Raises UsageError before any begins."""
    known = [name.removeprefix("ALE/").removesuffix("-v5") for name in list_games()]
    games = [name.strip() for name in options.games.split(",") if name.strip()]
    for game in games:
        if game not in known:
            raise UsageError(
                f"--games: expected Atari games, got {game!r}"
                f"{suggestion(game, known) or '; see `sextet list games`'}"
            )
    learners = [name.strip() for name in options.learners.split(",")]
    for name in learners:
        if name not in LEARNERS:
            raise UsageError(f"--learners: expected some of {', '.join(LEARNERS)}, got {name!r}")
    if {"ppo", "dqn"} & set(learners) and not importlib.util.find_spec("stable_baselines3"):
        raise UsageError(
            "--learners: ppo and dqn are of Stable-Baselines3, which is not installed; try "
            "pip install -c constraints.txt -e .[peers], or --learners sextet"
        )
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds: expected numbers as 0,1,2, got {options.seeds!r}") from None
    return [Training(name, game, seed) for seed in seeds for game in games for name in learners]


def bench(arguments: list[str]) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="hour.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--games", default="Boxing,Breakout,Freeway,Krull,Pong,RoadRunner")
    parser.add_argument("--seeds", default="0", help="as 0,1,2 (0)")
    parser.add_argument("--learners", default=",".join(LEARNERS), help="sextet,ppo,dqn")
    parser.add_argument("--preset", default="atari-hour")
    parser.add_argument("--episodes", type=int, default=30, help="that judge an agent (30)")
    add_engine_options(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/hour"), help="run folders, logs")
    parser.add_argument("--results", type=Path, default=Path("docs/hour"), help="a JSON of each")
    parser.add_argument("--table", action="store_true", help="print and draw what is done")
    options, options.more = parser.parse_known_args(arguments)
    if options.table:
        if not (results := results_in(options.results)):
            raise UsageError(f"--results: expected results in '{options.results}', got none")
        print(table(results))
        draw(results, options.results / "hour.png")
        return 0
    trainings = trainings_of(options)
    engine_of(options)  # a wrong one is refused before anything is written
    for folder in (options.out, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    work = [Job(one.name, functools.partial(carry_out, one, options)) for one in trainings]
    succeeded = True
    for result in results_of(engine_of(options), work):
        if result.value is not None:
            print(f"{result.job.name}: failed: {result.value}", file=sys.stderr, flush=True)
            succeeded = False
    return 0 if succeeded else 1


def main() -> int:
    """Runs the command; a wrong usage is one line and exit code 2."""
    try:
        return bench(sys.argv[1:])
    except (UsageError, ConfigError) as error:
        print(f"hour: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
