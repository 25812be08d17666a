import copyreg
import sys
import types

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from modules.cost.drives import GoalDrive, IntrinsicCost
from modules.messages import ConfigError, State, WorldError
from modules.ports import Simulator, World
from worlds.make import make_world


class Toy(gymnasium.Env):
    """Random observations of any space; terminates after 4 steps, or truncates (`truncates`)."""

    def __init__(
        self, observation=None, action=None, truncates=False, seeded=True, render_mode=None
    ):
        self.observation_space = observation or spaces.Box(-1, 1, (3,))
        self.action_space = action or spaces.Discrete(2)
        self.truncates, self.seeded, self.render_mode = truncates, seeded, render_mode
        self.actions = []

    def _observation(self):
        if not self.seeded:
            self.observation_space.seed()
            return self.observation_space.sample()
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(action)
        self.steps += 1
        over = self.steps == 4
        reward = float(self.np_random.normal())
        return self._observation(), reward, over and not self.truncates, over and self.truncates, {}


@pytest.fixture
def register():
    """A function that registers a Toy under a new id until the test ends, and returns the id."""
    ids = []

    def add(**arguments):
        id = f"SextetToy{len(ids)}-v0"
        gymnasium.register(id, entry_point=Toy, kwargs=arguments, order_enforce=False)
        ids.append(id)
        return id

    yield add
    for id in ids:
        del gymnasium.registry[id]


def random_actions(world, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, world.num_envs, world.spec.actions.size, generator=generator).unbind(
        0
    )


def same(one, other):
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for (_, a), (_, b) in zip(one.tensors(), other.tensors(), strict=True)
    )


BYTES = {"low": 0, "high": 255, "dtype": np.uint8}


@pytest.mark.parametrize(
    ("space", "pixels"),
    [
        (spaces.Box(shape=(20, 12, 3), **BYTES), (20, 12, 3)),
        (spaces.Box(shape=(3, 20, 12), **BYTES), (20, 12, 3)),
        (spaces.Box(shape=(1, 20, 12), **BYTES), (20, 12, 1)),
        (spaces.Box(shape=(20, 12), **BYTES), (20, 12, 1)),
        (spaces.Box(0, 1, (20, 12, 4), np.float32), (20, 12, 4)),
        (spaces.Box(0, 1, (9, 30), np.float64), (9, 30, 1)),
    ],
)
def test_frames_of_any_size_layout_and_dtype(register, space, pixels):
    world = make_world(register(observation=space), 2)
    observation = world.reset(0)
    assert world.spec.pixels == pixels
    assert world.spec.vector is None
    assert observation.pixels.shape == (2, *pixels)
    assert observation.pixels.numpy().dtype == space.dtype
    plain = gymnasium.make(world.spec.id)
    seed = int(world._rows[0].env.env.np_random_seed)
    expected = plain.reset(seed=seed)[0]
    ordered = expected.transpose(1, 2, 0) if space.shape[0] in (1, 3) else expected
    assert (observation.pixels[0].numpy() == ordered.reshape(pixels)).all()
    assert world.render().shape == (2, *pixels[:2], 3)
    eye = make_world(world.spec.id, 1, sensor={"height": 10, "width": 6, "gray": True})
    assert eye.reset(0).pixels.shape == (1, 10, 6, 1)
    assert eye.reset(0).pixels.dtype is torch.uint8
    colour = make_world(world.spec.id, 1, sensor={"height": 10, "width": 6, "gray": False})
    assert colour.reset(0).pixels.shape == (1, 10, 6, 3)


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (spaces.Box(-np.inf, np.inf, (3,)), 3),
        (spaces.Box(-2, 2, (2, 3), np.float64), 6),
        (spaces.Box(0, 9, (4,), np.int64), 4),
        (spaces.Box(0, 1, (), np.float32), 1),
    ],
)
def test_vectors_of_any_shape(register, space, size):
    world = make_world(register(observation=space), 2)
    observation = world.reset(0)
    assert world.spec.vector == size
    assert observation.vector.shape == (2, size)
    assert observation.vector.dtype is torch.float32


def test_a_discrete_observation_is_one_hot(register):
    world = make_world(register(observation=spaces.Discrete(5, start=-2)), 3)
    vector = world.reset(0).vector
    assert vector.shape == (3, 5)
    assert (vector.sum(1) == 1).all()


