"""Cost: drives that never change, a critic that learns what they will feel."""

from typing import Any

import pytest
import torch
from torch import Tensor

from modules import chance
from modules.cost import drives
from modules.cost.cost import Cost
from modules.cost.critic import (
    ActionCritic,
    CategoricalActionCritic,
    ScalarCritic,
)
from modules.cost.n_step import n_step_return, until_life_lost
from modules.cost.value_head import CategoricalHead, ScalarHead
from modules.messages import (
    SIGNALS,
    ActionSpec,
    ConfigError,
    Directive,
    Experience,
    State,
    WorldSpec,
)
from modules.ports import Batch, encoded_states
from modules.weights import weights

LEARNING_KEY = torch.tensor([7])

ALL = ("score", "pain", "effort", "novelty")
KNOWN = tuple(drives.DRIVES)
STEER = ActionSpec(discrete=False, size=2, low=(-1.0, -1.0), high=(1.0, 1.0))


def spec(
    goal: int | None = None, felt: int = 0, actions: int = 3, steer: bool = False
) -> WorldSpec:
    return WorldSpec(
        id="small", pixels=None, vector=4, goal=goal,
        signals=(*SIGNALS, *(f"achieved_{i}" for i in range(felt))),
        actions=STEER if steer else ActionSpec(discrete=True, size=3),
    )  # fmt: skip


def made(
    world: WorldSpec | None = None,
    names: tuple[str, ...] = ALL,
    latent: int = 8,
    discount: float = 0.9,
    seed: int = 0,
    kind: type | None = None,
    **settings: Any,
) -> Cost:
    world = world or spec()
    heads = tuple(drives.drives_in(world, names, tuple(drives.DRIVES)))
    intrinsic = drives.IntrinsicCost({n: drives.DRIVES[n]() for n in heads}, world.signals)
    torch.manual_seed(seed)
    kind = (ActionCritic if world.actions.discrete else ScalarCritic) if kind is None else kind
    critic = kind(
        config=kind.Config(**settings),  # type: ignore[attr-defined]
        world=world, latent_size=latent, heads=heads, discount=discount,
    )  # fmt: skip
    return Cost(config=Cost.Config(), intrinsic_cost=intrinsic, critic=critic, world=world)


def test_what_is_learned_of_an_action_tells_of_those_that_share_a_part_with_it():
    parts = ((0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1))
    actions = ActionSpec(discrete=True, size=6, factors=parts)
    one = torch.eye(6)[4]
    assert actions.with_factors(one).tolist() == [*one.tolist(), 1, 0, 1]

    critic = made(spec().model_copy(update={"actions": actions}), names=("score",)).critic
    out = torch.randn(5, 10)  # shared, three parts, six alone
    values = critic.values.arrange(out, 1).squeeze((-1, -2))
    own = out[:, 1:4] @ torch.tensor(parts).float().T + 0.3 * out[:, 4:]
    torch.testing.assert_close(values, out[:, :1] + own - own.mean(1, keepdim=True))


def state(
    signals: Tensor | None = None,
    goal: Tensor | None = None,
    rows: int = 5,
    latent: int = 8,
    felt: int = 0,
) -> State:
    key = chance.keys(3, rows, 0)
    if signals is None:
        signals = chance.normal(key, "signals", len(SIGNALS) + felt)
    return State(
        latent=chance.normal(key, "latent", latent), hidden=torch.zeros(rows, 0), signals=signals,
        ended=torch.zeros(rows), uncertainty=torch.zeros(rows), goal=goal,
    )  # fmt: skip


def speaking(cost: Cost, seed: int = 0) -> Cost:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for member in cost.critic.members:  # type: ignore[attr-defined]
            member.last.weight.normal_(generator=draw)
            member.last.bias.normal_(generator=draw)
    return cost


# -- drives -------------------------------------------------------------------------------------


