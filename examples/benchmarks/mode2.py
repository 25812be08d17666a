"""Gain of planning: trained agents in Mode-1, in Mode-2 with their learned model, and distilled.

    python examples/benchmarks/mode2.py --agents pong,boxing --episodes 10 --out runs/mode2

Each agent, a bundled one or a run, plays the same episodes three times: in Mode-1, planning every
action (the preset `rollouts`), and, after `sextet train AGENT --preset distil`, with a policy
trained to act as planning did (LeCun 2022, §3.1.3). The arms of an agent share a seed: their
episodes are pairs. `--out` stores the output of each `sextet eval --json`; the same command
continues from there, also with more agents or arms. Printed are the table and the ratio of mean
human-normalised scores with its 95 % interval (bootstrap of paired episodes within each game;
Agarwal et al. 2021).

Unknown options are passed to the commands that plan, as `--actor.planner.min_gain_std=1`; with
`--world_model.kind=clairvoyant` the emulator replaces the model, an upper bound.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.assembly.load import bundled_agents
from agent.bench.support import programs
from agent.bench.support.programs import add_engine_options, engine_of, results_of
from agent.engines.engine import Job, Report
from agent.learning.statistics import percentile_interval
from modules.messages import SextetError
from worlds.scores import human_normalised

SEED = 4_000_000
"""A seed used neither in training nor to choose a checkpoint."""

ARMS = ("Mode-1", "Mode-2", "distilled")


def sextet(words: list[str], log: Path) -> str:
    """Runs `sextet WORDS`, its output into `log`; its last line. Raises SystemExit if it fails."""
    ended = programs.sextet(words, log)
    if ended.code:
        raise SystemExit(f"mode2: sextet {' '.join(words[:2])} failed ({ended.code}): see {log}")
    return ended.lines[-1]


def file_name(agent: str) -> str:
    """File name of an agent: a bundled agent's name, or the path of a run joined by dashes."""
    if agent in bundled_agents():
        return agent
    return "-".join(["run", *(part for part in Path(agent).parts if part not in ("/", ".."))])


def distil(agent: str, run: Path, options: argparse.Namespace, more: list[str], log: Path) -> None:
    """Distils an agent into the folder `run`, or continues that. Raises SystemExit where it was
    stopped or fails.
    """

    def is_finished() -> bool:
        result = run / "result.json"
        return result.is_file() and not json.loads(result.read_text(encoding="utf-8"))["stopped"]

    if not is_finished():
        words = ["train", agent, "--preset", "distil", "--run", str(run), *more]
        if any(run.glob("checkpoints/[0-9]*")):
            words = ["train", "--resume", str(run)]
        else:
            shutil.rmtree(run, ignore_errors=True)  # killed before its first checkpoint
            words += ["--steps", str(options.steps), "--training.evaluate_every=0"]
        sextet([*words, "--no-live"], log)
    if not is_finished():
        raise SystemExit(
            f"mode2: {agent}: its distillation was stopped; the same command continues it"
        )


