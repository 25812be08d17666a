"""Compares two versions of the repository on this machine: the same probes, side by side.

    python examples/benchmarks/compare_versions.py --old 813c87c --new . --quick

A revision is checked out into a temporary folder; `.` is a copy of this working tree as it is, the
path of a folder a copy of the working tree there. Every probe runs the command of each version in a
process of its own, with one thread, and compares the numbers of both by value and order, never by
name: modules, settings, message fields and keys of weights may be renamed. All comparisons are
exact. Exit codes: 0 all equal, 1 something differs, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from version_numbers import (
    checkpoint_files,
    difference,
    json_difference,
    leaves,
    nearest,
    read_trace,
    tensors,
    unmatched,
)

from agent.engines.engine import Engine, Job, Report
from agent.engines.processes import ProcessEngine

ROOT = Path(__file__).resolve().parents[2]

RENAMED = {
    "--worlds": "--num-envs",
    "--configurator.horizon_steps": "--directive.horizon_steps",
    "--configurator.model_calls": "--directive.model_calls",
    "--cost.critic.members": "--cost.critic.ensemble_size",
    "--learner.foretold_steps": "--learner.critic_unroll_steps",
    "--learner.imagined_branches": "--learner.rollouts_per_state",
    "--learner.imagined_steps": "--learner.imagination_horizon",
    "--learner.updates_per_step": "--learner.replay_ratio",
    "--perception.wider": "--perception.width_multiplier",
    "--world_model.ensemble": "--world_model.ensemble_size",
}
"""Options of version 0.1 that the probes use, and their later names. A version that refuses one
(exit code 2, the option named in the error) is given the other."""


# -- the two versions -------------------------------------------------------------------------


@dataclass
class Version:
    """A checkout, and which of the renamed options each of its verbs takes by the later name."""

    revision: str
    folder: Path
    later: set[tuple[str, str]] = field(default_factory=set)

    def environment(self) -> dict[str, str]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return {**os.environ, **threads, "PYTHONPATH": str(self.folder)}

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder, env=self.environment(), capture_output=True, text=True,
        )  # fmt: skip

    def sextet(self, words: Sequence[str]) -> dict[str, Any]:
        """The JSON object in the last line of a command's output. Raises RuntimeError."""
        while True:
            process = self.call(
                "-m", "agent.cli", *(self._option(words[0], word) for word in words)
            )
            if process.returncode == 0:
                return dict(json.loads(process.stdout.strip().splitlines()[-1]))
            to_rename = {
                (words[0], name)
                for name in (word.partition("=")[0] for word in words)
                if name in RENAMED and _names(process.stderr, name)
            }
            if process.returncode != 2 or to_rename <= self.later:
                raise RuntimeError(f"exit {process.returncode}: {process.stderr.strip()[-300:]}")
            self.later |= to_rename

    def _option(self, verb: str, word: str) -> str:
        name, equals, value = word.partition("=")
        return RENAMED[name] + equals + value if (verb, name) in self.later else word


def _names(text: str, option: str) -> bool:
    last = option.lstrip("-").rpartition(".")[2]
    return re.search(rf"(?<!\w){re.escape(last)}(?![\w-])", text) is not None


