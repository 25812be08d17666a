"""Tutoring: teaching a configurator when to think (LeCun 2022, §6 and §8.1 leave it open).

What it is taught to have more of is the return of an episode minus a price for each model call.
Two ways, which may follow each other:

*By evolution* (OpenAI-ES: Salimans et al. 2017). Each generation draws directions in the space of
weights, tries each and its mirror image in the same episodes (paired seeds: what differs is the
configurator, not the luck), ranks what they came to and steps along the directions weighed by
rank. No gradient goes through the world, the plan or the choice to think.

*From recorded runs.* Wherever no plan was under way the row either thought or did not; two ridge
regressions, of what followed the one and the other on what was heard, say for each moment what
thinking was worth. The network is then taught to think where that is above 0, by gradient,
moments that mattered counting more. This is sound as far as what was heard decides who thought
and who did not: record with `random-rate`, where chance alone did.

A folder holds `tutoring.json` (what was asked, and the history), `config.yaml` (of the agent that
was tutored), `generations/` (to go on from) and `best/`: the weights that did best in episodes
that taught nothing, the untaught ones included, with where they come from.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import yaml
from torch import Tensor

from agent import checkpoint
from agent.agent import Agent
from agent.build import Assembly
from agent.checkpoint import Checkpoint
from agent.live import live
from agent.loading import Request, prepared
from agent.trace import Trace
from modules import chance
from modules.messages import SIGNALS, ConfigError, Directive, Situation
from modules.ports import World

SPREAD = 0.3
"""How far from the mean a generation looks, in each weight."""

STRIDE = 2.0
"""How far the mean then goes, against `SPREAD`."""

HELD_OUT = 100_000
"""Added to the seed of a tutoring for the episodes that judge and do not teach."""

JUDGED_IN = 2
"""So many lives of `episodes` rows judge what a generation came to."""

DISCOUNT = 0.95
"""Of what follows a moment in a recorded run, a step: some 20 steps count."""

_SCORE, _END = SIGNALS.index("score"), SIGNALS.index("end")


@runtime_checkable
class Taught(Protocol):
    """A configurator that can be tutored: `learned`, or anyone's with the same parts."""

    weights: dict[str, Tensor]
    vector: Tensor

    def neutral(self, rows: int) -> Directive:
        """The standing directive where an episode begins."""

    def hear(self, situation: Situation) -> tuple[Tensor, Tensor]:
        """Features [B F], and the carry [B Q] that follows."""

    def say(self, features: Tensor) -> Tensor:
        """Log odds of thinking, of thinking anew, and whatever else: [B ...]."""

    def give(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Takes over weights."""


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
    request: Request,
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
            f"tutor population: wanted an even number of at least 2, got {population}; candidates "
            "come in mirrored pairs"
        )
    for name, value, least in (
        ("generations", generations, 0), ("episodes", episodes, 1), ("steps", steps, 2),
    ):  # fmt: skip
        if value < least:
            raise ConfigError(f"tutor {name}: wanted at least {least}, got {value}")
    if not 0 <= price < float("inf"):
        raise ConfigError(f"tutor price: wanted 0 or more a model call, got {price:g}")
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
        known = _opened(folder, asked)
        lesson = _Lesson(assembly.agent, assembly.world, taught, price, steps, seed)
        start = taught.vector
        if traces and known is None:
            _learn_from(taught, [Path(p) for p in traces], assembly, price)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(
            yaml.safe_dump(assembly.config.tree(), sort_keys=False), encoding="utf-8"
        )
        return _evolve(lesson, folder, asked, start, generations, population, report)
    finally:
        assembly.world.close()


def _rows(request: Request, episodes: int) -> Request:
    """The request with as many rows as episodes and the `learned` configurator."""
    said = [o for o in request.overrides if o.partition("=")[0] == "configurator.kind"]
    # A bundle or preset that directs otherwise gives way; settings of `learned` stay.
    kind = () if said else ("configurator.kind=learned",)
    rows = (f"world.rows={episodes}", "memory.capacity=1000")
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


def _opened(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The history of a tutoring that was begun here, None where none was.

    Raises ConfigError where the folder holds something else.
    """
    notes = folder / "tutoring.json"
    if not notes.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"tutor: wanted a new folder, got '{folder}', which exists")
        return None
    try:
        known: dict[str, Any] = json.loads(notes.read_text(encoding="utf-8"))
        before = known["asked"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"tutor {notes}: is not readable ({error!r:.80})") from None
    for name, value in json.loads(json.dumps(asked)).items():
        if before.get(name) != value:
            what = "another config" if name == "config" else f"{name} {before.get(name)!r:.60}"
            raise ConfigError(
                f"tutor: '{folder}' was begun with {what}; go on as it was begun, or use another "
                "--run"
            )
    return known


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
        rows = self.world.rows
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
    taught, states = lesson.taught, folder / "generations"
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
        checkpoint.save(states, str(generation), Checkpoint({"search": search}, {}, facts), keep=2)
        taught.vector = best
        provenance = {**facts, **{n: v for n, v in asked.items() if n != "config"}}
        made = Checkpoint({"weights": taught.weights}, {}, provenance)
        checkpoint.save(folder, "best", made)
        (folder / "tutoring.json").write_text(notes, encoding="utf-8")

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


