import itertools

import numpy as np
import pytest
import torch

from modules.messages import SIGNALS, WorldError
from modules.ports import Simulator, World
from worlds.atari_rows import joystick
from worlds.make import list_games, make_world

EYE = {"height": 84, "width": 84, "gray": True}
FIELDS = ("pixels", "signals", "first", "terminated", "truncated")
SCORE, LIFE_LOST, LIVES, END, EFFORT = (SIGNALS.index(n) for n in SIGNALS[:5])


def actions(world, steps, seed=0):
    """Random encoded actions, one [B A] a step."""
    generator = torch.Generator().manual_seed(seed)
    native = torch.randint(world.spec.actions.size, (steps, world.num_envs), generator=generator)
    return world.spec.actions.encode(native).unbind(0)


def same(one, other):
    return all(torch.equal(getattr(one, f), getattr(other, f)) for f in FIELDS)


def play(world, chosen):
    return [world.step(action) for action in chosen]


@pytest.mark.parametrize(
    ("game", "protocol", "more"),
    [
        ("breakout", "v5", {}),
        ("breakout", "100k", {"chapter_steps": 60}),
        ("assault", "v5", {"episode_steps": 70, "chapter_steps": 100}),
        ("assault", "100k", {"chapter_steps": 0, "episode_steps": 90}),
        ("berzerk", "v5", {"episode_steps": 60}),
        ("berzerk", "100k", {}),
        ("backgammon", "v5", {"episode_steps": 40}),  # its action set has no no-op
    ],
)
def test_both_implementations_give_equal_observations(game, protocol, more):
    worlds = [
        make_world(game, 2, protocol, EYE, vector=vector, training=True, **more)
        for vector in (False, True)
    ]
    assert worlds[0].spec == worlds[1].spec
    ends = 0
    assert same(worlds[0].reset(11), worlds[1].reset(11))
    for step, action in enumerate(actions(worlds[0], 220)):
        one, other = worlds[0].step(action), worlds[1].step(action)
        assert same(one, other), step
        ends += int(one.ended.sum())
    assert ends >= 2
    for world in worlds:
        world.close()


@pytest.mark.parametrize("sensor", [None, {**EYE, "max_pool": False}, {"gray": False}])
def test_both_implementations_give_equal_frames_for_every_sensor(sensor):
    rows, vector = (make_world("krull", 1, "v5", sensor, vector=v) for v in (False, True))
    assert same(rows.reset(0), vector.reset(0))
    for action in actions(rows, 12):
        assert same(rows.step(action), vector.step(action))
    assert rows.spec.pixels == (
        (210, 160, 3) if sensor is None else (84, 84, 1 if "height" in sensor else 3)
    )
    assert rows.render().shape == (1, 210, 160, 3)
    assert rows.render().dtype is torch.uint8


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("protocol", ["v5", "100k"])
def test_a_snapshot_continues_bit_for_bit(vector, protocol):
    world = make_world("breakout", 2, protocol, EYE, vector, True, episode_steps=60)
    begun = world.reset(4)
    at_reset, after_reset = world.snapshot(), play(world, actions(world, 8))
    play(world, actions(world, 82, seed=1))
    observed = world.step(actions(world, 1)[0])
    snapshot = world.snapshot()
    future = play(world, actions(world, 60, seed=2))
    assert any(bool(o.ended.any()) for o in future)
    again = make_world("breakout", 2, protocol, EYE, vector, True, episode_steps=60)
    for restored in (world, again):
        assert same(restored.restore(snapshot), observed)
        assert restored.snapshot() == snapshot
        assert all(map(same, play(restored, actions(world, 60, seed=2)), future))
        assert same(restored.restore(at_reset), begun)
        assert all(map(same, play(restored, actions(world, 8)), after_reset))


@pytest.mark.parametrize("game", ["qbert", "tetris"])
def test_a_state_just_after_a_reset_and_one_later_are_both_exact(game):
    # These games read the console's reset switch, which no ALEState stores.
    world, other = make_world(game, 1, "v5", EYE), make_world(game, 1, "v5", EYE)
    world.reset(1)
    for steps in (0, 6):
        play(world, actions(world, steps))
        snapshot = world.snapshot()
        future = play(world, actions(world, 6, seed=3))
        other.restore(snapshot)
        assert all(map(same, play(other, actions(world, 6, seed=3)), future))
        world.restore(snapshot)
        handle = world.save_state(0)
        for action, observed in zip(actions(world, 6, seed=3), future, strict=True):
            handle = world.simulate(handle, int(action.argmax()), None).handle
            assert (world.render_observation(handle) == observed.pixels[0].numpy()).all()