def test_each_drive_is_its_formula() -> None:
    signals = torch.zeros(5, len(SIGNALS))
    signals[:, 0] = torch.tensor([0.0, 1.0, -3.0, 200.0, 1e5])
    signals[:, 1] = torch.tensor([0.0, 1.0, 0.5, -0.2, 1.3])
    signals[:, 4] = torch.tensor([0.0, 0.3, 1.0, 1.2, 0.1])
    signals[:, 5] = torch.tensor([0.0, 0.7, 1.0, -1.0, 0.1])
    felt = made().energy(state(signals)).intrinsic
    wanted = torch.tensor(
        [
            [0.0, -0.693147, 1.386294, -5.303305, -11.512935],
            [0.0, 1.0, 0.5, 0.0, 1.0],
            [0.0, 0.3, 1.0, 1.0, 0.1],
            [0.0, -0.7, -1.0, 0.0, -0.1],
        ]
    ).T
    torch.testing.assert_close(felt, wanted)


def test_a_goal_is_compared_with_what_is_felt_else_with_the_latent() -> None:
    goal = torch.arange(10.0).view(5, 2)
    for world, wanted in ((spec(goal=2, felt=2), False), (spec(goal=2), True)):
        cost = made(world)
        assert cost.drives == cost.heads == (*ALL, "goal")
        assert cost.needs_latent() is wanted
        shown = state(goal=goal, felt=0 if wanted else 2)
        achieved = shown.latent[:, :2] if wanted else shown.signals[:, -2:]
        torch.testing.assert_close(
            cost.intrinsic(shown)[:, -1], ((achieved - goal) ** 2).sum(-1) / 2
        )
    assert made().needs_latent() is False
    assert made().drives == ALL


def test_energies_let_gradients_through_to_the_state() -> None:
    shown = state(goal=torch.zeros(5, 2))
    latent = shown.latent.clone().requires_grad_()
    signals = shown.signals.clone().requires_grad_()
    shown = shown.replace(latent=latent, signals=signals)
    cost = speaking(made(spec(goal=2)))
    v = torch.ones(5, 5)
    (cost.intrinsic(shown).sum() + cost.critic_value(shown, v).sum()).backward()  # type: ignore[no-untyped-call]
    assert latent.grad is not None
    assert signals.grad is not None
    assert bool((latent.grad[:, 2:] != 0).all())
    assert bool((signals.grad[:, 0] < 0).all())


def test_drives_cannot_be_changed_and_their_hash_tells() -> None:
    with pytest.raises(TypeError):
        drives.DRIVES["score"] = drives.PainDrive  # type: ignore[index]
    assert drives.probe_hash("score", drives.ScoreDrive()) != drives.probe_hash(
        "score", drives.PainDrive()
    )
    cost = made()
    assert [name for name, _ in cost.named_parameters() if not name.startswith("critic.")] == []
    before = cost.intrinsic(state())
    speaking(cost)
    assert cost.intrinsic(state()).equal(before)


@pytest.mark.parametrize("name", tuple(drives.DRIVES))
def test_a_drive_that_means_another_thing_has_another_hash(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = drives.DRIVES[name]
    before, energy = drives.probe_hash(name, drive()), drive.energy
    monkeypatch.setattr(drive, "energy", lambda self, *s: energy(self, *s) * 1.001)
    assert drives.probe_hash(name, drive()) != before


def test_wrong_drives_are_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"config cost.drives: 'scroe'.*Did you mean 'score'\?"):
        drives.drives_in(spec(), ("scroe",), KNOWN)
    with pytest.raises(ConfigError, match="twice"):
        drives.drives_in(spec(), ("pain", "pain"), KNOWN)
    with pytest.raises(ConfigError, match="at least one"):
        drives.drives_in(spec(), (), KNOWN)
    with pytest.raises(ConfigError, match="sets goals"):
        drives.drives_in(spec(), ("goal",), KNOWN)
    assert drives.drives_in(spec(goal=2), ("goal",), KNOWN) == ["goal"]
    with pytest.raises(ConfigError, match=r"critic.kind=scalar"):
        made(spec(steer=True), kind=ActionCritic)
    with pytest.raises(ConfigError, match=r"cost.critic.drive_weights: 'pian'.*'pain'"):
        made(drive_weights={"pian": 1.0})


# -- the critic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("steer", [False, True])
def test_a_fresh_critic_is_silent_and_zero(steer: bool) -> None:
    cost = made(spec(steer=steer))
    energy = cost.energy(state())
    assert not cost.is_initialised()
    assert not (energy.critic if steer else energy.critic_actions).any()
    assert not energy.disagreement.any()
    assert (energy.critic_actions is None) == steer
    assert not cost.critic_value(state(), torch.ones(5, 4)).any()
    # Silence is no shortcut: the networks themselves say zero.
    for member in cost.critic.members:  # type: ignore[attr-defined]
        assert not member(state().latent).any()


