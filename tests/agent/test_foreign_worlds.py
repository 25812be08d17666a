"""Worlds of other packages: their spaces as they are read, and how they are found."""

import json
import sys
from importlib import metadata

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agent import load, play
from agent.api.train import train
from agent.api.training import training_config
from agent.assembly import replay_memory
from agent.assembly.build import describe, known_kinds
from agent.assembly.load import request_for
from agent.cli import main
from modules.messages import ConfigError
from tests.worlds.foreign_spaces import ACTIONS, BYTES, OBSERVATIONS, Shown, newest_stacked
from worlds import catalog, edge
from worlds.catalog import Game, find
from worlds.make import make_world, world_spec
from worlds.spaces import ActionCodec, ObservationCodec


@pytest.fixture
def world():
    """A function that registers a world of any spaces until the test ends, and returns its id."""
    ids = []

    def add(observation, action=None):
        id = f"SextetShown{len(ids)}-v0"
        arguments = {"observation": observation, "action": action}
        gymnasium.register(id, Shown, kwargs=arguments)
        ids.append(id)
        return id

    yield add
    for id in ids:
        del gymnasium.registry[id]


QUICK = ("perception.frame_size=40", "configurator.kind=fixed", "configurator.mode=1")

# -- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "gray", "colour"),
    [
        (spaces.Box(shape=(4, 48, 64), **BYTES), 4, 4),
        (spaces.Box(shape=(48, 64, 4), **BYTES), 4, 4),
        (spaces.Box(shape=(64, 64, 6), **BYTES), 6, 6),
        (spaces.Box(shape=(4, 48, 64, 3), **BYTES), 4, 12),
        (spaces.Box(shape=(4, 3, 48, 64), **BYTES), 4, 12),
        (spaces.Box(0, 255, (48, 64, 3), np.float32), 1, 3),
        (spaces.Box(0, 1, (48, 64, 3), np.float32), 1, 3),
        (spaces.Box(0, 255, (48, 64), np.int64), 1, 1),
    ],
)
def test_all_channels_reach_the_perception(world, space, gray, colour):
    id = world(space)
    assert world_spec(id).pixels[2] == colour
    assert load(id, *QUICK).world.spec.pixels == (40, 40, gray)
    player = load(id, *QUICK, "perception.grayscale=false")
    assert player.world.spec.pixels == (40, 40, colour)
    (moment,) = player.live(1)
    assert moment.state.latent.isfinite().all()


def test_the_newest_of_four_stacked_frames_is_seen():
    sensor = {"height": 40, "width": 40, "gray": True}
    world, env = make_world("SextetNewest4-v0", sensor=sensor), newest_stacked()
    shown = world.reset(0).pixels[0]
    assert shown.shape == (40, 40, 4)
    env.reset(seed=0)
    for side in (0, 1):
        frames = np.full((4, 64, 64), 40, np.uint8)
        frames[3, 16:48, 32 * side : 32 * side + 32] = 220
        read = world._observations.encode(frames).array
        assert read[20, [5, 35], 3].tolist() == [[220, 40], [40, 220]][side]
        assert (read[:, :, :3] == 40).all()


@pytest.mark.parametrize("shape", [(48, 64, 3), (3, 48, 64), (2, 48, 64, 3), (2, 3, 48, 64)])
def test_pictures_are_the_same_in_any_order_of_axes(shape):
    picture = np.random.default_rng(0).integers(256, size=(48, 64, 3)).astype(np.uint8)
    shown = picture if shape[-1] == 3 else picture.transpose(2, 0, 1)
    if len(shape) == 4:
        shown = np.stack([shown, 255 - shown])
    codec = ObservationCodec("X", spaces.Box(shape=shape, **BYTES), None)
    read = codec.encode(shown).array
    assert codec.pixels == read.shape == (48, 64, 3 * (len(shape) - 2))
    assert (read[:, :, :3] == picture).all()
    assert not np.may_share_memory(read, shown)


def test_float_pictures_keep_their_shades():
    for high in (1, 255):
        picture = np.linspace(0, high, 64 * 64, dtype=np.float32).reshape(64, 64)
        codec = ObservationCodec("X", spaces.Box(0, high, (64, 64), np.float32), None)
        read = codec.encode(picture).array[:, :, 0]
        assert read.dtype == np.uint8
        assert np.allclose(read, picture / high * 255, atol=0.51)


# -- the perception decides ---------------------------------------------------------------------


