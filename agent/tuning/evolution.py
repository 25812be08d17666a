"""Tuning: training a configurator when to think (LeCun 2022 leaves it open, §6 and §8.1).

The objective is the return of an episode minus a price for each model call. Two ways, of which the
second may precede the first:

*By evolution* (OpenAI-ES: Salimans et al. 2017). Each generation draws directions in the space of
weights, evaluates each and its mirror image in the same episodes (paired seeds), ranks the values
and steps along the directions weighed by rank. No gradient passes through world, plan or choice.

*From recorded runs*: see `agent.tuning.from_traces`.

A folder holds `tuning.json` (the request and the history), `config.yaml` (of the agent),
`generations/` (to continue from) and `best/`: the weights with the best value in held-out episodes,
the initial ones included, with their provenance.
"""

from __future__ import annotations

import functools
import json
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from agent.assembly.assembly_cache import cached, pinned
from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest, prepared
from agent.engines.engine import Engine, Job, Report
from agent.engines.serial import SerialEngine
from agent.live import live
from agent.recording import checkpoint
from agent.recording.atomic import new_folder, write_json
from agent.recording.checkpoint import Checkpoint
from agent.recording.episode_stats import game_over
from agent.recording.plain_json import dumps
from agent.recording.run_folder import RunFolder
from agent.tuning.from_traces import Tunable, learn_from
from modules import chance
from modules.messages import SIGNALS, ConfigError
from modules.strange_files import TEXT_BYTES, plain_json, read_file

SPREAD = 0.3
"""Standard deviation of the candidates around the mean, in each weight."""

STRIDE = 2.0
"""Step size of the mean, in units of `SPREAD`."""

HELD_OUT = 100_000
"""Added to the seed of a tuning for its held-out episodes."""

EVALUATIONS = 2
"""Held-out evaluations, each of all rows, of the mean of a generation."""

NOTES, STATES = "tuning.json", "generations"
"""In a folder: the request and the history, and the states to continue from."""

_SCORE = SIGNALS.index("reward")


class Tuning(BaseModel):
    """What a tuning costs and how long it takes.

    `price`: return subtracted per model call. `population`: candidates of a generation, even, as
    they come in mirrored pairs. Each plays `episodes` rows of one episode, cut at `steps`, with
    seeds from `seed` on. `generations` 0 learns from recorded runs alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    generations: int = Field(default=8, ge=0)
    population: int = Field(default=8, ge=2, multiple_of=2)
    episodes: int = Field(default=2, ge=1)
    steps: int = Field(default=200, ge=2)
    seed: int = Field(default=1_000_000, ge=0)

    def uses(self, seed: int) -> bool:
        """Whether the tuning uses a seed: one in each generation, and the held-out ones."""
        since = seed - self.seed
        return 1 <= since <= self.generations or HELD_OUT <= since < HELD_OUT + EVALUATIONS


class Outcome(NamedTuple):
    """Means over episodes: `value` is return minus price times model calls."""

    value: float
    score: float
    model_calls: float


class Generation(NamedTuple):
    """Best and mean value of a generation's candidates, and the held-out outcome of its mean."""

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


def tune(
    request: RunRequest,
    folder: Path,
    tuning: Tuning,
    *,
    report: Callable[[Generation], object] | None = None,
    traces: Sequence[Path] = (),
    engine: Engine | None = None,
) -> Path:
    """Tunes the `learned` configurator of an agent in its world; returns `folder/best`.

    `configurator.weights=FOLDER` loads the result. The configurator of `request` becomes `learned`
    unless an override sets another kind. `report` receives each `Generation`. `traces`: recorded
    runs to begin from. `engine`: where candidates are evaluated, each a job; None: here. The result
    is the same.

    An unfinished folder is continued, with the same result. Raises ConfigError, one line, before
    the folder is created, where the request does not fit.
    """
    if not tuning.generations and not traces:
        raise ConfigError("tune generations: 0, and no recorded runs; there is nothing to learn")
    order = tuning.model_dump(exclude={"generations"})
    order["traces"] = [str(path) for path in traces]
    request = _rows(request, tuning.episodes)
    assembly = prepared(request)
    try:
        tunable = _tunable(assembly)
        order["config"] = assembly.config.tree()
        _require_same_order(folder, order)
        initial = tunable.vector
        if traces and checkpoint.newest(folder / STATES) is None:
            learn_from(tunable, traces, assembly, tuning.price)
        if not (folder / NOTES).is_file():
            # From here on it can be continued, though nothing is evaluated yet.
            with new_folder(folder) as new:
                write_json(new / NOTES, {"asked": order})
                RunFolder(new).write_config(assembly.config.tree())
        objective = _Objective(engine or SerialEngine(), request, tuning)
        with objective.engine, pinned(objective.key, assembly):
            _evolve(objective, tunable, folder, order, initial, report)
    finally:
        assembly.world.close()
    return folder / "best"