@pytest.mark.parametrize("fused", [False, True])
def test_learning_and_loading_make_it_speak(fused: bool) -> None:
    cost, other, third = made(), made(seed=1), made(seed=2)
    assert not cost.is_initialised()
    assert not other.is_initialised()
    assert not third.is_initialised()
    optimiser = torch.optim.AdamW(cost.parameters(), lr=1e-3, fused=fused)
    experience, states = chain(batch=8)
    losses, _ = made_losses(cost, experience, states)
    losses["critic"].backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert cost.is_initialised()
    other.load_state_dict(cost.state_dict())
    third.load_state_dict(cost.state_dict(), assign=True)
    assert other.is_initialised()
    assert third.is_initialised()
    assert other.energy(state()).critic_actions.equal(cost.energy(state()).critic_actions)
    other.load_state_dict(made().state_dict())
    assert not other.is_initialised()


def test_energies_of_the_critic_agree_with_each_other() -> None:
    """The best action under v, its heads, and the members' spread, by hand."""
    cost, shown = speaking(made()), state()
    energy = cost.energy(shown)
    with torch.no_grad():
        # All actions' share, then how each is off the mean of them: what a dueling head says.
        put_out = [m(shown.latent).view(5, 4, 4) for m in cost.critic.members]  # type: ignore[attr-defined]
        each = torch.stack([o[:, :1] + o[:, 1:] - o[:, 1:].mean(1, keepdim=True) for o in put_out])
    assert energy.critic_actions is not None
    torch.testing.assert_close(energy.critic_actions, each.mean(0))
    v = chance.uniform(chance.keys(1, 5, 0), "v", 4)
    for row in range(5):
        sums = [float((each.mean(0)[row, a] * v[row]).sum()) for a in range(3)]
        assert cost.critic_value(shown, v)[row].item() == pytest.approx(
            min(sums), rel=1e-5, abs=1e-6
        )
        best = energy.at_best_action(weighing(v)).critic
        torch.testing.assert_close(best[row], each.mean(0)[row, sums.index(min(sums))])
        mins = [float(each[e, row].sum(-1).min()) for e in range(2)]
        assert energy.disagreement[row].item() == pytest.approx(
            abs(mins[0] - mins[1]) / 2, rel=1e-4, abs=1e-6
        )
    directive = weighing(v)
    torch.testing.assert_close(
        energy.total(directive),
        (energy.intrinsic * directive.u).sum(-1) + cost.critic_value(shown, v),
    )


