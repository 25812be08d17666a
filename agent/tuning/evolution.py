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

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent.agent import Agent
from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest, prepared
from agent.live import live
from agent.recording import checkpoint
from agent.recording.atomic import write_json
from agent.recording.checkpoint import Checkpoint
from agent.recording.episode_stats import game_over
from agent.recording.run_folder import RunFolder
from agent.tuning.from_traces import Tunable, learn_from
from modules import chance
from modules.messages import SIGNALS, ConfigError
from modules.ports import World

SPREAD = 0.3
"""Standard deviation of the candidates around the mean, in each weight."""

STRIDE = 2.0
"""Step size of the mean, in units of `SPREAD`."""

HELD_OUT = 100_000
"""Added to the seed of a tuning for its held-out episodes."""

JUDGED_IN = 2
"""Lives of `episodes` rows by which the mean of a generation is judged."""

NOTES, STATES = "tuning.json", "generations"
"""In a folder: the request and the history, and the states to continue from."""

_SCORE = SIGNALS.index("reward")


@dataclass(frozen=True)
class Outcome:
    """Means over episodes: `value` is return minus price times model calls."""

    value: float
    score: float
    model_calls: float


@dataclass(frozen=True)
class Generation:
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
    *,
    price: float,
    generations: int,
    population: int,
    episodes: int,
    steps: int,
    seed: int,
    report: Callable[[Generation], object] | None = None,
    traces: Sequence[Path] = (),
) -> Path:
    """Tunes the `learned` configurator of an agent in its world; returns `folder/best`.

    `configurator.weights=FOLDER` loads the result. The configurator of `request` becomes `learned`
    unless an override sets another kind. `price`: return subtracted for one model call.
    `population`: candidates of a generation, an even number. Each plays `episodes` rows of one
    episode, cut at `steps`, with seeds from `seed` on. `report` receives each `Generation`.
    `traces`: recorded runs to begin from; `generations` 0 learns from them alone.

    An unfinished folder is continued, with the same result. Raises ConfigError, one line, before
    the folder is created, where the request does not fit.
    """
    if population < 2 or population % 2:
        raise ConfigError(
            f"tune population: expected an even number of at least 2, got {population}; candidates "
            "come in mirrored pairs"
        )
    for name, value, least in (
        ("generations", generations, 0), ("episodes", episodes, 1), ("steps", steps, 2),
    ):  # fmt: skip
        if value < least:
            raise ConfigError(f"tune {name}: expected at least {least}, got {value}")
    if not 0 <= price < float("inf"):
        raise ConfigError(f"tune price: expected 0 or more a model call, got {price:g}")
    if not generations and not traces:
        raise ConfigError("tune generations: 0, and no recorded runs; there is nothing to learn")
    order = {
        "price": price, "population": population, "episodes": episodes, "steps": steps,
        "seed": seed, "traces": [str(path) for path in traces],
    }  # fmt: skip
    assembly = prepared(_rows(request, episodes))
    try:
        tunable = _tunable(assembly)
        order["config"] = assembly.config.tree()
        _require_same_order(folder, order)
        lesson = _Lesson(assembly.agent, assembly.world, tunable, price, steps, seed)
        start = tunable.vector
        if traces and checkpoint.newest(folder / STATES) is None:
            learn_from(tunable, [Path(p) for p in traces], assembly, price)
        folder.mkdir(parents=True, exist_ok=True)
        if not (notes := folder / NOTES).is_file():
            # From here on it can be continued, though nothing is judged yet.
            write_json(notes, {"asked": order})
        RunFolder(folder).write_config(assembly.config.tree())
        return _evolve(lesson, folder, order, start, generations, population, report)
    finally:
        assembly.world.close()


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
        before = json.loads(notes.read_text(encoding="utf-8"))["asked"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"tune {notes}: is not readable ({error!r:.80})") from None
    for name, value in json.loads(json.dumps(order)).items():
        if before.get(name) != value:
            what = "another config" if name == "config" else f"{name} {before.get(name)!r:.60}"
            raise ConfigError(
                f"tune: '{folder}' was begun with {what}; continue it as it was begun, or "
                "use another --run"
            )


class _Lesson:
    """An agent in its world, to be evaluated with any weights of its configurator."""

    def __init__(
        self, agent: Agent, world: World, tunable: Tunable, price: float, steps: int, seed: int
    ) -> None:
        self.agent, self.world, self.tunable = agent, world, tunable
        self.price, self.steps, self.seed = price, steps, seed

    def outcome(self, vector: Tensor, seed: int) -> Outcome:
        """Means over each row's first episode with the weights `vector` [N]."""
        self.tunable.vector = vector
        rows = self.world.num_envs
        score, calls = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows)
        alive = torch.ones(rows, dtype=torch.bool)
        for moment in live(self.agent, self.world, self.steps * rows, seed):
            observation = moment.observation
            score += observation.signals[:, _SCORE].double() * alive
            calls += moment.plan.model_calls * alive
            alive &= ~game_over(observation)
            if not bool(alive.any()):
                break
        earned, spent = float(score.mean()), float(calls.mean())
        return Outcome(earned - self.price * spent, earned, spent)

    def judged(self, vector: Tensor) -> Outcome:
        """The same in held-out episodes."""
        outcomes = [self.outcome(vector, self.seed + HELD_OUT + life) for life in range(JUDGED_IN)]
        mean: Callable[[str], float] = lambda name: statistics.fmean(  # noqa: E731
            getattr(outcome, name) for outcome in outcomes
        )
        return Outcome(mean("value"), mean("score"), mean("model_calls"))


def _evolve(
    lesson: _Lesson,
    folder: Path,
    order: Mapping[str, Any],
    initial: Tensor,
    generations: int,
    population: int,
    report: Callable[[Generation], object] | None,
) -> Path:
    tunable, states = lesson.tunable, folder / STATES
    history: list[dict[str, Any]] = []
    newest = checkpoint.newest(states)
    if newest is None:
        vector = tunable.vector
        prior = lesson.judged(initial)
        # The weights from recorded runs are judged like those of a generation.
        begun = prior if torch.equal(vector, initial) else lesson.judged(vector)
        best, judged = (vector, begun) if begun.value > prior.value else (initial, prior)
        from_traces = None if begun is prior else asdict(begun)
        done = 0
    else:
        state = newest[1]
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
        tunable.vector = best
        provenance = {**facts, **{n: v for n, v in order.items() if n != "config"}}
        checkpoint.save(folder, "best", Checkpoint({"weights": tunable.weights}, {}, provenance))
        write_json(folder / NOTES, {"asked": order, **facts})
        # Last, as it is continued from here: what precedes is then complete.
        checkpoint.save(states, str(generation), Checkpoint({"search": search}, {}, facts), keep=2)

    if newest is None:
        keep(0)
    pairs = population // 2
    for generation in range(done, generations):
        keys = chance.keys(lesson.seed, pairs, generation)
        directions = chance.normal(keys, "tutor", len(vector))
        tried = torch.cat([directions, -directions])
        seed = lesson.seed + 1 + generation
        values = [lesson.outcome(vector + SPREAD * d, seed).value for d in tried]
        vector = vector + STRIDE * SPREAD * step_of(directions, torch.tensor(values))
        outcome = lesson.judged(vector)
        if outcome.value > judged.value:
            best, judged = vector, outcome
        generation_result = Generation(
            generation + 1, generations, max(values), statistics.fmean(values), outcome
        )
        history.append(asdict(generation_result))
        keep(generation + 1)
        if report is not None:
            report(generation_result)
    return folder / "best"


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