# -- from recorded runs -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Decisions:
    """Moments free to begin a thought: what was heard, whether one began, what followed."""

    features: Tensor
    thought: Tensor
    followed: Tensor


def _learn_from(taught: Taught, runs: Sequence[Path], assembly: Assembly, price: float) -> None:
    """Teaches from recorded runs; see the head of this file. Raises ConfigError or TraceError."""
    free: list[_Decisions] = []
    for run in runs:
        with Trace.open(run) as trace:
            drives = assembly.agent.modules.cost.drives
            if trace.drives != drives or trace.world.actions != assembly.world.spec.actions:
                raise ConfigError(
                    f"tutor: '{run}' is a run in {trace.world.id} with drives "
                    f"{', '.join(trace.drives)}; wanted one of {assembly.world.spec.id} with "
                    f"{', '.join(drives)}"
                )
            free += _decisions(taught, trace, price)
    if not free:
        raise ConfigError(
            "tutor: in the recorded runs a plan was always under way, so no thought was ever free "
            "to begin; record with configurator.kind=random-rate"
        )
    heard = torch.cat([d.features for d in free])
    thought = torch.cat([d.thought for d in free])
    followed = torch.cat([d.followed for d in free])
    least = 2 * heard.shape[1]
    for what, count in (("thinks", int(thought.sum())), ("acts", int((~thought).sum()))):
        if count < least:
            raise ConfigError(
                f"tutor: the recorded runs hold {count} moments at which it {what} though it could "
                f"do otherwise; wanted at least {least}: record with configurator.kind=random-rate"
            )
    worth = advantage(heard, thought, followed)
    _fit(taught, heard, worth)


def _decisions(taught: Taught, trace: Trace, price: float) -> Iterator[_Decisions]:
    """The free moments of a trace, one item for each row."""
    rows = trace.rows
    heard: list[Tensor] = []
    standing = taught.neutral(rows)
    before = None
    columns: dict[str, list[Tensor]] = {
        n: [] for n in ("thought", "free", "net", "score", "first", "over")
    }
    for moment in trace:
        first = moment.observation.first
        if before is None:
            before = moment
        carry = torch.where(first[:, None], torch.zeros_like(standing.carry), standing.carry)
        said = before.replace(
            directive=moment.directive.replace(carry=carry, tokens=standing.tokens),
            step=moment.step,
        )
        features, carry = taught.hear(moment.situation(said, chance.keys(0, rows, moment.step)))
        calls = moment.plan.model_calls
        thought = calls > 0
        standing = standing.replace(carry=carry)
        over = moment.observation.ended
        heard.append(features)
        columns["thought"].append(thought)
        columns["free"].append(~first & ~over & (before.plan.committed == 0))
        columns["net"].append(-price * calls.double())
        columns["score"].append(moment.observation.signals[:, _SCORE].double())
        columns["first"].append(first)
        columns["over"].append(over)
        before = moment
    if not heard:
        return
    table = {name: torch.stack(values) for name, values in columns.items()}  # [T B]
    followed = torch.zeros_like(table["net"])
    later = torch.zeros(rows, dtype=torch.float64)
    for t in range(len(heard) - 1, -1, -1):
        gained = torch.zeros(rows, dtype=torch.float64)
        if t + 1 < len(heard):
            # What is felt at a moment was earned by the action before it.
            same = ~table["first"][t + 1]
            gained = (table["score"][t + 1] + DISCOUNT * later) * same
        later = table["net"][t] + gained * ~table["over"][t]
        followed[t] = later
    stacked = torch.stack(heard)
    for row in range(rows):
        free = table["free"][:, row]
        if bool(free.any()):
            yield _Decisions(
                stacked[free, row], table["thought"][free, row], followed[free, row].float()
            )


def advantage(heard: Tensor, thought: Tensor, followed: Tensor, ridge: float = 1.0) -> Tensor:
    """What thinking is worth at each of the moments, [M], by two ridge regressions.

    `heard` [M F], `thought` [M] bool, `followed` [M]: discounted return less what was paid.
    """
    scale = heard.std(0).clamp_min(1e-6)
    x = torch.cat([(heard - heard.mean(0)) / scale, torch.ones(len(heard), 1)], -1).double()
    penalty = ridge * torch.eye(x.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 1e-9
    foretold = []
    for which in (thought, ~thought):
        a, b = x[which], followed[which].double()
        foretold.append(x @ torch.linalg.solve(a.T @ a + penalty, a.T @ b))
    difference: Tensor = foretold[0] - foretold[1]
    return difference.float()


def _fit(taught: Taught, heard: Tensor, worth: Tensor, updates: int = 300) -> None:
    """Teaches the odds of thinking: even or better where `worth` [M] is above 0."""
    names = list(taught.weights)
    leaves = {name: taught.weights[name].clone().requires_grad_() for name in names}
    optimiser = torch.optim.Adam(list(leaves.values()), lr=0.03)
    weight = worth.abs() / worth.abs().mean().clamp_min(1e-9)
    wanted = (worth > 0).float()
    with torch.enable_grad():
        for _ in range(updates):
            taught.weights = leaves
            odds = taught.say(heard)[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, wanted, weight)
            # Weights that explain nothing stay small.
            loss = (
                loss + 1e-3 * torch.stack([leaf.square().sum() for leaf in leaves.values()]).sum()
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    taught.weights = {name: leaf.detach() for name, leaf in leaves.items()}