def weighing(v: Tensor) -> Directive:
    rows = len(v)
    whole = torch.ones(rows, dtype=torch.int64)
    return Directive(
        mode=whole, horizon_steps=whole, model_calls=whole, commit_steps=whole, u=v * 2, v=v,
        tokens=torch.zeros(rows, 0, 0), latent_temperature=torch.ones(rows),
        futures=whole, adversarial=whole < 0,
        risk=torch.zeros(rows), configurator_state=torch.zeros(rows, 0), reason=("",) * rows,
    )  # fmt: skip


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7])
@pytest.mark.parametrize("online", [1, 3, 5])
def test_what_lies_ahead_against_a_plain_loop(n_steps: int, online: int) -> None:
    draw = torch.Generator().manual_seed(n_steps)
    batch, steps, heads, discount = 40, 5, 2, 0.9
    energies = torch.randn(batch, steps, heads, generator=draw)
    beyond = torch.randn(batch, steps, heads, generator=draw)
    real = torch.randint(1, steps + 1, (batch,), generator=draw)
    valid = torch.arange(steps) < real[:, None]
    # A window ends in one of three ways: terminated, truncated, or not at all.
    how = torch.randint(3, (batch,), generator=draw)
    terminated = (torch.arange(steps) == real[:, None] - 1) & (how == 0)[:, None]
    later = n_step_return(energies, terminated, valid, online, discount, n_steps)
    for b in range(batch):
        for t in range(online):
            far = min(n_steps, int(real[b]) - 1 - t)
            assert bool(later.mask[b, t]) == (far >= 1)
            if far < 1:
                continue
            wanted = sum(discount ** (i - 1) * energies[b, t + i] for i in range(1, far + 1))
            if not terminated[b, t + far]:
                wanted = wanted + discount**far * beyond[b, t + far]
            bootstrap = beyond[b, later.bootstrap_step[b, t]]
            got = later.energy_sum[b, t] + later.bootstrap_discount[b, t] * bootstrap
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("n_steps", [1, 3, 7])
def test_a_lost_life_ends_the_return_as_the_end_of_an_episode_does(n_steps: int) -> None:
    draw = torch.Generator().manual_seed(n_steps)
    batch, steps, discount = 60, 6, 0.9
    energies = torch.randn(batch, steps, 1, generator=draw)
    beyond = torch.randn(batch, steps, generator=draw)
    real = torch.randint(2, steps + 1, (batch,), generator=draw)
    valid = torch.arange(steps) < real[:, None]
    lost = torch.rand(batch, steps, generator=draw) < 0.3
    over = torch.zeros(batch, steps, dtype=torch.bool)
    terminated, mask = until_life_lost(lost.clone(), over, valid)
    later = n_step_return(energies, terminated, mask, 1, discount, n_steps)
    assert bool((lost[:, 1:] & valid[:, 1:]).any())
    for b in range(batch):
        wanted, far = 0.0, 0
        while far < n_steps and far + 1 < int(real[b]):
            far += 1
            wanted += discount ** (far - 1) * float(energies[b, far, 0])
            if lost[b, far]:
                break
        else:
            wanted += discount**far * float(beyond[b, far])
        bootstrap = beyond[b, later.bootstrap_step[b, 0]]
        got = later.energy_sum[b, 0, 0] + later.bootstrap_discount[b, 0] * bootstrap
        torch.testing.assert_close(float(got), wanted, rtol=1e-5, atol=1e-5)


def test_a_moved_distribution_keeps_its_mean_and_its_mass() -> None:
    output = CategoricalHead(51, 200.0)
    raw = torch.randn(3, 7, 1, 2, 51)
    felt, rest = torch.randn(7, 1, 2) * 3, torch.rand(7, 1, 1)
    wanted = output.target(raw, felt, rest)
    torch.testing.assert_close(wanted.sum(-1), torch.ones(3, 7, 1, 2))
    mean = felt + rest * output.value(raw)
    torch.testing.assert_close(
        output.target_value(wanted), mean.expand(3, 7, 1, 2), atol=1e-3, rtol=1e-3
    )


def test_a_distribution_is_projected_as_a_plain_loop_does() -> None:
    output = CategoricalHead(9, 20.0)
    raw, felt, rest = torch.randn(1, 9), torch.tensor([1.7]), torch.tensor([0.8])
    places, chance = output.bins.tolist(), (raw + output.prior).softmax(-1)[0].tolist()
    wanted = [0.0] * 9
    for bin_, probability in zip(places, chance, strict=True):
        moved = min(max(1.7 + 0.8 * bin_, places[0]), places[-1])
        low = max(i for i in range(8) if places[i] <= moved)
        share = (moved - places[low]) / (places[low + 1] - places[low])
        wanted[low] += probability * (1 - share)
        wanted[low + 1] += probability * share
    torch.testing.assert_close(output.target(raw, felt, rest)[0], torch.tensor(wanted))


def test_a_silent_distribution_says_zero_and_a_certain_one_its_bin() -> None:
    output = CategoricalHead(51, 200.0)
    assert output.value(torch.zeros(4, 51)).abs().max() < 1e-5
    assert output.bins[0] == pytest.approx(-200)
    assert output.bins[-1] == pytest.approx(200)
    certain = torch.full((51,), -1e4).index_fill_(0, torch.tensor([40]), 0.0)
    assert output.value(certain) == pytest.approx(float(output.bins[40]))
    one_hot = torch.nn.functional.one_hot(torch.tensor(40), 51).float()
    assert output.error(certain, one_hot) == pytest.approx(0, abs=1e-6)


def test_a_number_errs_by_its_square() -> None:
    output = ScalarHead()
    raw = torch.tensor([[2.0], [0.0]])
    wanted = output.target(raw, torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.0]))
    assert wanted.tolist() == [[2.0], [1.0]]
    assert output.error(raw, wanted).tolist() == [0, 1]