def is_tuned(folder: Path, tuning: Tuning) -> bool:
    """Whether a folder holds a tuning that has come to its last generation."""
    try:
        notes = plain_json(read_file(folder / NOTES, TEXT_BYTES))
        return (folder / "best").is_dir() and int(notes["generation"]) >= tuning.generations
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return False


def _rows(request: RunRequest, episodes: int) -> RunRequest:
    """The request with as many rows as episodes and the `learned` configurator."""
    named = [o for o in request.overrides if o.partition("=")[0] == "configurator.kind"]
    # Replaces the kind of a bundle or preset; settings of `learned` stay.
    kind = () if named else ("configurator.kind=learned",)
    rows = (f"world.num_envs={episodes}", "memory.capacity=1000")
    return replace(request, overrides=(*kind, *request.overrides, *rows))


def _tunable(assembly: Assembly) -> Tunable:
    """The configurator inside the interventions around it."""
    inner: Any = assembly.agent.modules.configurator
    while hasattr(inner, "wrapped"):
        inner = inner.wrapped
    if not isinstance(inner, Tunable):
        raise ConfigError(
            f"config configurator.kind: {assembly.config.slots['configurator'].kind!r} cannot be "
            "tuned; use learned"
        )
    return inner


def _require_same_order(folder: Path, order: Mapping[str, Any]) -> None:
    """Raises ConfigError where the folder is neither new nor of this tuning."""
    notes = folder / NOTES
    if not notes.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"tune: expected a new folder, got '{folder}', which exists")
        return
    try:
        before = dict(plain_json(read_file(notes, TEXT_BYTES))["asked"])
    except (ConfigError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"tune {notes}: is not readable ({error!r:.80})") from None
    for name, value in json.loads(dumps(order)).items():
        if before.get(name) != value:
            what = "another config" if name == "config" else f"{name} {before.get(name)!r:.60}"
            raise ConfigError(
                f"tune: '{folder}' was begun with {what}; continue it as it was begun, or "
                "use another --run"
            )


class _Objective:
    """The outcome of an agent in its world as a function of its configurator's weights.

    Each evaluation is a job of the `engine`.
    """

    def __init__(self, engine: Engine, request: RunRequest, tuning: Tuning) -> None:
        self.engine, self.request, self.tuning = engine, request, tuning
        self.key = f"tuning {uuid.uuid4().hex}"

    def outcomes(self, vectors: Sequence[Tensor], seeds: Sequence[int]) -> list[Outcome]:
        """The outcome of weights [N], each with the seed in the same place."""
        jobs = [
            Job(
                f"candidate {place}",
                functools.partial(
                    _outcome, self.key, self.request, self.tuning, vector.tolist(), seed
                ),
            )
            for place, (vector, seed) in enumerate(zip(vectors, seeds, strict=True))
        ]
        by_name = {result.job.name: result.value for result in self.engine.map(jobs)}
        return [by_name[job.name] for job in jobs]

    def held_out(self, vector: Tensor) -> Outcome:
        """Means over held-out episodes."""
        first = self.tuning.seed + HELD_OUT
        outcomes = self.outcomes([vector] * EVALUATIONS, range(first, first + EVALUATIONS))
        return Outcome(*(statistics.fmean(values) for values in zip(*outcomes, strict=True)))


