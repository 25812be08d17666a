"""Tutoring: teaching a configurator when to think (LeCun 2022, §6 and §8.1 leave it open).

What it is taught to have more of is the return of an episode minus a price for each model call.
Two ways, which may follow each other:

*By evolution* (OpenAI-ES: Salimans et al. 2017). Each generation draws directions in the space of
weights, tries each and its mirror image in the same episodes (paired seeds: what differs is the
configurator, not the luck), ranks what they came to and steps along the directions weighed by
rank. No gradient goes through the world, the plan or the choice to think.

*From recorded runs*: see `agent.tuning.from_traces`.

A folder holds `tutoring.json` (what was asked, and the history), `config.yaml` (of the agent that
was tutored), `generations/` (to go on from) and `best/`: the weights that did best in episodes
that taught nothing, the untaught ones included, with where they come from.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from agent.agent import Agent
from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest, prepared
from agent.live import live
from agent.recording import checkpoint
from agent.recording.checkpoint import Checkpoint
from agent.tuning.from_traces import Taught, learn_from
from modules import chance
from modules.messages import SIGNALS, ConfigError
from modules.ports import World

SPREAD = 0.3
"""How far from the mean a generation looks, in each weight."""

STRIDE = 2.0
"""How far the mean then goes, against `SPREAD`."""

HELD_OUT = 100_000
"""Added to the seed of a tutoring for the episodes that judge and do not teach."""

JUDGED_IN = 2
"""So many lives of `episodes` rows judge what a generation came to."""

NOTES, STATES = "tutoring.json", "generations"
"""In a folder: what was asked and what it came to, and where to go on from."""

_SCORE, _END = SIGNALS.index("reward"), SIGNALS.index("end")


@dataclass(frozen=True)
class Outcome:
    """What episodes came to, means over them: `value` is return minus price times model calls."""

    value: float
    score: float
    model_calls: float


@dataclass(frozen=True)
class Generation:
    """What a generation's candidates came to, best and mean, and their mean held-out."""

    number: int
    of: int
    best: float
    mean: float
    held_out: Outcome

    def __str__(self) -> str:
        return (
            f"generation {self.number}/{self.of}  candidates {self.mean:.4g} (best {self.best:.4g})"
            f"  held out {self.held_out.value:.4g}: return {self.held_out.score:.4g} for "
            f"{self.held_out.model_calls:.0f} model calls"
        )


def tutor(
    request: RunRequest,
    folder: Path,
    *,
    price: float,
    generations: int,
    population: int,
    episodes: int,
    steps: int,
    seed: int,
    report: Callable[[object], object] = print,
    traces: Sequence[Path] = (),
) -> Path:
    """Teaches the `learned` configurator of an agent in its world; the folder with what it became.

    `configurator.weights=FOLDER` gives an agent what was learned; so does the path returned,
    `FOLDER/best`. `request` is an agent in a world as any other verb takes it; its configurator
    becomes `learned` if it is not. `price`: return given up for one model call. `population`:
    candidates of a generation, an even number. Each lives `episodes` rows of one episode, cut at
    `steps`, with seeds from `seed` on. `report` is told each `Generation`. `traces`: recorded
    runs to begin from; with `generations` 0 nothing else is done.

    A folder that was left unfinished is gone on with; what comes out is the same. Raises
    ConfigError, one line, before anything is made, where the request does not fit.
    """
    if population < 2 or population % 2:
        raise ConfigError(
            "tutor population: expected an even number of at least 2, got "
            f"{population}; candidates "
            "come in mirrored pairs"
        )
    for name, value, least in (
        ("generations", generations, 0), ("episodes", episodes, 1), ("steps", steps, 2),
    ):  # fmt: skip
        if value < least:
            raise ConfigError(f"tutor {name}: expected at least {least}, got {value}")
    if not 0 <= price < float("inf"):
        raise ConfigError(f"tutor price: expected 0 or more a model call, got {price:g}")
    if not generations and not traces:
        raise ConfigError("tutor generations: 0, and no recorded runs; there is nothing to learn")
    asked = {
        "price": price, "population": population, "episodes": episodes, "steps": steps,
        "seed": seed, "traces": [str(path) for path in traces],
    }  # fmt: skip
    assembly = prepared(_rows(request, episodes))
    try:
        taught = _taught(assembly)
        asked["config"] = assembly.config.tree()
        _opened(folder, asked)
        lesson = _Lesson(assembly.agent, assembly.world, taught, price, steps, seed)
        start = taught.vector
        if traces and checkpoint.newest(folder / STATES) is None:
            learn_from(taught, [Path(p) for p in traces], assembly, price)
        folder.mkdir(parents=True, exist_ok=True)
        if not (notes := folder / NOTES).is_file():
            # From here on it can be gone on with, though nothing is judged yet.
            notes.write_text(json.dumps({"asked": asked}, indent=1), encoding="utf-8")
        (folder / "config.yaml").write_text(
            yaml.safe_dump(assembly.config.tree(), sort_keys=False), encoding="utf-8"
        )
        return _evolve(lesson, folder, asked, start, generations, population, report)
    finally:
        assembly.world.close()


def _rows(request: RunRequest, episodes: int) -> RunRequest:
    """The request with as many rows as episodes and the `learned` configurator."""
    said = [o for o in request.overrides if o.partition("=")[0] == "configurator.kind"]
    # A bundle or preset that directs otherwise gives way; settings of `learned` stay.
    kind = () if said else ("configurator.kind=learned",)
    rows = (f"world.num_envs={episodes}", "memory.capacity=1000")
    return replace(request, overrides=(*kind, *request.overrides, *rows))