def test_annealing_runs_from_the_first_to_the_last_by_equal_ratios() -> None:
    critic = made(
        n_steps=3, n_step_start=12, discount_start=0.9, annealing_updates=4, discount=0.99
    ).critic
    seen = []
    for _ in range(6):
        seen.append((critic.n_steps, critic.window_steps(), critic.discount))
        critic.on_update()
    assert [n for n, *_ in seen] == [12, 8, 6, 4, 3, 3]
    assert all(window == n + 1 for n, window, _ in seen)
    assert seen[0][2] == pytest.approx(0.9)
    assert seen[4][2] == pytest.approx(0.99)
    assert seen[2][2] == pytest.approx(1 - (0.1 * 0.01) ** 0.5)
    critic.on_reset()
    assert critic.n_steps == 12


HATS = {"count": 3, "low": 0, "high": 1}


def test_a_critic_reads_hat_functions_and_normalises_where_it_is_told_to() -> None:
    plain, shown = made().critic, made(layer_norm=True, hat_functions=HATS).critic
    assert not any(isinstance(part, torch.nn.LayerNorm) for part in plain.members.modules())
    assert any(isinstance(part, torch.nn.LayerNorm) for part in shown.members.modules())
    first = shown.members[0].hidden[0]
    assert first.in_features == 4 * plain.members[0].hidden[0].in_features == 32
    # Numbers beyond the grid are the same to hat functions; the number itself tells them apart.
    latent = torch.full((1, 8), 2.0)
    read = shown.hat_functions(latent)
    assert read[0, :8].equal(latent[0])
    assert not read[0, 8:].any()


STATES = 5


def chain(batch: int, seed: int = 0, window: int = 4) -> tuple[Experience, list[State]]:
    """Windows of random walks on a line of five places, action 0 left, 1 right, 2 stay.

    The right end gives score e-1 (the drive feels -1) and is terminal; stepping left, or into the
    wall, costs a life. Place 0 is where the wall is.
    """
    draw = torch.Generator().manual_seed(seed)
    place = torch.randint(STATES - 1, (batch,), generator=draw)
    places, actions, signals = [place], [], [torch.zeros(batch, len(SIGNALS))]
    for _ in range(window):
        act = torch.randint(3, (batch,), generator=draw)
        place = (place + torch.tensor([-1, 1, 0])[act]).clamp(0, STATES - 1)
        felt = torch.zeros(batch, len(SIGNALS))
        felt[:, 0] = (place == STATES - 1) * (torch.e - 1)
        felt[:, 1] = (act == 0).float()
        places.append(place)
        actions.append(act)
        signals.append(felt)
    where = torch.stack(places[:window], 1)
    arrived = where == STATES - 1
    valid = (arrived.cumsum(1) - arrived.long()) == 0
    experience = Experience(
        frames=None,
        vectors=None,
        actions=torch.nn.functional.one_hot(torch.stack(actions, 1), 3).float(),
        signals=torch.stack(signals[:window], 1),
        terminated=arrived & valid,
        truncated=torch.zeros_like(arrived),
        mask=valid,
        importance_weights=torch.ones(batch),
        indices=torch.arange(batch),
    )
    return experience, encoded_states(experience, torch.nn.functional.one_hot(where, 8).float())


def made_losses(
    cost: Cost, experience: Experience, states: list[State]
) -> tuple[dict[str, Tensor], Tensor]:
    losses, priorities = cost.losses(Batch(experience, states, states), LEARNING_KEY)
    assert priorities is not None
    return losses, priorities