def _outcome(
    key: str,
    request: RunRequest,
    tuning: Tuning,
    vector: Sequence[float],
    seed: int,
    _: None,
    report: Report,
) -> Outcome:
    """A job: means over each row's first episode with the weights `vector` [N]."""
    assembly = cached(key, request)
    _tunable(assembly).vector = torch.tensor(vector)
    world, rows = assembly.world, assembly.world.num_envs
    score, calls = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows)
    alive = torch.ones(rows, dtype=torch.bool)
    for moment in live(assembly.agent, world, tuning.steps * rows, seed):
        observation = moment.observation
        score += observation.signals[:, _SCORE].double() * alive
        calls += moment.plan.model_calls * alive
        alive &= ~game_over(observation)
        if not bool(alive.any()):
            break
    earned, spent = float(score.mean()), float(calls.mean())
    return Outcome(earned - tuning.price * spent, earned, spent)


def _evolve(
    objective: _Objective,
    tunable: Tunable,
    folder: Path,
    order: Mapping[str, Any],
    initial: Tensor,
    report: Callable[[Generation], object] | None,
) -> None:
    tuning, states = objective.tuning, folder / STATES
    facts: dict[str, Any]

    def save() -> None:
        search = {"vector": vector.clone(), "best": best.clone()}
        tunable.vector = best
        provenance = {**facts, **{n: v for n, v in order.items() if n != "config"}}
        checkpoint.save(folder, "best", Checkpoint({"weights": tunable.weights}, {}, provenance))
        write_json(folder / NOTES, {"asked": order, **facts})
        # Last, as it is continued from here: what precedes is then complete.
        name = str(facts["generation"])
        checkpoint.save(states, name, Checkpoint({"search": search}, {}, facts), keep=2)

    if (newest := checkpoint.newest(states)) is not None:
        facts = newest[1].facts
        vector, best = (newest[1].tensors["search"][name] for name in ("vector", "best"))
    else:
        vector = tunable.vector
        prior = objective.held_out(initial)
        # The weights from recorded runs are evaluated like those of a generation.
        begun = prior if torch.equal(vector, initial) else objective.held_out(vector)
        best, judged = (vector, begun) if begun.value > prior.value else (initial, prior)
        facts = {
            "generation": 0,
            "untaught": prior._asdict(),
            "judged": judged._asdict(),
            "from_traces": None if begun is prior else begun._asdict(),
            "history": [],
        }
        save()
    for generation in range(facts["generation"] + 1, tuning.generations + 1):
        keys = chance.keys(tuning.seed, tuning.population // 2, generation - 1)
        directions = chance.normal(keys, "tutor", len(vector))
        tried = torch.cat([directions, -directions])
        candidates, seeds = [vector + SPREAD * d for d in tried], [tuning.seed + generation]
        outcomes = objective.outcomes(candidates, seeds * len(tried))
        values = [outcome.value for outcome in outcomes]
        vector = vector + STRIDE * SPREAD * step_of(directions, torch.tensor(values))
        outcome = objective.held_out(vector)
        if outcome.value > facts["judged"]["value"]:
            best, facts["judged"] = vector, outcome._asdict()
        result = Generation(
            generation, tuning.generations, max(values), statistics.fmean(values), outcome
        )
        facts["history"].append({**result._asdict(), "held_out": outcome._asdict()})
        facts["generation"] = generation
        save()
        if report is not None:
            report(result)


def step_of(directions: Tensor, values: Tensor) -> Tensor:
    """The step of the mean, [N]: mirrored `directions` [P N] weighed by the ranks of `values`.

    `values` [2P] are those of the directions, then of their mirror images. Ranks go from -1/2 to
    1/2, and equal values share theirs: where all values are equal the step is 0.
    """
    count = len(values)
    above = (values[:, None] > values[None]).double().sum(-1)
    equal = (values[:, None] == values[None]).double().sum(-1)
    ranks = (above + (equal - 1) / 2) / max(count - 1, 1) - 0.5
    pairs = len(directions)
    weighed: Tensor = (ranks[:pairs] - ranks[pairs:])[:, None].float() * directions
    return weighed.mean(0)