@pytest.mark.parametrize("side", [6, 8, 19, 25])
def test_all_sizes_of_a_grid_of_codes_are_read_alike(world, side):
    id = world(spaces.Box(shape=(side, side, 3), **BYTES))
    spec = world_spec(id)
    assert spec.pixels is None
    assert spec.vector == side * side * 3 * 17
    assert "codes, one-hot" in spec.readings[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [6, 8])
def test_the_grids_of_minigrid_are_codes(side):
    """Without the extra `[worlds]` it skips."""
    wrappers = pytest.importorskip("minigrid.wrappers")
    inner = gymnasium.make(f"MiniGrid-DoorKey-{side}x{side}-v0")
    env = wrappers.ImgObsWrapper(wrappers.FullyObsWrapper(inner))
    codec = ObservationCodec("X", env.observation_space, None)
    assert codec.vector == side * side * 3 * 17
    assert codec.encode(env.reset(seed=0)[0]).array.reshape(-1, 17)[:, :16].sum(1).min() == 1
    whole = ObservationCodec("X", inner.observation_space, None)
    assert whole.encode(inner.reset(seed=0)[0]).array.shape == (whole.vector,)
    assert "mission: text" in whole.description


def test_codes_are_one_hot_and_none_are_alike():
    few = ObservationCodec("X", spaces.Box(2, 6, (2, 2), np.int64), None)
    assert few.encode(np.array([[2, 3], [4, 6]])).array.reshape(4, 5).argmax(1).tolist() == [
        0, 1, 2, 4,
    ]  # fmt: skip
    grid = ObservationCodec("X", spaces.Box(shape=(16, 16), **BYTES), None)
    read = grid.encode(np.arange(256, dtype=np.uint8).reshape(16, 16)).array.reshape(256, -1)
    assert len(np.unique(read, axis=0)) == 256
    assert read[:16].argmax(1).tolist() == list(range(16))
    mask = ObservationCodec("X", spaces.Box(0, 1, (3, 3, 4), np.bool_), None)
    assert mask.vector == 36


@pytest.mark.parametrize("seen", ["grid of codes", "uint8 picture", "float picture to 255"])
def test_the_perception_asked_for_decides(world, seen):
    id = world(OBSERVATIONS[seen])
    vectors = load(id, "perception.kind=vectors", *QUICK[1:])
    assert vectors.world.spec.pixels is None
    (moment,) = vectors.live(1)
    assert moment.observation.vector.abs().max() <= 1
    pixels = load(id, "perception.kind=pixels-small", *QUICK)
    assert pixels.world.spec.pixels[:2] == (40, 40)
    assert load(id, *QUICK[1:]).world.spec.vector == (None if "picture" in seen else 48 * 17)


def test_training_takes_the_preset_for_what_the_perception_reads(world):
    id = world(OBSERVATIONS["uint8 picture"])
    tree = training_config(request_for(id, ["perception.kind=vectors"]))
    assert tree["perception"] == {"kind": "vectors"}
    assert tree["memory"]["capacity"] == 50_000  # that of learn-actions
    assert training_config(request_for(id))["perception"]["kind"] == "pixels-nature"


def test_pictures_with_continuous_actions_are_learned_by_a_model_of_pictures(world):
    id = world(OBSERVATIONS["uint8 picture"], ACTIONS["Box"])
    tree = training_config(request_for(id))
    assert tree["perception"]["kind"] == "pixels-small"
    assert tree["actor"]["planner"]["kind"] == "cem"
    assert describe(tree, known_kinds()).slots["world_model"].inner["objective"].kind == "vicreg"


def test_pixels_of_what_shows_none_are_refused(world):
    id = world(spaces.MultiDiscrete([3, 4]))
    with pytest.raises(ConfigError, match=r"expected pictures.*try perception.kind=vectors"):
        load(id, "perception.kind=pixels-small")


# -- nested and discrete spaces -----------------------------------------------------------------


def test_a_nested_space_is_the_sequence_of_its_parts():
    space = spaces.Dict(
        image=spaces.Box(0, 9, (2, 2), np.uint8),
        inner=spaces.Tuple((spaces.Discrete(3, start=1), spaces.MultiBinary(2))),
        speed=spaces.Box(-np.inf, np.inf, (2,)),
    )
    codec = ObservationCodec("X", space, None)
    assert codec.vector == 4 * 10 + 3 + 2 + 2
    value = {
        "image": np.array([[0, 1], [2, 9]], np.uint8),
        "inner": (3, np.array([1, 0], np.int8)),
        "speed": np.array([7.0, -7.0], np.float32),
    }
    read = codec.encode(value).array
    assert read[:40].reshape(4, 10).argmax(1).tolist() == [0, 1, 2, 9]
    assert read[40:].tolist() == [0, 0, 1, 1, 0, 7, -7]
    for key in space.spaces:
        assert f"{key}: " in codec.description


