"""A step that branches at random: what a deterministic model predicts, and what a latent z adds.

    python examples/fork.py --out docs/figures/fork.png
    python examples/fork.py --quick --json

Part 1, a space of fixed scale: half of the states stand at a fork, whose three branches are at
distance 1 from each other and happen at rates .5, .3 and .2; at the others the next state is
certain. A deterministic JEPA and four kinds of z learn the step.

Part 2, the same space seen by an encoder that is trained along, by
VICReg. In the second half of the training the gradient of a prediction's error also reaches the
encoding of what is predicted (`target_grad_scale`), by which the encoder can drop it.

Part 3, agents in `sextet/Fork-state-v0`: three routes, each with its fork and its pay-offs. An
agent trained by `agent.train` at random is evaluated, without more training, under four directives.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from agent import evaluate, train
from agent.learning.evaluation import score
from agent.recording.atomic import new_file
from modules import chance
from modules.measures.branches import branch_coverage
from modules.measures.probes import linear_probe
from modules.messages import SIGNALS, ActionSpec, Experience, State, WorldSpec
from modules.nets.mlp import MLP
from modules.objectives.none import Unregularised
from modules.objectives.vicreg import VICReg
from modules.ports import Batch, encoded_states
from modules.world_model.jepa import JEPA
from modules.world_model.latent_jepa import LatentJEPA
from modules.world_model.latents.categorical import CategoricalLatent
from modules.world_model.latents.continuous import GaussianLatent, SparseLatent
from worlds.fork import PAYS, STATE_ID, VERTICES

PLACES, SIZE = 3, 6
"""Numbers of a state that say where it is, and of a state: then the branch, 2, and the fork, 1."""

BRANCHES = torch.tensor(VERTICES - VERTICES.mean(0)).float()
RATES = torch.tensor([0.5, 0.3, 0.2])
ENTROPY = float(-(RATES * RATES.log()).sum())
MIDDLE = float((RATES @ BRANCHES - BRANCHES).norm(dim=1).min())
"""Distance from the mean of the branches to the nearest one, .436 of their distance."""

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "none": (None, {}),
    "categorical": (CategoricalLatent, {}),
    "gaussian": (GaussianLatent, {}),
    "sparse": (SparseLatent, {}),
    "gaussian, 1 component": (GaussianLatent, {"components": 1}),
}
WORLD = WorldSpec(
    id="fork", pixels=None, vector=SIZE, signals=SIGNALS, actions=ActionSpec(discrete=True, size=3)
)
LEARNED = (("none", True), ("categorical", True))
"""The rows of part 2."""

TARGET_GRAD_SCALE = 0.3
"""In the second half of part 2, of the gradient into the encoding of what is predicted."""

COLOURS = ("#0b7285", "#e8590c", "#5f3dc4")


class Size(NamedTuple):
    """Trainings of each row of parts 1 and 2 and their updates; agents of part 3, their steps and
    the episodes of each evaluation.
    """

    seeds: int = 5
    updates: int = 1000
    agents: int = 4
    steps: int = 8000
    episodes: int = 100


QUICK = Size(seeds=1, updates=300, agents=1, steps=3500, episodes=20)

# -- the space -----------------------------------------------------------------------------------


class Steps(NamedTuple):
    """States [M 6], actions [M 3], next states [M 6], branches [M]; off a fork a branch has no
    effect.
    """

    state: Tensor
    action: Tensor
    after: Tensor
    branch: Tensor

    def ends(self) -> Tensor:
        """The next state of each step on each branch, without noise, [M 3 6]."""
        ends = self.after.unsqueeze(1).repeat(1, 3, 1)
        ends[..., PLACES : PLACES + 2] = BRANCHES * self.state[:, -1:, None]
        return ends


def steps_of(rows: int, luck: torch.Generator, fork: bool | None = None) -> Steps:
    """Random steps; `fork`: all at one, or none, else half of them."""
    place = torch.randn(rows, PLACES, generator=luck)
    at_fork = (torch.rand(rows, 1, generator=luck) < 0.5).float()
    if fork is not None:
        at_fork = torch.full((rows, 1), float(fork))
    action = torch.eye(3)[torch.randint(3, (rows,), generator=luck)]
    branch = torch.multinomial(RATES, rows, True, generator=luck)
    noise = 0.02 * torch.randn(rows, 2, generator=luck)
    state = torch.cat([place, torch.zeros(rows, 2), at_fork], 1)
    after = torch.cat([0.9 * place + 0.1 * action, at_fork * BRANCHES[branch] + noise, at_fork], 1)
    return Steps(state, action, after, branch)


class Trained(NamedTuple):
    """A world model, and the encoder of the states that it predicts."""

    model: JEPA
    encode: Callable[[Tensor], Tensor]

    def state(self, observed: Tensor) -> State:
        """The state of `observed` [M 6]."""
        rows = len(observed)
        return State.unchecked(
            latent=self.encode(observed),
            hidden=torch.zeros(rows, 0),
            signals=torch.zeros(rows, len(SIGNALS)),
            ended=torch.zeros(rows),
            uncertainty=torch.zeros(rows),
        )


def _batch(steps: Steps, latents: Tensor) -> Batch:
    """A batch of windows of two steps with `latents` [M 2 6]; as targets without gradient."""
    rows = len(latents)
    none = torch.zeros(rows, 2, dtype=torch.bool)
    experience = Experience.unchecked(
        frames=None,
        vectors=torch.stack([steps.state, steps.after], 1),
        actions=torch.stack([steps.action, steps.action], 1),
        signals=torch.zeros(rows, 2, len(SIGNALS)),
        terminated=none,
        truncated=none,
        mask=~none,
        importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    )
    states = encoded_states(experience, latents)
    return Batch(experience, states, encoded_states(experience, latents.detach()))


def trained(kind: str, seed: int, updates: int, learned: bool = False) -> Trained:
    """A world model with that kind of z, trained on 192 steps an update; with an encoder that is
    `learned` along, or the states themselves.
    """
    torch.manual_seed(seed)
    variable, settings = KINDS[kind]
    facts: dict[str, Any] = {"world": WORLD, "latent_size": SIZE, "token_shape": (0, 0)}
    config: dict[str, Any] = {"width": 64, "blocks": 2, "unroll_steps": 1, "ensemble_size": 1}
    objective: Any = Unregularised()
    encoder = nn.Identity()
    if learned:
        config["prediction_weight"] = 25.0
        objective = VICReg(config=VICReg.Config(std_coeff=25.0, cov_coeff=1.0))
        encoder = cast(nn.Identity, MLP(SIZE, 64, SIZE))
    facts["objective"] = objective
    if variable is None:
        model = JEPA(config=JEPA.Config(**config), **facts)
    else:
        inner = {name: facts[name] for name in ("world", "latent_size", "token_shape")}
        if variable is CategoricalLatent:
            settings = {"anneal_updates": int(0.4 * updates)}
        z = variable(config=variable.Config(**settings), **inner)
        model = LatentJEPA(config=LatentJEPA.Config(**config), latent=z, **facts)
    luck = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW([*model.parameters(), *encoder.parameters()])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=updates)
    for update in range(updates):
        if learned and update == updates // 2:
            # From the first update on the branch would be dropped before z has learned to say it.
            scale = {"target_grad_scale": TARGET_GRAD_SCALE}
            model.config = model.config.model_copy(update=scale)
        steps = steps_of(192, luck)
        latents = encoder(torch.stack([steps.state, steps.after], 1).flatten(0, 1))
        batch = _batch(steps, latents.unflatten(0, (-1, 2)))
        losses, _ = model.losses(batch, chance.keys(seed, 1, update))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        model.on_update()
    return Trained(model, encoder)


# -- what a model learned ------------------------------------------------------------------------

STATES, FUTURES = 40, 256
"""Fork states, and futures drawn from the prior in each."""


@dataclass(frozen=True)
class Row:
    """What one training of part 1 or 2 learned; None where a model has no such figure.

    separation: the distance of the branches in latent space over the total standard deviation of
    latents. nearest: from the most likely prediction to the nearest branch, over the distance of
    branches. rates: shares of the futures on each branch; off: on none. log_likelihood of the
    branch under p(z | s, a), nats: the share of the futures on it. inferred: share of steps whose
    branch is the nearest one to the prediction under argmin_z E. divergence_fork, divergence_off:
    KL(q || p), nats, at forks and off them. r2: of where the state is, read linearly from z.
    """

    kind: str
    learned: bool
    seed: int
    separation: float
    nearest: float
    rates: list[float] | None = None
    off: float | None = None
    log_likelihood: float | None = None
    inferred: float | None = None
    divergence_fork: float | None = None
    divergence_off: float | None = None
    r2: float | None = None


@torch.no_grad()
def row_of(result: Trained, kind: str, learned: bool, seed: int) -> tuple[Row, Tensor]:
    """What a model learned, on steps that it has not seen; and where its futures of one fork lie,
    [K 2], where the encoder is fixed.
    """
    model, encode = result
    luck = torch.Generator().manual_seed(10_000 + seed)
    steps, seen = steps_of(2000, luck, fork=True), steps_of(2000, luck)
    latents = encode(torch.cat([seen.state, seen.after]))
    ends = encode(steps.ends().flatten(0, 1)).unflatten(0, (-1, 3))
    apart = torch.stack([torch.pdist(each).min() for each in ends[:STATES]]).mean()
    state = result.state(steps.state)

    def distances(predicted: Tensor) -> Tensor:
        return torch.cdist(predicted.unsqueeze(1), ends).squeeze(1)

    row: dict[str, Any] = {
        "separation": float(apart / latents.var(0, correction=0).sum().sqrt()),
        "nearest": float(
            (distances(model.step(state, steps.action).latent).amin(1) / apart).mean()
        ),
    }
    if not isinstance(model, LatentJEPA):
        return Row(kind, learned, seed, **row), _places(model.step(state, steps.action))[:1]
    shares, off, futures = [], [], torch.zeros(0, 2)
    for place in range(STATES):
        index = torch.full((FUTURES,), place)
        here, action = state.select(index), steps.action[index]
        uniform = torch.rand(FUTURES, model.latent.luck, generator=luck)
        z = model.sample_latent(here, action, uniform, torch.ones(FUTURES))
        after = model.step(here, action, z)
        futures = _places(after) if place == 0 else futures
        coverage = branch_coverage(after.latent, ends[place])
        shares.append(coverage.rates)
        off.append(coverage.off)
    rates = torch.stack(shares)
    # Half a future is added to each branch: the logarithm of a share of 0 has no bound.
    likelihood = ((rates * FUTURES + 0.5) / (FUTURES + 1.5)).log() @ RATES
    z, _ = model.infer_latent(state, steps.action, result.state(steps.after))
    reached = distances(model.step(state, steps.action, z).latent).argmin(1)
    row |= {
        "off": sum(off) / STATES,
        "log_likelihood": float(likelihood.mean()),
        "inferred": float((reached == steps.branch).float().mean()),
    }
    if kind == "categorical":
        certain = steps_of(2000, luck, fork=False)
        for name, of in (("divergence_off", certain), ("divergence_fork", steps)):
            log_q, log_p = model.posterior(
                result.state(of.state), of.action, result.state(of.after)
            )
            row[name] = float((log_q.exp() * (log_q - log_p)).sum(1).mean())
        z = torch.eye(log_q.shape[1])[torch.multinomial(log_q.exp(), 1, generator=luck)[:, 0]]
    row["r2"] = float(linear_probe(z, steps.state[:, :PLACES]).amax())
    return Row(kind, learned, seed, rates=rates.mean(0).tolist(), **row), futures


def _places(state: State) -> Tensor:
    """Where a state of the space lies among the branches, [M 2]."""
    return state.latent[:, PLACES : PLACES + 2]


# -- agents --------------------------------------------------------------------------------------

TRAINING = (
    "world_model.kind=latent-jepa", "world_model.width=64", "world_model.blocks=2",
    "world_model.unroll_steps=1", "world_model.prediction_weight=1", "perception.features=1",
    "cost.drives=[signal:-reward]", "configurator.kind=fixed", "configurator.mode=1",
    "actor.policy.kind=categorical", "actor.planner.kind=rollout", "discount=1",
    "directive.horizon_steps=5", "directive.commit_steps=5", "directive.model_calls=500",
    "learner.train_modules=[world_model]", "learner.learning_rate=0.003",
    "learner.replay_ratio=0.25", "learner.warmup_steps=1000", "learner.ema_rate=0.01",
    "memory.capacity=20000", "training.evaluate_every=0", "training.evaluate_episodes=1",
)  # fmt: skip
"""Mode-1 with an untrained policy, which acts at random; the world model alone learns."""

WAYS: dict[str, tuple[int, tuple[str, ...]]] = {
    "best mean": (0, ("directive.futures=16",)),
    "risk .8": (1, ("directive.futures=16", "directive.risk=0.8")),
    "adversarial": (2, ("directive.futures=16", "directive.adversarial=true")),
    "risk .8, 8 futures": (1, ("directive.futures=8", "directive.risk=0.8")),
    "best mean, 1 future": (0, ("directive.futures=1",)),
    "risk .8, 1 future": (1, ("directive.futures=1", "directive.risk=0.8")),
    "adversarial, 1 future": (2, ("directive.futures=1", "directive.adversarial=true")),
}
"""The route that each directive should take, and its settings."""


@dataclass(frozen=True)
class Way:
    """The episodes of an agent under one directive: how many took each route, and their returns."""

    name: str
    seed: int
    routes: list[int]
    mean_return: float

    @property
    def right(self) -> int:
        """Episodes on the route that the directive should take."""
        return self.routes[WAYS[self.name][0]]


def ways_of(seed: int, size: Size) -> list[Way]:
    """Trains an agent and evaluates it under each directive of WAYS."""
    ways = []
    with tempfile.TemporaryDirectory() as folder:
        agent: Any = train(
            STATE_ID, *TRAINING, preset="learn-actions", steps=size.steps, seed=seed,
            num_envs=10, run=f"{folder}/run",
        )  # fmt: skip
        for name, (_, settings) in WAYS.items():
            scores = evaluate(
                agent, "configurator.mode=2", *settings, episodes=size.episodes, num_envs=10
            )
            # A return says the route: no two pay the same.
            near = (torch.tensor(scores.returns)[:, None, None] - torch.tensor(PAYS)).abs()
            routes = torch.bincount(near.amin(2).argmin(1), minlength=len(PAYS)).tolist()
            ways.append(Way(name, seed, routes, sum(scores.returns) / len(scores.returns)))
    return ways


# -- output --------------------------------------------------------------------------------------


def share(count: int, of: int) -> str:
    """A share with its 95 % interval after Wilson."""
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return f"{count}/{of} [{interval.low:.2f}, {interval.high:.2f}]"


def mean_of(values: list[float]) -> str:
    """The mean over trainings with its 95 % bootstrap interval."""
    both = score(values)
    return f"{both.mean:.3f} [{both.low:.3f}, {both.high:.3f}]"


def named(rows: list[Row], kind: str, learned: bool = False) -> list[Row]:
    """The trainings of one kind."""
    return [row for row in rows if (row.kind, row.learned) == (kind, learned)]


def _off_by(row: Row) -> float:
    return float((torch.tensor(row.rates) - RATES).abs().max())


def _most(met: list[bool]) -> bool:
    """Whether four fifths are met."""
    return sum(met) >= 0.8 * len(met)


def bars_of(rows: list[Row], ways: list[Way]) -> dict[str, bool]:
    """What the tables must show, and whether they do."""
    fixed = {kind: named(rows, kind) for kind in KINDS}
    erased, held = named(rows, "none", True), named(rows, "categorical", True)
    bars = {
        "without z the average is predicted, at .9 of its distance or more": all(
            row.nearest >= 0.9 * MIDDLE for row in fixed["none"]
        ),
        "a learned encoder without z has branches at .2 deviations or less (median)": _median(
            erased, "separation"
        )
        <= 0.2,
        "a learned encoder with z has them at .5 or more (median)": _median(held, "separation")
        >= 0.5,
    }
    for name, most, group in (
        ("categorical", 0.05, fixed["categorical"]), ("gaussian", 0.1, fixed["gaussian"]),
        ("sparse", 0.1, fixed["sparse"]), ("categorical, learned encoder", 0.05, held),
    ):  # fmt: skip
        bars |= {
            f"{name}: rates within .05": _most([_off_by(row) <= 0.05 for row in group]),
            f"{name}: at most {most} of the futures on no branch": _most(
                [cast(float, row.off) <= most for row in group]
            ),
            f"{name}: log-likelihood within 5 % of the entropy (median)": abs(
                _median(group, "log_likelihood") + ENTROPY
            )
            <= 0.05 * ENTROPY,
        }
    one = _median(fixed["gaussian, 1 component"], "off")
    exact = fixed["categorical"]
    bars |= {
        "a prior of one normal distribution falls short": one > 0.1,
        "z says the branch at forks and nothing off them": _median(exact, "divergence_fork")
        <= ENTROPY + 0.05
        and _median(exact, "divergence_off") <= 0.05,
        "a categorical z does not say where the state is": _median(exact, "r2") <= 0.02,
        "the branch is inferred with a fixed encoder": min(
            cast(float, row.inferred) for row in exact
        )
        >= 0.99,
        "and with a learned one": _median(held, "inferred") >= 0.97,
    }
    for name in WAYS:
        of = [way for way in ways if way.name == name]
        right = sum(way.right for way in of) / sum(sum(way.routes) for way in of)
        if "1 future" in name:
            bars[f"{name}: does not always take its route"] = right < 0.95
        elif "8 futures" not in name:
            bars[f"{name}: takes its route"] = right >= 0.95
    return bars


def _median(rows: list[Row], name: str) -> float:
    return float(torch.tensor([getattr(row, name) for row in rows]).double().median())


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


FIGURES = (
    "separation", "nearest", "off", "log_likelihood", "inferred", "divergence_fork",
    "divergence_off", "r2",
)  # fmt: skip


def report(rows: list[Row], ways: list[Way]) -> str:
    """Both tables, and the bars."""
    first, second = [], []
    for learned in (False, True):
        for kind in KINDS:
            if group := named(rows, kind, learned):
                by_name = {name: [getattr(row, name) for row in group] for name in FIGURES}
                cells = ["" if None in v else mean_of(v) for v in by_name.values()]
                rates = "" if group[0].rates is None else mean_of([_off_by(row) for row in group])
                first.append([kind, "learned" if learned else "fixed", rates, *cells])
    for name in WAYS:
        of = [way for way in ways if way.name == name]
        total = sum(sum(way.routes) for way in of)
        shares = [share(sum(way.routes[route] for way in of), total) for route in range(3)]
        second.append([name, *shares, mean_of([way.mean_return for way in of])])
    return "\n".join((
        table(["z", "encoder", "rates off by", *FIGURES], first),
        "",
        table(["directive", *(f"route {route + 1}" for route in range(3)), "return"], second),
        "",
        *(f"{'met' if met else 'falls short'}: {bar}" for bar, met in bars_of(rows, ways).items()),
    ))  # fmt: skip


def draw(rows: list[Row], ways: list[Way], points: dict[str, Tensor], place: Path) -> None:
    """A PNG: where futures lie among the branches, what encoders keep, the routes of agents."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    above, below = figure.subfigures(2, 1)
    for panel, (kind, futures) in zip(above.subplots(1, len(points)), points.items(), strict=True):
        size, alpha = (5, 0.3) if len(futures) > 1 else (30, 1)
        panel.scatter(*futures.T, s=size, alpha=alpha, color=COLOURS[0], lw=0)
        panel.scatter(*BRANCHES.T, s=1200 * RATES, marker="o", fc="none", ec=COLOURS[1], lw=1.4)
        panel.set(xlim=(-0.95, 0.95), ylim=(-0.75, 0.95), aspect="equal")
        panel.set_title("no z" if kind == "none" else kind, fontsize=9)
        panel.tick_params(labelsize=7)
    above.suptitle(
        "Predicted futures of one fork (circles: its branches, sized by rate)", fontsize=10
    )
    left, right = below.subplots(1, 2, width_ratios=(1, 2.4))
    for number, (kind, _) in enumerate(LEARNED):
        values = [row.separation for row in named(rows, kind, True)]
        left.scatter([number] * len(values), values, color=COLOURS[number], s=22)
    left.set_xticks((0, 1), ("no z", "categorical z"), fontsize=8)
    left.axhline(0.2, color="#7b8794", lw=0.8, ls=":")
    left.axhline(0.5, color="#7b8794", lw=0.8, ls="--")
    left.set(xlim=(-0.5, 1.5), ylim=(0, None))
    left.set_ylabel("branch distance\n[deviations of latents]", fontsize=8)
    left.set_title("Encoders learned with the model", fontsize=10)
    reached = torch.zeros(len(WAYS))
    for route in range(len(PAYS)):
        counts = torch.tensor(
            [sum(way.routes[route] for way in ways if way.name == name) for name in WAYS]
        )
        every = torch.tensor([sum(sum(w.routes) for w in ways if w.name == name) for name in WAYS])
        right.barh(
            list(WAYS),
            counts / every,
            left=reached,
            color=COLOURS[route],
            label=f"route {route + 1}",
        )
        reached += counts / every
    right.invert_yaxis()
    right.set_xlabel("share of episodes", fontsize=8)
    right.set_title(f"Routes of {STATE_ID} that one trained agent plans", fontsize=10)
    below.legend(fontsize=7, ncols=3, loc="outside lower right", frameon=False)
    for panel in (left, right):
        panel.tick_params(labelsize=7)
    with new_file(place) as out:
        figure.savefig(out, format="png", dpi=90)


