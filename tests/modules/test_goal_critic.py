"""The critics of a goal: the distance in steps, learned from experience without a goal."""

import copy

import pytest
import torch

from modules.cost.goal_critic import GoalDistance, TimeToGoal
from modules.messages import SIGNALS, ActionSpec, ConfigError, Experience, State, WorldSpec
from modules.nets.normalisation import RunningMoment
from modules.ports import encoded_states

SIZE = 6
WORLD = WorldSpec(
    id="test/goal", pixels=None, vector=SIZE, signals=SIGNALS, goal=SIZE,
    actions=ActionSpec(discrete=True, size=2),
)  # fmt: skip


def critic(world=WORLD, heads=("effort", "goal"), kind=GoalDistance, size=SIZE, **settings):
    return kind(
        config=kind.Config(**settings), world=world, latent_size=size, heads=heads, discount=0.9
    )


def walks(rows=64, steps=5, seed=0):
    """Straight walks with constant steps in the first two dimensions; the others jump about, a
    hundred times as far as a step.
    """
    draw = torch.Generator().manual_seed(seed)
    step = torch.nn.functional.normalize(torch.randn(rows, 1, 2, generator=draw), dim=2)
    time = torch.arange(steps)[None, :, None]
    place = torch.randn(rows, 1, 2, generator=draw) * 5 + 0.1 * step * time
    return torch.cat([place, torch.randn(rows, steps, SIZE - 2, generator=draw) * 10], 2)


def experience_of(latents, mask=None):
    rows, steps = latents.shape[:2]
    over = torch.zeros(rows, steps, dtype=torch.bool)
    return Experience(
        frames=None, vectors=latents, signals=torch.zeros(rows, steps, len(SIGNALS)), goals=None,
        actions=torch.zeros(rows, steps, 2), terminated=over, truncated=over,
        mask=~over if mask is None else mask, indices=torch.arange(rows),
        importance_weights=torch.ones(rows), tokens=None,
    )  # fmt: skip


def losses_of(made, latents, mask=None):
    experience = experience_of(latents, mask)
    targets = encoded_states(experience, latents)
    named, priorities = made.losses(torch.zeros(1), experience, targets[:1], targets)
    assert priorities is None
    (loss,) = named.values()
    return loss


def state(latent, goal):
    rows = len(latent)
    return State(
        latent=latent, hidden=torch.zeros(rows, 0), signals=torch.zeros(rows, len(SIGNALS)),
        ended=torch.zeros(rows), uncertainty=torch.zeros(rows), goal=goal,
    )  # fmt: skip


def test_a_whitened_moment_is_the_identity():
    draw = torch.randn(500, SIZE, generator=torch.Generator().manual_seed(0))
    values = draw @ torch.diag(torch.arange(1.0, SIZE + 1))
    moment = RunningMoment(SIZE)
    torch.testing.assert_close(moment.inverse_power(0.5, 1e-6), torch.eye(SIZE))
    for part in values.split(100):
        moment.update(part)
    whitening = moment.inverse_power(0.5, 1e-6)
    torch.testing.assert_close(whitening, whitening.T)
    whole = whitening @ (values.T @ values / len(values)) @ whitening
    torch.testing.assert_close(whole, torch.eye(SIZE), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("power", "ratio"), [(0.5, 2**0.5), (1.0, 1.79)])
def test_a_larger_power_goes_on_growing_far_away(power, ratio):
    """On a path of length 1 the features of a random walk are cos kπx, which a step of length ε
    changes by (kπε)² / 2 in the mean square: the end is farther than the middle by √2 in the
    commute time, and by 1.79 in the biharmonic distance.
    """
    made = critic(power=power, least_share=1e-9)
    frequencies = torch.arange(1, SIZE + 1) * torch.pi
    made.steps.moment.copy_(torch.diag(frequencies.square() / 2))
    made.steps.count.fill_(1)
    start, middle, end = ((frequencies * x).cos() for x in (0.0, 0.5, 1.0))
    with torch.no_grad():
        far, near = made.distance(end, start), made.distance(middle, start)
    assert float(far / near) == pytest.approx(ratio, rel=0.06)


@pytest.mark.parametrize(("least_share", "times"), [(1e-3, 10), (1e-9, 80)])
def test_what_jumps_about_does_not_count_and_steps_do(least_share, times):
    made = critic(least_share=least_share)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    for number in range(150):
        optimiser.zero_grad()
        losses_of(made, walks(seed=number)).backward()
        optimiser.step()
    with torch.no_grad():
        here, jumped = torch.zeros(1, SIZE), torch.zeros(1, SIZE)
        jumped[:, 2:] = 3.0
        there = torch.zeros(1, SIZE)
        there[:, 0] = 3.0
        assert float(made.distance(there, here)) > times * float(made.distance(jumped, here))


def test_states_k_steps_apart_are_k_apart():
    made = critic(least_share=1e-9)
    straight = walks()[..., :2]
    latents = torch.cat([straight, straight @ torch.randn(2, SIZE - 2)], 2)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss = losses_of(made, latents)
        loss.backward()
        optimiser.step()
    apart = made.distance(latents[:, 4], latents[:, 0])
    assert float(apart.detach().mean()) == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("kind", [GoalDistance, TimeToGoal])