class Mission(spaces.Space):
    """Strings of a package of its own, as MiniGrid's missions are."""

    def __init__(self):
        super().__init__((), str)

    def sample(self, mask=None, probability=None):
        return "get the key"


def test_texts_differ_by_their_words_and_the_order_of_those():
    codec = ObservationCodec("X", spaces.Dict(mission=Mission()), None)
    missions = (
        "put the red ball by the blue box",
        "put the blue ball by the red box",
        "put the red ball by the blue",
        "",
    )
    read = [codec.encode({"mission": text}).array for text in missions]
    assert len({one.tobytes() for one in read}) == len(missions)
    assert (read[0] == codec.encode({"mission": missions[0].upper()}).array).all()


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiDiscrete([[2, 3], [2, 1]], start=[[5, 5], [0, -1]]),
        spaces.MultiBinary((2, 2)),
        spaces.Dict(jump=spaces.Discrete(2), to=spaces.Tuple((spaces.MultiDiscrete([2, 3]),))),
    ],
)
def test_every_combination_of_discrete_actions_can_be_chosen_once(space):
    codec = ActionCodec("X", space)
    elements = [codec.to_env(native) for native in range(codec.spec.size)]
    assert all(space.contains(element) for element in elements)
    assert len({repr(element) for element in elements}) == codec.spec.size
    factors = codec.spec.factor_matrix()
    assert len(torch.unique(factors, dim=0)) == codec.spec.size
    assert (codec.effort(0), codec.effort(1)) == (0, 1)


def test_a_dict_of_boxes_is_one_continuous_action():
    space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(0, 4, (1,), np.int32))
    codec = ActionCodec("X", space)
    assert codec.spec.high == (1, 1, 4)
    element = codec.to_env(np.array([0.5, -0.5, 2.6]))
    assert space.contains(element)
    assert element["b"].tolist() == [3]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.MultiBinary(11), "at most 1024 combinations of discrete actions, got 2048"),
        (spaces.Discrete(40_000), "at most 32767"),
        (spaces.Box(-np.inf, np.inf, (2,)), "finite bounds"),
        (spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (2,)), "finite bounds"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1))), "all discrete .* or all in a Box"),
    ],
)
def test_actions_without_sense_are_refused_with_what_to_try(space, words):
    with pytest.raises(ConfigError, match=f"{words}.*wrap") as caught:
        ActionCodec("X", space)
    assert "\n" not in str(caught.value)


# -- what is said, and the replay ---------------------------------------------------------------


def test_what_a_world_was_taken_for_is_said_once_and_kept(world, tmp_path, capsys):
    id = world(OBSERVATIONS["grid of codes"])
    order = ["train", id, "--steps", "8", "--no-live", "--training.evaluate_episodes=1"]
    with pytest.raises(SystemExit) as ended:
        main([*order, "--seeds", "0,1", "--run", str(tmp_path / "seeds")])
    assert ended.value.code == 0
    notes = capsys.readouterr().err
    for title in ("observes", "acts", "replay"):
        assert notes.count(f"note      {title}") == 1
    kept = json.loads((tmp_path / "seeds/seed-1/world.json").read_text())
    assert "codes, one-hot" in kept["readings"][0]
    assert kept["replay"]["bytes"] == 8 * kept["replay"]["bytes_per_step"]
    run = play(id, *QUICK[1:], steps=3, run=tmp_path / "play")
    assert json.loads((run.folder / "world.json").read_text())["readings"] == kept["readings"]


def test_the_memory_of_a_replay_is_computed_as_it_is_used(world):
    for seen in ("uint8 picture", "grid of codes", "goal"):
        player = load(world(OBSERVATIONS[seen]), *QUICK[seen != "uint8 picture" :])
        ring = player.agent.modules.memory
        list(player.live(3))
        counted = ring.bytes_a_step(ring.config, player.world.spec)
        assert counted == pytest.approx(ring.bytes_per_step, rel=0.01)


