"""The simulator models in real worlds: Atari and a classic one."""

import pytest
import torch

from agent.assembly.build import assemble, known_kinds
from agent.live import live
from modules import chance
from modules.messages import ConfigError, WorldError
from modules.ports import Simulator
from modules.world_model.simulator import Clairvoyant, Fair

MIND = {"configurator": {"kind": "fixed", "mode": 1}}


def made(world, kind, rows=1):
    # The Nature CNN sees every pixel of a frame.
    more = {"perception": {"kind": "pixels-nature"}} if world.startswith("ALE") else {}
    tree = {"world": {"id": world, "num_envs": rows}, "world_model": {"kind": kind}, **MIND, **more}
    return assemble(tree, known_kinds())


def present(house, seed=0, steps=30):
    """A house some steps into its life, and the situation, imagination and directive there."""
    caught = {}
    model = house.agent.modules.world_model
    start = model.start

    def watch(situation, directive):
        caught["now"] = (situation, directive)
        return start(situation, directive)

    model.start = watch
    moments = list(live(house.agent, house.world, steps * house.world.num_envs, seed))
    model.start = start
    # `live` carries the last action out, so the last situation is one step old: take the next.
    caught.clear()
    model.start = watch
    observation = house.world.step(moments[-1].plan.action)
    agent = house.agent
    agent.step(observation)
    model.start = start
    situation, directive = caught["now"]
    return situation, agent.imagination(situation, directive), directive


def states_of(imagination, actions):
    """The states after each of the actions [B N H A]."""
    futures, states = imagination.begin(actions.shape[1]), []
    for t in range(actions.shape[2]):
        futures = imagination.extend(futures, actions[:, :, t].flatten(0, 1))
        states.append(futures.state)
    return states


def draw(house, rows, several, steps, seed=3):
    size = house.world.spec.actions.size
    picked = chance.integers(chance.keys(seed, rows, 0), "test", size, several, steps)
    return torch.nn.functional.one_hot(picked, size).float()


def test_where_the_model_is_the_emulator_training_has_its_snapshots():
    atari = {"world": {"id": "ALE/Breakout-v5", "num_envs": 2}, **MIND}
    for kind in ("clairvoyant", "fair"):
        tree = {**atari, "world_model": {"kind": kind}}
        house = assemble(tree, known_kinds(), training=True)
        assert isinstance(house.world, Simulator)
    assert not isinstance(assemble(atari, known_kinds(), training=True).world, Simulator)


@pytest.mark.parametrize("world", ["ALE/Breakout-v5", "CartPole-v1"])
def test_the_clairvoyant_is_never_surprised(world):
    house = made(world, "clairvoyant")
    # The expectation holds the latent as well: frame stacks and tokens must be exact.
    surprises = [float(m.surprise) for m in live(house.agent, house.world, 60, 1)]
    assert max(surprises) < 1e-6


@pytest.mark.parametrize(("world", "steps"), [("ALE/Breakout-v5", 30), ("CartPole-v1", 1)])
def test_what_the_clairvoyant_imagines_comes_true(world, steps):
    house = made(world, "clairvoyant", rows=2)
    situation, imagination, _ = present(house, steps=steps)
    actions = draw(house, 2, 1, 6)
    states = [imagination.start()]
    for t in range(6):
        states.append(imagination.step(states[-1], actions[:, 0, t]))
    # Other futures imagined in between must not disturb this one, nor the world.
    imagination.rollout(draw(house, 2, 3, 5, seed=9))
    seen = house.agent.modules.world_model.complete(states[-1]).latent
    agent, signals = house.agent, []
    for t in range(6):
        observation = house.world.step(actions[:, 0, t])
        signals.append(observation.signals)
        moment = agent.step(observation)
    for imagined, real in zip(states[1:], signals, strict=True):
        torch.testing.assert_close(imagined.signals, real)
    torch.testing.assert_close(seen, moment.state.latent)
    assert situation.batch == 2


def test_imagining_leaves_the_world_as_it_was():
    lives = []
    for several in (0, 4):
        house = made("ALE/Breakout-v5", "fair")
        _, imagination, _ = present(house, steps=10)
        if several:
            imagination.rollout(draw(house, 1, several, 6))
        frames = [house.world.step(a).pixels for a in draw(house, 1, 1, 20)[:, 0].unbind(1)]
        lives.append(torch.stack(frames))
    assert bool((lives[0] == lives[1]).all())