# -- command -------------------------------------------------------------------------------------


def natural(text: str) -> int:
    """A seed: an integer that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def main() -> None:
    """Prints the tables and draws the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=natural, default=0, help="the first of the seeds")
    parser.add_argument("--quick", action="store_true", help="one small training of each")
    parser.add_argument("--out", type=Path, default=Path("runs/fork.png"), help="the picture")
    parser.add_argument("--json", action="store_true", help="one JSON object in the last line")
    options = parser.parse_args()
    if options.out.is_dir():
        parser.error(f"--out: expected the path of a PNG, got the folder {str(options.out)!r}")
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: expected a path that can be written, got {error}")
    torch.set_num_threads(1)
    seed, size = options.seed, QUICK if options.quick else Size()
    rows, points = [], {}
    for one in range(seed, seed + size.seeds):
        for kind, learned in (*((kind, False) for kind in KINDS), *LEARNED):
            result = trained(kind, one, size.updates, learned)
            row, futures = row_of(result, kind, learned, one)
            rows.append(row)
            if one == seed and not learned:
                points[kind] = futures
        print(f"seed {one}: models done", file=sys.stderr, flush=True)
    ways = []
    for one in range(seed, seed + size.agents):
        ways += ways_of(one, size)
        print(f"seed {one}: agent done", file=sys.stderr, flush=True)
    draw(rows, ways, points, options.out)
    print(report(rows, ways))
    if options.json:
        figures = {
            "seed": seed, **size._asdict(), "picture": str(options.out),
            "rows": [asdict(row) for row in rows], "ways": [asdict(way) for way in ways],
            "bars": bars_of(rows, ways),
        }  # fmt: skip
        print(json.dumps(figures, allow_nan=False))


if __name__ == "__main__":
    main()