def test_entries_of_the_observation_can_be_signals():
    plain, world = (
        make_world("CartPole-v1", 2),
        make_world("CartPole-v1", 2, observation_signals=(2, 0)),
    )
    assert world.spec.signals == (*plain.spec.signals, "observation_2", "observation_0")
    world.reset(0)
    left = torch.eye(2)[[0, 1]]
    for observation in (world.step(left), world.restore(world.snapshot())):
        assert observation.signals[:, -2:].equal(observation.vector[:, [2, 0]])
    sim_step = world.simulate(world.save_state(0), 1, None)
    entries = world.render_observation(sim_step.handle)[[2, 0]]
    assert np.allclose(sim_step.signals[-2:], entries)


def test_goals_and_achieved_goals(register):
    box = spaces.Box(-1, 1, (2,), np.float64)
    space = spaces.Dict(observation=spaces.Box(-1, 1, (4,)), desired_goal=box, achieved_goal=box)
    world = make_world(register(observation=space), 1)
    observation = world.reset(0)
    assert (world.spec.vector, world.spec.goal) == (6, 2)
    assert observation.goal.shape == (1, 2)
    plain = gymnasium.make(world.spec.id).reset(seed=int(world._rows[0].env.env.np_random_seed))[0]
    assert np.allclose(observation.goal[0], plain["desired_goal"])
    assert np.allclose(observation.vector[0, 4:], plain["achieved_goal"])
    # The drive `goal` compares the goal with the achieved goal alone, not with the latent.
    assert world.spec.signals[-2:] == ("achieved_0", "achieved_1")
    assert np.allclose(observation.signals[0, -2:], plain["achieved_goal"])
    state = State(
        latent=torch.full((1, 9), 7.0),
        hidden=torch.zeros(1, 0),
        signals=observation.signals,
        ended=torch.zeros(1),
        uncertainty=torch.zeros(1),
        goal=observation.goal,
    )
    apart = np.square(plain["achieved_goal"] - plain["desired_goal"]).mean()
    intrinsic = IntrinsicCost({"goal": GoalDrive()}, world.spec.signals)
    assert float(intrinsic.energies(state)) == pytest.approx(float(apart), rel=1e-5)


@pytest.mark.parametrize(
    "space",
    [
        {"action": spaces.MultiDiscrete([2, 3])},
        {"action": spaces.Box(-np.inf, np.inf, (2,))},
        {"action": spaces.Box(0, 0, (2,))},
        {"observation": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3)))},
        {"observation": spaces.Dict(a=spaces.Discrete(2))},
        {"observation": spaces.Text(4)},
    ],
)
def test_unsupported_spaces_are_refused_in_one_line(register, space):
    with pytest.raises(ConfigError) as caught:
        make_world(register(**space))
    assert "\n" not in str(caught.value)


def test_actions_are_elements_of_the_action_space(register):
    offset = make_world(register(action=spaces.Discrete(3, start=5)), 1)
    offset.reset(0)
    offset.step(torch.tensor([[0.0, 0.0, 1.0]]))
    assert offset._rows[0].env.env.unwrapped.actions == [7]
    low, high = np.array([[0, -2]], np.float32), np.array([[1, 6]], np.float32)
    box = make_world(register(action=spaces.Box(low, high)), 1)
    assert box.spec.actions.size == 2
    box.reset(0)
    signals = box.step(torch.tensor([[-1.0, 0.5]])).signals[0]
    assert np.allclose(box._rows[0].env.env.unwrapped.actions, [[[0, 4]]])
    assert signals[4] == pytest.approx((1 + 0.25) / 2)
    box.step(torch.tensor([[9.0, -9.0]]))