def check_out(revision: str, folder: Path) -> Version:
    """The files of a revision in `folder`. Raises RuntimeError where its code is not what runs."""
    folder.mkdir(parents=True)
    tree = ROOT if revision == "." else Path(revision).resolve()
    git = ["git", "-C", str(tree if tree.is_dir() else ROOT)]
    if tree.is_dir():
        listed = subprocess.run(
            [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        for name in {os.fsdecode(name) for name in listed.split(b"\0") if name}:
            if (tree / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tree / name, folder / name)
    else:
        packed = subprocess.run([*git, "archive", revision], check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    version = Version(revision, folder)
    program = "import agent, modules, worlds; print(agent.__file__, modules.__file__, "
    process = version.call("-c", program + "worlds.__file__)")
    places = process.stdout.split()
    if process.returncode or not all(Path(place).is_relative_to(folder) for place in places):
        raise RuntimeError(
            f"{revision}: imports {places or process.stderr[-300:]}, not its own files"
        )
    return version


# -- probes -----------------------------------------------------------------------------------


class Result(NamedTuple):
    """What the commands of a probe left in one version: their JSON objects and a folder."""

    answers: list[dict[str, Any]]
    run: Path


Row = tuple[str, str | None]
"""What was compared, and how it differs; None: equal."""


class Probe(NamedTuple):
    """Commands, `{run}` standing for a new folder, and the comparison of what they leave."""

    name: str
    commands: list[list[str]]
    compare: Callable[[Result, Result], list[Row]]


def compare_returns(old: Result, new: Result) -> list[Row]:
    names = ("returns", "steps", "mode2_share", "model_calls")
    a, b = ({name: side.answers[0].get(name) for name in names} for side in (old, new))
    return [(f"{len(a['returns'])} returns, steps", json_difference(a, b))]


def compare_traces(old: Result, new: Result) -> list[Row]:
    """Actions and energies, whose names are looked up in `old` alone, then all else."""
    left, right = (read_trace(next(side.run.rglob("*.sqlite"))) for side in (old, new))
    rows: list[Row] = []
    for title, pattern in (("actions", r"(^|\.)actions?$"), ("energies", "^energ")):
        part = [one for one in left if re.search(pattern, one.name)]
        message = None if part else "no array of that name in old"
        for one in part:
            left.remove(one)
            partner = next((other for other in right if other.digest == one.digest), None)
            if partner is None:
                text, partner = nearest(one, unmatched([*part, *left], right)[1])
                message = message or text
            if partner is not None:
                right.remove(partner)
        rows.append((f"{title}, {len(part)} arrays", message))
    return [*rows, (f"all else recorded, {len(left)} arrays", difference(left, right))]


def compare_trainings(old: Result, new: Result) -> list[Row]:
    names = ("steps", "updates", "episodes", "evaluation", "best")
    a, b = ({name: side.answers[0].get(name) for name in names} for side in (old, new))
    rows = [(f"evaluation, {a['updates']} updates", json_difference(a, b))]
    files = [checkpoint_files(side.run) for side in (old, new)]
    for title, is_weights in (("weights", True), ("optimiser, memory", False)):
        x, y = (
            [t for path in paths if ("weight" in path.stem) == is_weights for t in tensors(path)]
            for paths in files
        )
        rows.append((f"{title}, {len(x)} tensors", difference(x, y) if x else "no tensors"))
    return rows


def compare_forks(old: Result, new: Result) -> list[Row]:
    """The control and the altered fork, by numbers and by whether their digests agree."""
    rows: list[Row] = []
    for title, a, b in zip(("control", "fork"), old.answers[1:], new.answers[1:], strict=True):
        same = [side["original_digest"] == side["fork_digest"] for side in (a, b)]
        message = json_difference(a, b)
        if title == "control" and not (a["identical"] and b["identical"] and all(same)):
            message = f"identical: {a['identical']} and {b['identical']}"
        elif same[0] != same[1]:
            message = f"equal digests: {same[0]} and {same[1]}"
        rows.append((title, message))
    return rows


def compare_studies(old: Result, new: Result) -> list[Row]:
    a, b = (json.loads((side.run / "results.json").read_text()) for side in (old, new))
    return [(f"results, {len(list(leaves(a)))} numbers", json_difference(a, b))]


def probes(quick: bool) -> Iterator[Probe]:
    """All probes; with `quick` fewer of them, of fewer episodes and steps."""
    games = ("boxing", "breakout", "freeway", "krull", "pong", "road_runner")
    length = [
        "--json",
        "--episodes",
        "1" if quick else "2",
        "--worlds=1" if quick else "--worlds=2",
    ]
    yield Probe("eval cartpole", [["eval", "cartpole", *length]], compare_returns)
    for game, rules in ((game, rules) for game in games for rules in ("v5", "100k")):
        if not quick or (game, rules) == ("boxing", "100k"):
            words = ["eval", game, "--protocol", rules, *length]
            yield Probe(f"eval {game} {rules}", [words], compare_returns)

    plays = {
        "showpiece": (["showpiece"], 200, 40),
        "boxing": (["boxing", "--seed=3"], 200, 40),
        "orchard": (["sextet/Orchard-v0", "--seed=3"], 200, 40),
        "pendulum": (["Pendulum-v1", "--seed=3"], 200, 30),
        "pendulum gradient": (["Pendulum-v1", "--seed=3", "--actor.planner.kind=gradient"], 16, 0),
        "cartpole rollouts": (["cartpole", "--seed=3", "--preset=rollouts"], 200, 0),
    }
    for name, (words, whole, few) in plays.items():
        if steps := few if quick else whole:
            recording = ["--steps", str(steps), "--no-live", "--json", "--run", "{run}"]
            yield Probe(f"play {name}", [["play", *words, *recording]], compare_traces)

    for name, words, whole, few in trainings():
        if not (steps := few if quick else whole):
            continue
        limits = ["--steps", str(steps), "--training.evaluate_every=0",
                  "--training.evaluate_episodes=1", "--seed=3", "--no-live", "--json",
                  "--run", "{run}"]  # fmt: skip
        yield Probe(f"train {name}", [["train", *words, *limits]], compare_trainings)

    fork_worlds = {"cartpole": ["CartPole-v1"], "breakout": ["ALE/Breakout-v5"]}
    for name, words in fork_worlds.items():
        if quick and name == "breakout":
            continue
        play_options = ["--preset=fair", "--configurator.kind=surprise", "--seed=5", "--steps=90",
                 "--configurator.horizon_steps=16", "--no-live", "--json", "--run"]  # fmt: skip
        fork = ["fork", "{run}", "--at", "30", "--steps", "50", "--json"]
        intervention = [*fork, "--set", "directive.mode=1", "--hold", "0"]
        commands = [["play", *words, *play_options, "{run}"], fork, intervention]
        yield Probe(f"fork {name}", commands, compare_forks)

    words = ["study", "modes", "--quick", "--jobs=1", "--json", "--run", "{run}"]
    words += ["--worlds=CartPole-v1"] if quick else []
    yield Probe("study modes", [words], compare_studies)


def trainings() -> Iterator[tuple[str, list[str], int, int]]:
    """A small training of each preset, and of mechanisms that no preset uses: name, words, and
    the steps of a whole and of a quick comparison; 0: not in the quick one.
    """
    soon = ["--learner.warmup_steps=100"]
    small = [*soon, "--configurator.model_calls=32", "--configurator.horizon_steps=8"]
    # A random policy ends an evaluation in Breakout soon; another might never serve the ball.
    short = "--training.evaluation.actor.policy.epsilon=1"
    pixels = ["ALE/Breakout-v5", *soon, "--memory.capacity=1000", short]
    narrow = ["--device=cpu", "--learner.batch=8", "--learner.reset_every=16",
              "--perception.wider=1", "--perception.latent_size=64", "--world_model.width=64",
              "--cost.critic.width=64"]  # fmt: skip
    dreams = ["--learner.imagined_steps=3", "--learner.imagined_branches=2",
              "--learner.foretold_steps=2", "--world_model.ensemble=2", "--cost.critic.members=2",
              "--memory.priority_exponent=0.5", "--learner.updates_per_step=1"]  # fmt: skip
    model = ["--learner.warmup_steps=50", "--configurator.model_calls=192"]
    sigreg = ["--world_model.objective.kind=sigreg", "--learner.updates_per_step=1"]
    yield "learn-actions", ["CartPole-v1", *soon], 700, 160
    yield "learn-model", ["Pendulum-v1", *model], 350, 70
    yield "learn-tasks", ["sextet/Orchard-v0", *soon], 1300, 200
    yield "atari-small", ["--preset=atari-small", *pixels], 140, 105
    yield "atari-large", ["--preset=atari-large", *pixels, *narrow], 120, 0
    yield "distil", ["cartpole", "--preset=distil", *soon], 1300, 300
    yield "rollouts", ["cartpole", "--preset=rollouts", *soon], 700, 0
    yield "model-free", ["CartPole-v1", "--preset=model-free", *soon], 700, 0
    for preset in ("clairvoyant", "fair", "deliberate", "reactive"):
        yield preset, ["CartPole-v1", f"--preset={preset}", *small], 700, 0
    yield "imagination", ["CartPole-v1", *soon, *dreams], 250, 120
    yield "sigreg", ["CartPole-v1", *soon, *sigreg], 400, 0


# -- the comparison ---------------------------------------------------------------------------


def run_version(
    version: Version, commands: list[list[str]], run: Path, folder: None, report: Report
) -> tuple[Result | str, set[tuple[str, str]]]:
    """A job: what the commands of a probe leave in one version, or a line that says why nothing,
    and the options that it takes by the later name.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Result([version.sextet(command) for command in commands], run), version.later
    except (RuntimeError, ValueError, IndexError) as error:
        return str(error), version.later


def results(
    probe: Probe, versions: Sequence[Version], folder: Path, engine: Engine
) -> list[Result]:
    """What a probe leaves in both versions, run at the same time. Raises RuntimeError."""

    jobs = []
    for side, version in zip(("old", "new"), versions, strict=True):
        run = folder / re.sub(r"\W+", "-", probe.name) / side
        words = [[w.replace("{run}", str(run)) for w in command] for command in probe.commands]
        jobs.append(Job(side, functools.partial(run_version, version, words, run)))
    done = {one.job.name: one.value for one in engine.map(jobs)}
    pair = []
    for side, version in zip(("old", "new"), versions, strict=True):
        outcome, version.later = done[side]
        pair.append(f"{side}: {outcome}" if isinstance(outcome, str) else outcome)
    if errors := [side for side in pair if isinstance(side, str)]:
        raise RuntimeError("; ".join(errors))
    return [side for side in pair if isinstance(side, Result)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--old", required=True, metavar="REV", help="a git revision, . or a folder")
    parser.add_argument("--new", required=True, metavar="REV", help="a git revision, . or a folder")
    parser.add_argument("--quick", action="store_true", help="under 3 minutes on 2 cores")
    parser.add_argument("--only", default="", metavar="NAMES", help="parts of names, with commas")
    options = parser.parse_args()
    selection = [
        probe
        for probe in probes(options.quick)
        if any(part in probe.name for part in options.only.split(","))
    ]
    if not selection:
        parser.error(f"--only: expected one of {', '.join(p.name for p in probes(options.quick))}")
    began, differences = time.monotonic(), 0
    with (
        ProcessEngine(2) as engine,
        tempfile.TemporaryDirectory(prefix="compare-") as place,
    ):
        folder = Path(place).resolve()
        try:
            versions = [
                check_out(r, folder / n) for n, r in (("a", options.old), ("b", options.new))
            ]
        except (subprocess.CalledProcessError, RuntimeError) as error:
            parser.error(str(error))
        print(f"{'probe':<24} {'compared':<32} {'result':<8} {'s':>4}  first difference")
        for probe in selection:
            start = time.monotonic()
            try:
                rows = probe.compare(*results(probe, versions, folder, engine))
            except Exception as error:
                rows = [("ran in both", f"{type(error).__name__}: {' '.join(str(error).split())}")]
            shutil.rmtree(folder / re.sub(r"\W+", "-", probe.name), ignore_errors=True)
            seconds = time.monotonic() - start
            for compared, message in rows:
                differences += message is not None
                verdict = "equal" if message is None else "differs"
                line = f"{probe.name:<24} {compared:<32} {verdict:<8} {seconds:>4.0f}  "
                print((line + (message or "")).rstrip(), flush=True)
    verdict = f"{differences} differ" if differences else "all equal"
    print(f"{options.old} and {options.new}: {verdict}, {time.monotonic() - began:.0f} s")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