def test_a_replay_larger_than_the_machine_is_refused_before_it_is_allocated(
    world, monkeypatch, tmp_path
):
    monkeypatch.setattr(replay_memory, "machine_bytes", lambda: 10_000_000)
    id = world(spaces.Box(shape=(64, 64, 6), **BYTES))
    with pytest.raises(ConfigError, match=r"memory.capacity: .* 10 MB .*, 406 at most") as caught:
        train(id, steps=5000, run=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    load(id, *QUICK, "memory.capacity=400")


def test_machine_memory_is_that_of_the_cgroup_where_it_is_less(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(replay_memory, "_LIMITS", (str(limit), str(tmp_path / "absent")))
    whole = replay_memory.machine_bytes()
    limit.write_text("max\n")
    assert replay_memory.machine_bytes() == whole
    limit.write_text("4096\n")
    assert replay_memory.machine_bytes() == 4096


@pytest.mark.parametrize("space", [spaces.Discrete(1_000_000), spaces.Box(-1, 1, (400, 400))])
def test_a_huge_vector_is_refused(space):
    with pytest.raises(ConfigError, match=r"1 to 131072 numbers, got .*wrap"):
        ObservationCodec("X", space, None, "vectors")


# -- finding worlds -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, empty; what is imported from it is forgotten when the test ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", ".")])
    ids, modules = set(gymnasium.registry), set(sys.modules)
    yield tmp_path
    for id in set(gymnasium.registry) - ids:
        del gymnasium.registry[id]
    for name in set(sys.modules) - modules:
        if name.startswith("mine"):
            del sys.modules[name]


MINE = (
    "import gymnasium\ngymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:CartPoleEnv')"
)


def test_a_module_in_the_current_folder_is_found(folder):
    (folder / "mine.py").write_text(MINE)
    assert make_world("mine:Mine-v0").reset(0).vector.shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import mine_missing_part", "'mine_broken' needs 'mine_missing_part', which is not inst"),
        ("def broken(:", r"'mine_broken' cannot be imported \(SyntaxError: .*mine_broken.py, line"),
        ("1 / 0", r"'mine_broken' cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("raise SystemExit(0)", r"'mine_broken' cannot be imported \(SystemExit: 0\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_what_failed(folder, text, words):
    (folder / "mine_broken.py").write_text(text)
    with pytest.raises(
        ConfigError, match=f"world 'mine_broken:Mine-v0': package {words}"
    ) as caught:
        find("mine_broken:Mine-v0")
    assert "\n" not in str(caught.value)
    assert "install 'mine_broken'" not in str(caught.value)


def test_packages_are_found_by_their_entry_points_and_those_that_raise_are_passed_over(
    folder, monkeypatch
):
    (folder / "mine_offered.py").write_text(f"def register():\n    {MINE.replace(chr(10), '; ')}")
    (folder / "mine_raises.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(folder))
    group, loaded, lines = catalog._OFFERS[0], [], []
    points = [
        metadata.EntryPoint("raising", "mine_raises:register", group),
        metadata.EntryPoint("__root__", "mine_offered:register", group),
        metadata.EntryPoint("spaced", "mine_offered:register", group),
    ]

    def entry_points(group):
        loaded.append(group)
        return [point for point in points if point.group == group]

    monkeypatch.setattr(catalog.metadata, "entry_points", entry_points)
    monkeypatch.setattr(edge, "note", lines.append)
    catalog._load_offered.cache_clear()
    try:
        find("CartPole-v1")
        assert not loaded
        assert find("Mine-v0") == "Mine-v0"
        assert find("spaced/Mine-v0") == "spaced/Mine-v0"
        (line,) = lines
        assert "'raising' are passed over" in line
        assert "ZeroDivisionError" in line
        with pytest.raises(ConfigError, match="Did you mean 'Mine-v0'"):
            find("Mien-v0")
    finally:
        catalog._load_offered.cache_clear()


def test_a_qualified_atari_name_is_the_game():
    assert find("ale_py:ALE/Breakout-v5") == find("ALE/Breakout-v5") == Game("Breakout", "breakout")
    assert make_world("ale_py:ALE/Pong-v5").spec.protocol == "v5"


@pytest.mark.parametrize(
    ("id", "stood_for"),
    [
        ("Breakout-v4", "2 to 5 frames a step, no sticky actions"),
        ("Breakout-v0", "2 to 5 frames a step, sticky actions"),
        ("BreakoutNoFrameskip-v4", "1 frame a step, no sticky actions"),
        ("BreakoutDeterministic-v4", "4 frames a step, no sticky actions"),
        ("Breakout-ramNoFrameskip-v4", "the 128 bytes of memory"),
        ("ALE/Breakout-ram-v5", "the 128 bytes of memory"),
    ],
)
def test_an_old_atari_id_is_refused_with_the_new_one_and_what_it_stood_for(id, stood_for):
    for name in (id, f"ale_py:{id}"):
        with pytest.raises(ConfigError, match="Did you mean 'ALE/Breakout-v5'") as caught:
            find(name)
        assert stood_for in str(caught.value)
        assert "\n" not in str(caught.value)