def test_the_fair_one_does_not_foresee_the_luck_of_the_clairvoyant():
    latents = {}
    for kind in ("clairvoyant", "fair"):
        house = made("ALE/Breakout-v5", kind)
        _, imagination, _ = present(house)
        model = house.agent.modules.world_model
        states = states_of(imagination, draw(house, 1, 2, 12))
        latents[kind] = torch.stack([model.complete(state).latent for state in states])
    assert bool((latents["clairvoyant"] != latents["fair"]).any())


def watched(model):
    """The seeds that its simulator gets, in order, until `del model.simulator.simulate`."""
    seeds, simulate = [], model.simulator.simulate

    def watch(handle, action, seed):
        seeds.append(seed)
        return simulate(handle, action, seed)

    model.simulator.simulate = watch
    return seeds


def test_fair_luck_is_the_same_again_for_the_same_step_and_differs_between_futures():
    house = made("ALE/Breakout-v5", "fair")
    _, imagination, _ = present(house)
    model = house.agent.modules.world_model
    seeds = watched(model)
    actions = draw(house, 1, 4, 4)
    first = imagination.rollout(actions)
    count = len(seeds)
    again = imagination.rollout(actions)
    del model.simulator.simulate
    assert len(seeds) == count, "remembered, not stepped again"
    assert len(set(seeds)) == count
    assert first.state.hidden.tolist() == again.state.hidden.tolist()
    assert imagination.model_calls.tolist() == [32], "counted all the same"


def test_a_row_has_the_same_fair_luck_alone_as_beside_others():
    house = made("ALE/Breakout-v5", "fair", rows=3)
    _, imagination, _ = present(house)
    model = house.agent.modules.world_model
    seeds = watched(model)
    actions = draw(house, 3, 4, 5)
    model._clear()
    imagination.rollout(actions)
    together = sorted(seeds)
    seeds.clear()
    for row in range(3):
        model._clear()
        imagination.select(torch.tensor([row])).rollout(actions[row : row + 1])
    del model.simulator.simulate
    assert sorted(seeds) == together


def test_rows_imagine_from_where_they_are_themselves():
    house = made("CartPole-v1", "clairvoyant", rows=3)
    _, imagination, _ = present(house, steps=6)
    model = house.agent.modules.world_model
    actions = draw(house, 3, 1, 2)[:, 0]
    model._clear()
    part = imagination.select(torch.tensor([2, 0]))
    some = part.step(part.start(), actions[[2, 0], 0])
    whole = imagination.step(imagination.start(), actions[:, 0])
    assert some.hidden.flatten().tolist() == whole.hidden[[2, 0]].flatten().tolist()
    seen = model.complete(some).latent
    moment = house.agent.step(house.world.step(actions[:, 0]))
    torch.testing.assert_close(seen, moment.state.latent[[2, 0]])
    assert len({tuple(row) for row in moment.state.latent.tolist()}) == 3


def test_nothing_moves_once_an_episode_is_over():
    house = made("CartPole-v1", "clairvoyant")
    _, imagination, _ = present(house, steps=2)
    push = torch.nn.functional.one_hot(torch.ones(1, 1, 30, dtype=torch.int64), 2).float()
    states = states_of(imagination, push)
    ended = torch.stack([state.ended for state in states])[:, 0]
    assert 0 < float(ended.sum()) < 30
    assert bool((ended.diff() >= 0).all()), "over stays over"
    assert states[-1].hidden.tolist() == states[-2].hidden.tolist()


def test_ids_are_equal_where_emulator_states_are_and_latents_wait_for_complete():
    house = made("ALE/Breakout-v5", "clairvoyant")
    _, imagination, _ = present(house, steps=10)
    model = house.agent.modules.world_model
    # The ball is not yet served: FIRE (1) differs from NOOP (0); NOOP again is the same state.
    noop, fire = torch.eye(4)[0], torch.eye(4)[1]
    actions = torch.stack([noop, noop, fire]).view(1, 3, 1, 4)
    (state,) = states_of(imagination, actions)
    ids, hidden = imagination.state_ids(state), state.hidden[:, 0]
    assert ids[0] == ids[1] != ids[2]
    assert hidden[0] == hidden[1] != hidden[2]
    assert bool(state.latent.isnan().all())
    assert bool(model.complete(state).latent.isfinite().all())
    # Where drives read latents, these are compared.
    house.agent.modules.cost.needs_latent = lambda: True
    assert imagination.state_ids(state) is None


def test_a_world_that_cannot_be_imagined_from_is_refused():
    for kind in (Clairvoyant, Fair):
        with pytest.raises((ConfigError, WorldError), match=r"world_model\.kind"):
            kind(
                live_world=object(),
                latent_size=4,
                world=made("CartPole-v1", "fair").world.spec,
                encode_frame=None,
            )