def test_a_damaged_or_foreign_snapshot_is_refused_in_one_line():
    world = make_world("pong", 1, "v5", EYE)
    with pytest.raises(WorldError, match="reset"):
        world.snapshot()
    world.reset(0)
    data = world.snapshot()
    for at in (3, 40, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 4
        with pytest.raises(WorldError, match="checksum") as caught:
            world.restore(bytes(damaged))
        assert "\n" not in str(caught.value)
    for short in (b"", data[:31], data[:-1]):
        with pytest.raises(WorldError, match="checksum"):
            world.restore(short)
    with pytest.raises(WorldError, match="snapshot protocol: expected '100k', got 'v5'"):
        make_world("pong", 1, "100k", EYE).restore(data)


@pytest.mark.parametrize(("protocol", "training"), [("v5", False), ("100k", True)])
def test_the_clairvoyant_simulator_predicts_the_next_step(protocol, training):
    world = make_world("breakout", 2, protocol, EYE, training=training)
    assert isinstance(world, World)
    assert isinstance(world, Simulator)
    world.reset(2)
    ends = 0
    for action in actions(world, 150):
        handles = [world.save_state(row) for row in range(2)]
        native = action.argmax(-1).tolist()
        simulated = [world.simulate(h, a, None) for h, a in zip(handles, native, strict=True)]
        [world.simulate(h, 3 - a, 7) for h, a in zip(handles, native, strict=True)]
        observed = world.step(action)
        for row, (handle, sim_step) in enumerate(zip(handles, simulated, strict=True)):
            if handle.ended:
                assert sim_step.handle is handle
                assert sim_step.ended
                assert sim_step.signals[SCORE] == sim_step.signals[END] == 0
                continue
            ends += sim_step.ended
            assert torch.equal(torch.tensor(sim_step.signals), observed.signals[row])
            assert sim_step.ended == bool(observed.ended[row])
            assert (world.render_observation(sim_step.handle) == observed.pixels[row].numpy()).all()
    assert ends


def test_simulated_steps_equal_real_ones_and_leave_the_game_unchanged():
    world, undisturbed = (make_world("seaquest", 1, "v5", EYE) for _ in range(2))
    world.reset(6)
    undisturbed.reset(6)
    play(world, actions(world, 20))
    play(undisturbed, actions(world, 20))
    handle, chosen = world.save_state(0), actions(world, 50, seed=5)
    frames = []
    for action in chosen:
        handle = world.simulate(handle, int(action.argmax()), None).handle
        frames.append(world.render_observation(handle).copy())
    for action, frame in zip(chosen, frames, strict=True):
        observed = world.step(action)
        assert same(observed, undisturbed.step(action))
        assert (observed.pixels[0].numpy() == frame).all()


def test_fair_randomness_is_a_function_of_the_seed():
    world = make_world("boxing", 1, "v5", EYE)
    world.reset(0)
    start = world.save_state(0)

    def simulate(first):
        handle = start
        for step in range(8):
            handle = world.simulate(handle, (step % 4) + 2, first + step).handle
        return handle

    ends = [simulate(seed) for seed in range(0, 80, 8)]
    assert len({hash(end) for end in ends}) > 1
    assert all(simulate(seed) == end for seed, end in zip(range(0, 80, 8), ends, strict=True))
    assert ends[0] != ends[1] or ends[0] != ends[2]


def test_actions_stick_with_the_same_probability_fair_and_clairvoyant():
    from worlds.atari_rng import Tape, sticks_from

    drawn = [sum(sticks_from(seed, 4, 0.25)) for seed in range(4000)]
    assert np.mean(drawn) == pytest.approx(1.0, abs=0.06)
    assert np.mean(list(Tape(5, 0.25).sticks(0, 16000))) == pytest.approx(0.25, abs=0.015)
    assert not any(sticks_from(1, 4, 0.0))
    assert not any(Tape(1, 0.0).sticks(0, 4))


def test_equal_states_are_equal_handles():
    world = make_world("pong", 1, "100k", EYE)
    world.reset(0)
    start = world.save_state(0)
    noop, right, again = (world.simulate(start, action, None).handle for action in (0, 2, 0))
    assert noop == again
    assert noop is not again
    assert hash(noop) == hash(again)
    assert world.simulate(noop, 2, None).handle != world.simulate(noop, 3, None).handle
    assert right.raw.shape == (210, 160)


def test_next_step_autoreset_against_a_loop_over_one_emulator():
    # The oracle is ALE alone, with its own sticky actions and random numbers.
    from ale_py import ALEInterface, roms

    from worlds.atari_rng import chapter_seed

    world = make_world("breakout", 2, "v5", chapter_steps=0)
    world.reset(9)
    chosen = actions(world, 200)
    observed = play(world, chosen)
    for row in range(2):
        chapter = itertools.count()
        ale, playing = ALEInterface(), False
        ale.setFloat("repeat_action_probability", 0.25)

        def begin(ale=ale, row=row, chapter=chapter):
            ale.setInt("random_seed", chapter_seed(9, row, next(chapter)))
            ale.loadROM(roms.get_rom_path("breakout"))
            ale.reset_game()

        begin()
        playing, ended = True, 0
        minimal = ale.getMinimalActionSet()
        for action, observation in zip(chosen, observed, strict=True):
            signals = observation.signals[row]
            assert bool(observation.first[row]) is not playing
            if not playing:
                begin()
                playing = True
                assert signals.tolist() == [0, 0, ale.lives(), 0, 0, 0]
                assert not observation.ended[row]
                assert (observation.pixels[row].numpy() == ale.getScreenRGB()).all()
                continue
            lives, reward, choice = ale.lives(), 0, int(action[row].argmax())
            for _ in range(4):
                reward += ale.act(minimal[choice])
                if ale.game_over():
                    break
            playing = not ale.game_over()
            ended += not playing
            assert signals[SCORE] == reward
            assert signals[LIFE_LOST] == (ale.lives() < lives)
            assert signals[LIVES] == ale.lives()
            assert bool(observation.terminated[row]) is not playing
            assert signals[END] == (not playing)
            assert signals[EFFORT] == (choice != 0)
            if playing:
                pixels = observation.pixels[row].numpy()
                assert (pixels == ale.getScreenRGB()).all()
        assert ended


@pytest.mark.parametrize("vector", [False, True])
def test_truncation_keeps_the_last_observation_and_does_not_end_the_game(vector):
    cut = make_world("pong", 1, "v5", EYE, vector, episode_steps=5)
    free = make_world("pong", 1, "v5", EYE, vector)
    cut.reset(3)
    free.reset(3)
    chosen = actions(cut, 7)
    observed = play(cut, chosen)
    whole = play(free, chosen)
    assert [bool(o.truncated[0]) for o in observed] == [False] * 4 + [True] + [False] * 2
    assert [bool(o.first[0]) for o in observed] == [False] * 5 + [True] + [False]
    assert not any(bool(o.terminated[0]) or o.signals[0, END] for o in observed)
    assert torch.equal(observed[4].pixels, whole[4].pixels)


@pytest.mark.parametrize("vector", [False, True])
def test_a_lost_life_ends_an_episode_in_training_alone_and_the_game_continues(vector):
    world = make_world("breakout", 1, "100k", EYE, vector, training=True)
    evaluated = make_world("breakout", 1, "100k", EYE, vector)
    world.reset(1)
    evaluated.reset(1)
    lives, previous = [], None
    for action in actions(world, 160):
        observed = world.step(action)
        signals = observed.signals[0]
        whole = evaluated.step(action)
        assert bool(whole.terminated[0]) == bool(whole.signals[0, END])
        if previous is not None and bool(previous.terminated[0]):
            assert bool(observed.first[0])
            if not previous.signals[0, END]:
                assert signals[LIVES] == previous.signals[0, LIVES]
        else:
            assert bool(observed.terminated[0]) == bool(signals[LIFE_LOST] or signals[END])
        lives.append(int(signals[LIVES]))
        previous = observed
    assert {4, 3, 2, 1} <= set(lives)


def test_rows_are_independent():
    one, three = make_world("breakout", 1, "v5", EYE), make_world("breakout", 3, "v5", EYE)
    assert torch.equal(one.reset(5).pixels, three.reset(5).pixels[:1])
    for action in actions(three, 80):
        assert torch.equal(one.step(action[:1]).pixels, three.step(action).pixels[:1])


def test_observations_are_a_function_of_the_seed():
    world = make_world("pong", 1, "v5", EYE)
    lives = []
    for seed in (1, 2, 1):
        world.reset(seed)
        lives.append(torch.stack([o.pixels for o in play(world, actions(world, 40))]))
    assert torch.equal(lives[0], lives[2])
    assert not torch.equal(lives[0], lives[1])


@pytest.mark.parametrize("id", ["ALE/Adventure-v5", "ALE/Backgammon-v5", "ALE/DoubleDunk-v5"])
def test_unusual_games_can_be_played(id):
    # A tall screen; an action set without no-op; a menu at reset.
    world = make_world(id, 1, "v5", EYE)
    world.reset(0)
    assert all(o.pixels.shape == (1, 84, 84, 1) for o in play(world, actions(world, 20)))


@pytest.mark.slow
@pytest.mark.parametrize("id", list_games())
def test_every_game_can_be_played_and_continued(id):
    world = make_world(id, 1, "v5", EYE)
    world.reset(0)
    play(world, actions(world, 20))
    snapshot = world.snapshot()
    future = play(world, actions(world, 8, seed=1))
    world.restore(snapshot)
    assert all(map(same, play(world, actions(world, 8, seed=1)), future))


def test_factors_of_actions_are_read_from_their_names():
    names = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert joystick(names) == (  # right, left, fire
        (0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1),
    )  # fmt: skip
    assert joystick(("NOOP", "FIRE", "RIGHT", "LEFT")) == ()
    assert joystick(()) == ()