def test_steps_outside_a_window_change_nothing(kind):
    latents = walks()
    mask = torch.ones(latents.shape[:2], dtype=torch.bool)
    mask[::2, 3:] = False
    other = torch.where(mask.unsqueeze(2), latents, latents + 1e6)
    one = critic(kind=kind)
    two = copy.deepcopy(one)
    torch.testing.assert_close(losses_of(one, latents, mask), losses_of(two, other, mask))
    torch.testing.assert_close(one.state_dict(), two.state_dict())


@pytest.mark.parametrize("kind", [GoalDistance, TimeToGoal])
def test_the_value_is_of_the_head_of_the_goal_and_has_a_gradient_at_it(kind):
    made = critic(kind=kind)
    losses_of(made, walks())
    latent = torch.randn(3, SIZE, requires_grad=True)
    goal = latent.detach().clone()
    goal[1:] += 1
    v = torch.tensor([[5.0, 2.0]]).expand(3, -1)
    value = made.critic_value(state(latent, goal), v)
    assert float(value.detach()[0]) == 0
    torch.testing.assert_close(value, 2 * made.expect(state(latent, goal)).critic[:, 1])
    assert not made.expect(state(latent, goal)).critic[:, 0].any()
    value.sum().backward()
    assert bool(latent.grad.isfinite().all())
    assert not made.critic_value(state(latent.detach(), None), v).any()


@pytest.mark.parametrize("kind", [GoalDistance, TimeToGoal])
@torch.no_grad()
def test_other_weights_measure_by_their_own_steps(kind):
    made, other = critic(kind=kind), critic(kind=kind)
    losses_of(made, walks())
    losses_of(other, 10 * walks())
    place, goal = torch.ones(1, SIZE), torch.zeros(1, SIZE)
    expected = other.distance(place, goal)
    assert not torch.equal(made.distance(place, goal), expected)
    made.load_state_dict(other.state_dict())
    torch.testing.assert_close(made.distance(place, goal), expected)


@pytest.mark.parametrize("kind", [GoalDistance, TimeToGoal])
def test_before_the_first_update_it_is_0(kind):
    made = critic(kind=kind)
    assert not made.is_initialised()
    assert not made.expect(state(torch.randn(3, SIZE), torch.randn(3, SIZE))).critic.any()


@pytest.mark.parametrize(
    ("changes", "heads", "expected"),
    [
        ({}, ("effort",), "a world that sets goals"),
        ({"goal": 3}, ("goal",), "a goal that is a picture or has 6 numbers"),
    ],
)
def test_it_is_refused_where_there_is_no_goal_in_the_latent(changes, heads, expected):
    with pytest.raises(ConfigError, match=expected):
        critic(WORLD.model_copy(update=changes), heads)


def trained(windows, updates=400, **settings):
    """A critic of two numbers, trained on windows [B W 2] of each update."""
    torch.manual_seed(0)
    world = WORLD.model_copy(update={"goal": 2, "vector": 2})
    made = critic(world, kind=TimeToGoal, size=2, **settings)
    optimiser = torch.optim.Adam(made.parameters(), lr=3e-3)
    for number in range(updates):
        optimiser.zero_grad()
        losses_of(made, windows(torch.Generator().manual_seed(number))).backward()
        optimiser.step()
    return made


def round_a_wall(draw, rows=256, steps=5, length=0.1):
    """Random steps in a square, whose middle is wall but for an opening above y = .6."""

    def is_wall(place):
        return (place[:, :1].abs() < 0.15) & (place[:, 1:] < 0.6)

    place = 2 * torch.rand(rows, 2, generator=draw) - 1
    place = torch.where(is_wall(place), place + place.sign() * torch.tensor([0.15, 0.0]), place)
    places = [place]
    for _ in range(steps - 1):
        angle = 2 * torch.pi * torch.rand(rows, generator=draw)
        step = length * torch.stack([angle.cos(), angle.sin()], 1)
        after = (place + step).clamp(-1, 1)
        place = place.where(is_wall(after), after)
        places.append(place)
    return torch.stack(places, 1)


def test_time_to_a_goal_behind_a_wall_is_that_of_the_way_round():
    made = trained(round_a_wall, far_steps=40)
    before, behind, up = (
        torch.tensor([[x, y]]) for x, y in ((-0.3, -0.3), (0.3, -0.3), (-0.3, 0.6))
    )
    with torch.no_grad():
        across, along = float(made.distance(before, behind)), float(made.distance(before, up))
    assert 7 < along < 12  # .9, in steps of .1
    assert across > 1.5 * along


def test_time_to_a_goal_there_and_back_differs_where_ways_lead_one_way():
    def forwards(draw, rows=256, steps=5):
        place = torch.rand(rows, 1, 1, generator=draw) * 0.8 + torch.arange(steps)[:, None] * 0.05
        return torch.cat([place, torch.zeros_like(place)], 2)

    made = trained(forwards, far_steps=40)
    first, last = torch.tensor([[0.3, 0.0]]), torch.tensor([[0.6, 0.0]])
    with torch.no_grad():
        assert float(made.distance(first, last)) == pytest.approx(6, rel=0.3)
        assert float(made.distance(last, first)) > 15


def test_no_window_is_paired_with_itself_in_a_small_batch():
    made = critic(kind=TimeToGoal)
    apart = torch.zeros(2, 5, 2 * made.config.size)
    apart[1] = 1000
    nearness = made._nearness(apart, torch.ones(2, 5, dtype=torch.bool))
    assert float(nearness) < 1e-3  # that of a state and itself is 1
