"""What thinking brings: trained agents in Mode-1, in Mode-2 with the model they learned, distilled.

    python examples/benchmarks/mode2.py --agents pong,boxing --episodes 10 --out runs/mode2

Every agent, a bundled one or a run, plays the same whole episodes three times: as it reacts,
planning every action (the preset `rollouts`), and, after `sextet train AGENT --preset
distil`, with a policy that does what planning would have done (LeCun 2022, §3.1.3). Arms of an
agent have the same seed: their episodes are pairs. `--out` keeps what each `sextet eval --json`
said; the same command again goes on, with more agents or arms too. Printed are the table and the
ratio of mean human-normalised scores with its interval (95 %, episodes redrawn in pairs within each
game; Agarwal et al. 2021).

Words this program does not know are passed on wherever an agent plans, as
`--actor.planner.min_gain_std=1`; with `--world_model.kind=clairvoyant` it plans in the emulator
itself, which says how much a model could give.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from agent.assembly.load import bundled_agents
from modules import chance
from worlds.scores import human_normalised

SEED = 4_000_000
"""Neither lived by a training nor used to choose a checkpoint."""

ARMS = ("Mode-1", "Mode-2", "distilled")
RESAMPLES = 4_000


def sextet(words: list[str], log: Path) -> str:
    """Runs `sextet WORDS`, its errors into `log`; its last line. Raises SystemExit if it fails."""
    with open(log, "a", encoding="utf-8") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    if done.returncode:
        raise SystemExit(
            f"mode2: sextet {' '.join(words[:2])} failed ({done.returncode}): see {log}"
        )
    return done.stdout.strip().splitlines()[-1]


def called(agent: str) -> str:
    """A bundled agent's name, or a run's whole path, as the name of a file."""
    if agent in bundled_agents():
        return agent
    return "-".join(["run", *(part for part in Path(agent).parts if part not in ("/", ".."))])


def distilled(agent: str, who: Path, given: argparse.Namespace, more: list[str], log: Path) -> None:
    """Distils an agent into the folder `who`, or goes on with it. Raises SystemExit where it was
    stopped or fails.
    """

    def over() -> bool:
        result = who / "result.json"
        return result.is_file() and not json.loads(result.read_text(encoding="utf-8"))["stopped"]

    if not over():
        words = ["train", agent, "--preset", "distil", "--run", str(who), *more]
        if any(who.glob("checkpoints/[0-9]*")):
            words = ["train", "--resume", str(who)]
        else:
            shutil.rmtree(who, ignore_errors=True)  # killed before its first checkpoint
            words += ["--steps", str(given.steps), "--training.evaluate_every=0"]
        sextet([*words, "--no-live"], log)
    if not over():
        raise SystemExit(f"mode2: {agent}: its distillation was stopped; the same command goes on")


def played(agent: str, arm: str, given: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """What an agent came to in an arm; looked up where it has played."""
    name = called(agent)
    kept, log = given.out / f"{name}-{arm}.json", given.out / f"{name}.log"
    if not kept.is_file():
        who, told = agent, []
        if arm == "Mode-2":
            told = ["--preset", "rollouts", *more]
        if arm == "distilled":
            who = str(given.out / f"{name}-distilled")
            distilled(agent, Path(who), given, more, log)
        words = ["eval", who, "--episodes", str(given.episodes), "--num-envs", str(given.episodes)]
        protocol = ["--protocol", given.protocol]
        said = sextet([*words, *protocol, "--seed", str(SEED), "--json", *told], log)
        kept.write_text(said + "\n", encoding="utf-8")
    said = dict(json.loads(kept.read_text(encoding="utf-8")))
    if said["human_normalised"] is None:
        raise SystemExit(f"mode2: {agent}: expected a game with human scores, got {said['world']}")
    return said


def hold(out: Path, asked: dict[str, Any]) -> None:
    """Opens the folder of results, new or of the same settings. Raises ValueError, a line, where
    they are others: what was played otherwise is no pair.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "settings.json"
    played = any(place != kept and place.suffix != ".log" for place in out.iterdir())
    if not (played and kept.is_file()):
        kept.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    held = json.loads(kept.read_text(encoding="utf-8"))
    for name, value in asked.items():
        if held.get(name) != value:
            raise ValueError(
                f"--out {out}: was played with {name} {held.get(name)!r}, got {value!r}; try "
                "another folder"
            )


def normalised(figures: dict[str, Any]) -> torch.Tensor:
    """Human-normalised returns of each episode, [E]."""
    each = [human_normalised(figures["world"], value) for value in figures["returns"]]
    return torch.tensor(each, dtype=torch.float64)


def described(said: dict[str, Any]) -> str:
    """What an agent came to and what it cost, on a line."""
    low, high = said["interval"]
    return (
        f"{said['mean_return']:>9.4g} [{low:.4g}, {high:.4g}]  HNS {said['human_normalised']:.3f}  "
        f"{said['model_calls'] / said['steps']:.0f} calls  {said['ms_per_step']:.2f} ms a step"
    )


def interval(over: list[torch.Tensor], under: list[torch.Tensor]) -> tuple[float, float, float]:
    """Ratio of the means over games of mean scores [E] each, and its 95 % interval."""
    tops = bottoms = torch.zeros(RESAMPLES, dtype=torch.float64)
    for game, (top, bottom) in enumerate(zip(over, under, strict=True)):
        key = chance.keys(0, 1, game)
        drawn = chance.integers(key, "bootstrap", len(top), RESAMPLES, len(top))[0]
        tops = tops + top.double()[drawn].mean(-1)
        bottoms = bottoms + bottom.double()[drawn].mean(-1)
    ratio = sum(float(t.mean()) for t in over) / sum(float(b.mean()) for b in under)
    low, high = torch.quantile(tops / bottoms, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return ratio, float(low), float(high)


def main() -> None:
    """Plays what was not played yet, then prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--agents", default="", help="bundled agents or runs (all bundled in Atari)"
    )
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--protocol", default="100k")
    parser.add_argument("--steps", type=int, default=20_000, help="of each distillation (20000)")
    parser.add_argument("--arms", default=",".join(ARMS), help="of Mode-1, Mode-2, distilled")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/mode2"))
    given, more = parser.parse_known_args()
    asked = [arm.strip() for arm in given.arms.split(",")]
    if unknown := [arm for arm in asked if arm not in ARMS]:
        parser.error(f"--arms: {unknown[0]!r} is not one of {', '.join(ARMS)}")
    arms = [arm for arm in ARMS if arm in asked]
    # Arms with other seeds or worlds were no pairs.
    for word in more:
        if word.partition("=")[0] in ("--seed", "--num-envs", "--preset", "--config"):
            parser.error(f"{word}: is the same for every arm; leave it out")
    apart = ("cartpole", "showpiece")
    agents = [a for a in given.agents.split(",") if a] or [
        name for name in bundled_agents() if name not in apart
    ]
    how = {name: getattr(given, name) for name in ("protocol", "episodes", "steps")}
    try:
        hold(given.out, {**how, "more": more})
    except ValueError as error:
        parser.error(str(error))
    with ThreadPoolExecutor(given.jobs) as pool:
        rows = list(
            pool.map(lambda who: {arm: played(who, arm, given, more) for arm in arms}, agents)
        )
    for agent, row in zip(agents, rows, strict=True):
        for arm, said in row.items():
            print(f"{agent:<14} {arm:<11}{described(said)}")
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