def _taught(assembly: Assembly) -> Taught:
    """The configurator that is taught, within whatever interventions lie around it."""
    found: Any = assembly.agent.modules.configurator
    while hasattr(found, "wrapped"):
        found = found.wrapped
    if not isinstance(found, Taught):
        raise ConfigError(
            f"config configurator.kind: {assembly.config.slots['configurator'].kind!r} cannot be "
            "tutored; use learned"
        )
    return found


def _opened(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raises ConfigError where the folder holds anything but this tutoring, or nothing."""
    notes = folder / NOTES
    if not notes.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"tutor: expected a new folder, got '{folder}', which exists")
        return
    try:
        before = json.loads(notes.read_text(encoding="utf-8"))["asked"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"tutor {notes}: is not readable ({error!r:.80})") from None
    for name, value in json.loads(json.dumps(asked)).items():
        if before.get(name) != value:
            what = "another config" if name == "config" else f"{name} {before.get(name)!r:.60}"
            raise ConfigError(
                f"tutor: '{folder}' was begun with {what}; go on as it was begun, or use another "
                "--run"
            )


class _Lesson:
    """An agent in its world, to be lived in with any weights."""

    def __init__(
        self, agent: Agent, world: World, taught: Taught, price: float, steps: int, seed: int
    ) -> None:
        self.agent, self.world, self.taught = agent, world, taught
        self.price, self.steps, self.seed = price, steps, seed

    def lived(self, vector: Tensor, seed: int) -> Outcome:
        """What each row's first episode came to with these weights, [N], means over rows."""
        self.taught.vector = vector
        rows = self.world.num_envs
        score, calls = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows)
        alive = torch.ones(rows, dtype=torch.bool)
        for moment in live(self.agent, self.world, self.steps * rows, seed):
            observation = moment.observation
            score += observation.signals[:, _SCORE].double() * alive
            calls += moment.plan.model_calls * alive
            alive &= ~((observation.signals[:, _END] > 0) | observation.truncated)
            if not bool(alive.any()):
                break
        earned, spent = float(score.mean()), float(calls.mean())
        return Outcome(earned - self.price * spent, earned, spent)

    def judged(self, vector: Tensor) -> Outcome:
        """The same in episodes that teach nothing."""
        found = [self.lived(vector, self.seed + HELD_OUT + life) for life in range(JUDGED_IN)]
        mean: Callable[[str], float] = lambda name: statistics.fmean(  # noqa: E731
            getattr(outcome, name) for outcome in found
        )
        return Outcome(mean("value"), mean("score"), mean("model_calls"))


def _evolve(
    lesson: _Lesson,
    folder: Path,
    asked: Mapping[str, Any],
    untaught: Tensor,
    generations: int,
    population: int,
    report: Callable[[object], object],
) -> Path:
    taught, states = lesson.taught, folder / STATES
    history: list[dict[str, Any]] = []
    found = checkpoint.newest(states)
    if found is None:
        vector = taught.vector
        prior = lesson.judged(untaught)
        # What recorded runs taught is judged like any generation.
        begun = prior if torch.equal(vector, untaught) else lesson.judged(vector)
        best, judged = (vector, begun) if begun.value > prior.value else (untaught, prior)
        from_traces = None if begun is prior else asdict(begun)
        done = 0
    else:
        state = found[1]
        vector, best = state.tensors["search"]["vector"], state.tensors["search"]["best"]
        prior, judged = Outcome(**state.facts["untaught"]), Outcome(**state.facts["judged"])
        from_traces, history = state.facts["from_traces"], state.facts["history"]
        done = int(state.facts["generation"])

    def keep(generation: int) -> None:
        facts = {
            "generation": generation, "untaught": asdict(prior), "judged": asdict(judged),
            "from_traces": from_traces, "history": history,
        }  # fmt: skip
        search = {"vector": vector.clone(), "best": best.clone()}
        notes = json.dumps({"asked": asked, **facts}, indent=1)
        taught.vector = best
        provenance = {**facts, **{n: v for n, v in asked.items() if n != "config"}}
        made = Checkpoint({"weights": taught.weights}, {}, provenance)
        checkpoint.save(folder, "best", made)
        (folder / NOTES).write_text(notes, encoding="utf-8")
        # Last, as this is where it is gone on from: what it leads to is there.
        checkpoint.save(states, str(generation), Checkpoint({"search": search}, {}, facts), keep=2)

    if found is None:
        keep(0)
    pairs = population // 2
    for generation in range(done, generations):
        keys = chance.keys(lesson.seed, pairs, generation)
        directions = chance.normal(keys, "tutor", len(vector))
        tried = torch.cat([directions, -directions])
        seed = lesson.seed + 1 + generation
        values = [lesson.lived(vector + SPREAD * d, seed).value for d in tried]
        vector = vector + STRIDE * SPREAD * step_of(directions, torch.tensor(values))
        outcome = lesson.judged(vector)
        if outcome.value > judged.value:
            best, judged = vector, outcome
        told = Generation(
            generation + 1, generations, max(values), statistics.fmean(values), outcome
        )
        history.append(asdict(told))
        keep(generation + 1)
        report(told)
    return folder / "best"


def step_of(directions: Tensor, values: Tensor) -> Tensor:
    """Where to go, [N]: mirrored `directions` [P N] weighed by the ranks of what they came to.

    `values` [2P] are those of the directions, then of their mirror images. Ranks go from -1/2 to
    1/2, equals share theirs: where everything came to the same, nowhere.
    """
    count = len(values)
    above = (values[:, None] > values[None]).double().sum(-1)
    equal = (values[:, None] == values[None]).double().sum(-1)
    ranks = (above + (equal - 1) / 2) / max(count - 1, 1) - 0.5
    pairs = len(directions)
    weighed: Tensor = (ranks[:pairs] - ranks[pairs:])[:, None].float() * directions
    return weighed.mean(0)