def played(agent: str, arm: str, options: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """The evaluation of an agent in an arm, read from `--out` where it exists."""
    name = file_name(agent)
    file, log = options.out / f"{name}-{arm}.json", options.out / f"{name}.log"
    if not file.is_file():
        player, extra = agent, []
        if arm == "Mode-2":
            extra = ["--preset", "rollouts", *more]
        if arm == "distilled":
            player = str(options.out / f"{name}-distilled")
            distil(agent, Path(player), options, more, log)
        count, protocol = str(options.episodes), ["--protocol", options.protocol]
        words = ["eval", player, "--episodes", count, "--num-envs", count, *protocol]
        line = sextet([*words, "--seed", str(SEED), "--json", *extra], log)
        file.write_text(line + "\n", encoding="utf-8")
    result = dict(json.loads(file.read_text(encoding="utf-8")))
    if result["human_normalised"] is None:
        raise SystemExit(
            f"mode2: {agent}: expected a game with human scores, got {result['world']}"
        )
    return result


def play_arms(
    agent: str,
    arms: list[str],
    options: argparse.Namespace,
    more: list[str],
    folder: None,
    report: Report,
) -> dict[str, Any] | str:
    """A job: the evaluations of an agent by arm, or the line with which one failed."""
    try:
        return {arm: played(agent, arm, options, more) for arm in arms}
    except SystemExit as error:
        return str(error)


def open_results(out: Path, settings: dict[str, Any]) -> None:
    """Creates the folder of results, or checks that it has the same settings. Raises ValueError
    where they differ: episodes played otherwise are no pairs.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "settings.json"
    played = any(place != file and place.suffix != ".log" for place in out.iterdir())
    if not (played and file.is_file()):
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    stored = json.loads(file.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if stored.get(name) != value:
            raise ValueError(
                f"--out {out}: was played with {name} {stored.get(name)!r}, got {value!r}; try "
                "another folder"
            )


def normalised(figures: dict[str, Any]) -> torch.Tensor:
    """Human-normalised returns of each episode, [E]."""
    each = [human_normalised(figures["world"], value) for value in figures["returns"]]
    return torch.tensor(each, dtype=torch.float64)


def described(result: dict[str, Any]) -> str:
    """Return, interval, model calls and time of an evaluation, on a line."""
    low, high = result["interval"]
    calls = result["model_calls"] / result["steps"]
    return (
        f"{result['mean_return']:>9.4g} [{low:.4g}, {high:.4g}]  "
        f"HNS {result['human_normalised']:.3f}  {calls:.0f} calls  "
        f"{result['ms_per_step']:.2f} ms a step"
    )


def interval(over: list[torch.Tensor], under: list[torch.Tensor]) -> tuple[float, float, float]:
    """Ratio of the means over games of mean scores [E] each, and its 95 % interval."""

    def ratio(*drawn: np.ndarray) -> np.ndarray:
        tops = [top.numpy()[indices].mean(-1) for top, indices in zip(over, drawn, strict=True)]
        bottoms = [low.numpy()[indices].mean(-1) for low, indices in zip(under, drawn, strict=True)]
        return sum(tops) / sum(bottoms)

    sizes = [len(top) for top in over]
    low, high = percentile_interval(ratio, sizes)
    return float(ratio(*map(np.arange, sizes))), float(low), float(high)


def main() -> None:
    """Plays the arms without a result, then prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--agents", default="", help="bundled agents or runs (all bundled in Atari)"
    )
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--protocol", default="100k")
    parser.add_argument("--steps", type=int, default=20_000, help="of each distillation (20000)")
    parser.add_argument("--arms", default=",".join(ARMS), help="of Mode-1, Mode-2, distilled")
    add_engine_options(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/mode2"))
    options, more = parser.parse_known_args()
    names = [arm.strip() for arm in options.arms.split(",")]
    if unknown := [arm for arm in names if arm not in ARMS]:
        parser.error(f"--arms: {unknown[0]!r} is not one of {', '.join(ARMS)}")
    arms = [arm for arm in ARMS if arm in names]
    # Arms with other seeds or worlds would be no pairs.
    for word in more:
        if word.partition("=")[0] in ("--seed", "--num-envs", "--preset", "--config"):
            parser.error(f"{word}: is the same for every arm; leave it out")
    apart = ("cartpole", "showpiece")
    agents = [a for a in options.agents.split(",") if a] or [
        name for name in bundled_agents() if name not in apart
    ]
    how = {name: getattr(options, name) for name in ("protocol", "episodes", "steps")}
    try:
        open_results(options.out, {**how, "more": more})
    except ValueError as error:
        parser.error(str(error))
    jobs = [
        Job(agent, functools.partial(play_arms, agent, arms, options, more)) for agent in agents
    ]
    try:
        done = {one.job.name: one.value for one in results_of(engine_of(options), jobs)}
    except SextetError as error:
        raise SystemExit(f"mode2: {error}") from None
    if failed := [row for row in done.values() if isinstance(row, str)]:
        raise SystemExit(failed[0])
    rows = [done[agent] for agent in agents]
    for agent, row in zip(agents, rows, strict=True):
        for arm, result in row.items():
            print(f"{agent:<14} {arm:<11}{described(result)}")
    scores = {arm: [normalised(row[arm]) for row in rows] for arm in arms}
    means = {arm: sum(float(t.mean()) for t in scores[arm]) / len(rows) for arm in arms}
    for arm in arms:
        print(f"{'mean HNS':<14}{arm:<11}{means[arm]:.3f}")
    for arm in arms[1:]:
        ratio, low, high = interval(scores[arm], scores[arms[0]])
        print(f"{arm} is {ratio:.3f} [{low:.3f}, {high:.3f}] times {arms[0]}")
    if len(arms) == len(ARMS) and means["Mode-2"] != means["Mode-1"]:
        share = (means["distilled"] - means["Mode-1"]) / (means["Mode-2"] - means["Mode-1"])
        print(f"distilled keeps {share:.2f} of the gap")


if __name__ == "__main__":
    main()