@pytest.mark.parametrize("truncates", [False, True])
def test_next_step_autoreset_against_a_plain_loop(register, truncates):
    world = make_world(register(truncates=truncates), 2)
    observation = world.reset(3)
    actions = random_actions(world, 12)
    observed = [observation, *(world.step(action) for action in actions)]
    for row in range(2):
        for episode in range(2):
            base = 5 * episode
            world.reset(3)
            for action in actions[:base]:
                world.step(action)
            plain = gymnasium.make(world.spec.id)
            expected, _ = plain.reset(seed=int(world._rows[row].env.env.np_random_seed))
            assert np.allclose(observed[base].vector[row], expected)
            assert bool(observed[base].first[row])
            for at in range(base, base + 4):
                expected, reward, over, cut, _ = plain.step(int(actions[at][row].argmax()))
                after = observed[at + 1]
                assert np.allclose(after.vector[row], expected)
                assert after.signals[row, 0] == pytest.approx(reward)
                assert bool(after.terminated[row]) == over == bool(after.signals[row, 3])
                assert bool(after.truncated[row]) == cut
                assert not after.first[row]


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "FrozenLake-v1"])
def test_a_snapshot_continues_bit_for_bit(id):
    world = make_world(id, 2, episode_steps=30)
    assert isinstance(world, World)
    assert isinstance(world, Simulator)
    world.reset(1)
    for action in random_actions(world, 44):
        observed = world.step(action)
    snapshot = world.snapshot()
    future = [world.step(action) for action in random_actions(world, 30, seed=1)]
    for restored in (world, make_world(id, 2, episode_steps=30)):
        assert same(restored.restore(snapshot), observed)
        assert all(
            same(restored.step(action), after)
            for action, after in zip(random_actions(world, 30, seed=1), future, strict=True)
        )
    assert world.render().shape[0] == 2


def test_a_snapshot_of_an_unseeded_environment_is_refused(register):
    world = make_world(register(seeded=False), 1)
    world.reset(0)
    snapshot = world.snapshot()
    with pytest.raises(WorldError, match="row 0: not deterministic under its seed"):
        world.restore(snapshot)
    with pytest.raises(WorldError, match="checksum"):
        world.restore(snapshot[:-1])


def test_the_simulator_is_exact_without_a_seed_and_random_with_one(register):
    world, undisturbed = (make_world(register(), 1) for _ in range(2))
    world.reset(5)
    undisturbed.reset(5)
    for action in random_actions(world, 9):
        handle, native = world.save_state(0), int(action.argmax())
        sim_step = world.simulate(handle, native, None)
        fair = [world.simulate(handle, native, seed) for seed in (1, 1, 2)]
        observation = world.step(action)
        assert same(observation, undisturbed.step(action))
        if handle.ended:
            assert sim_step.handle is handle
            continue
        assert torch.equal(torch.tensor(sim_step.signals), observation.signals[0])
        assert (world.render_observation(sim_step.handle) == observation.vector[0].numpy()).all()
        assert sim_step.ended == bool(observation.ended[0])
        assert fair[0].signals == fair[1].signals != fair[2].signals


def test_truncation_by_episode_steps_keeps_the_last_observation():
    cut, free = make_world("CartPole-v1", 1, episode_steps=3), make_world("CartPole-v1", 1)
    cut.reset(0)
    free.reset(0)
    for step, action in enumerate(random_actions(cut, 3)):
        one, other = cut.step(action), free.step(action)
        assert torch.equal(one.vector, other.vector)
        assert bool(one.truncated[0]) == (step == 2)
    assert cut.step(random_actions(cut, 1)[0]).first[0]


def test_environments_with_pygame_objects_can_be_simulated(register, monkeypatch):
    """pygame's surfaces, clocks and fonts cannot be copied, so copies share them."""

    class Uncopyable:
        def __reduce_ex__(self, protocol):
            raise TypeError("cannot pickle a surface")

    class Surface(Uncopyable): ...

    class Clock(Uncopyable): ...

    class Font(Uncopyable): ...

    drawing = types.SimpleNamespace(
        Surface=Surface,
        time=types.SimpleNamespace(Clock=Clock),
        font=types.SimpleNamespace(Font=Font),
    )
    monkeypatch.setitem(sys.modules, "pygame", drawing)
    world = make_world(register(), 1)
    world.reset(0)
    env = world._rows[0].env.env.unwrapped
    env.screen, env.images = Surface(), [Clock(), Font()]
    handle = world.save_state(0)
    assert handle.env.env.unwrapped is not env
    assert handle.env.env.unwrapped.screen is env.screen
    assert world.simulate(handle, 1, None).signals[4] == 1
    for kind in (Surface, Clock, Font):
        copyreg.dispatch_table.pop(kind)