def trained(cost: Cost, updates: int, **keywords: int) -> Cost:
    optimiser = torch.optim.Adam(cost.parameters(), lr=3e-3)
    for update in range(updates):
        experience, states = chain(batch=128, seed=update, **keywords)
        losses, _ = made_losses(cost, experience, states)
        optimiser.zero_grad()
        losses["critic"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        cost.on_update()
    return cost


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (ActionCritic, {}),
        (CategoricalActionCritic, {}),
        (ActionCritic, {"layer_norm": True, "hat_functions": HATS}),
    ],
)
def test_the_critic_learns_the_discounted_energies_of_the_chain(
    kind: type, inputs: dict[str, Any]
) -> None:
    """One step ahead, off-policy: the best future is to go right, whatever is done first."""
    cost = made(names=("score", "pain"), kind=kind, n_steps=1, ema_rate=0.1, width=64, **inputs)
    assert not cost.is_initialised()
    assert not cost.energy(state()).critic_actions.any()  # type: ignore[union-attr]
    trained(cost, updates=350)
    places = torch.nn.functional.one_hot(torch.arange(STATES - 1), 8).float()
    heads = cost.energy(state(rows=4).replace(latent=places)).critic_actions
    assert heads is not None
    for place in range(STATES - 1):
        for action, move in enumerate((-1, 1, 0)):
            after = max(0, place + move)
            score = -(0.9 ** (STATES - 1 - after - 1)) * 0.9 if after < STATES - 1 else -1.0
            assert heads[place, action, 0].item() == pytest.approx(score, abs=0.06)
            assert heads[place, action, 1].item() == pytest.approx(float(action == 0), abs=0.06)


def test_the_scalar_critic_learns_what_the_walk_itself_costs() -> None:
    """Against the exact solution of V = P (IC + γ V) for the random walk."""
    cost = trained(
        made(spec(steer=True), ("score", "pain"), n_steps=3, ema_rate=0.1, width=64),
        updates=350, window=6,
    )  # fmt: skip
    moves, felt = torch.zeros(STATES, STATES), torch.zeros(STATES, 2)
    for place in range(STATES - 1):
        for move, hurts in ((-1, 1.0), (1, 0.0), (0, 0.0)):
            after = max(0, place + move)
            moves[place, after] += 1 / 3
            felt[place] += torch.tensor([-1.0 if after == STATES - 1 else 0.0, hurts]) / 3
    wanted = torch.linalg.solve(torch.eye(STATES) - 0.9 * moves, felt)[:-1]
    places = torch.nn.functional.one_hot(torch.arange(STATES - 1), 8).float()
    got = cost.energy(state(rows=4).replace(latent=places)).critic
    torch.testing.assert_close(got, wanted, atol=0.15, rtol=0)


def test_losses_are_those_of_the_first_states_and_priorities_follow_the_error() -> None:
    """The learner may encode only some first steps online; targets cover the whole window."""
    cost = speaking(made(n_steps=2))
    experience, states = chain(batch=16)
    whole, _ = made_losses(cost, experience, states)
    first, urgent = cost.losses(Batch(experience, states[:1], states), LEARNING_KEY)
    assert urgent is not None
    assert first["critic"] != whole["critic"]
    alone = experience.replace(
        importance_weights=torch.zeros(16).index_fill_(0, torch.tensor([3]), 1.0)
    )
    wrong, _ = cost.losses(Batch(alone, states[:1], states), LEARNING_KEY)
    assert wrong["critic"] < first["critic"]
    assert urgent.shape == (16,)
    assert bool((urgent[experience.mask[:, 1]] > 0).all())


def test_targets_follow_slowly_and_do_not_learn() -> None:
    cost = made(ema_rate=0.25)
    assert all(not p.requires_grad for p in cost.critic.targets.parameters())  # type: ignore[attr-defined]
    speaking(cost)
    before = cost.critic.targets[0].last.weight.clone()  # type: ignore[attr-defined]
    online = cost.critic.members[0].last.weight  # type: ignore[attr-defined]
    cost.on_update()
    torch.testing.assert_close(
        cost.critic.targets[0].last.weight,  # type: ignore[attr-defined]
        0.75 * before + 0.25 * online,
    )


def test_weights_by_name() -> None:
    names = ("score", "pain", "effort", "goal")
    assert weights({}, names, "x").tolist() == [1, 1, 0, 1]
    assert weights({"effort": 0.5, "score": 2}, names, "x").tolist() == [2, 1, 0.5, 1]
    # A plugin's drive counts 1, as it is there only where it is named; sub-goals are set.
    assert weights({}, ("upright", "novelty", "subgoal 0"), "x").tolist() == [1, 0, 0]
    with pytest.raises(ConfigError, match=r"config directive.u: 'pian' is not one of score"):
        weights({"pian": 1}, names, "directive.u")
