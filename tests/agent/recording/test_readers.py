"""Recordings of every form: read as they are, what is missing said, what does not fit refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from agent import train
from agent.api.export import export
from agent.api.recordings import form_of, sources_of
from agent.assembly.build import assemble, known_kinds
from agent.cli import gather_overrides, run
from agent.learning.offline_training import Sources
from agent.modules import initial_moment
from agent.recording.readers import Form, open_recording, remember
from agent.recording.readers.recording import encoded_actions
from modules.messages import SIGNALS, ActionSpec, TraceError

ROOMS = "sextet/TwoRooms-v0"
SMALL = {
    "world": {"id": ROOMS}, "perception": {"kind": "pixels-compact", "latent_size": 8},
    "memory": {"capacity": 400},
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def rooms():
    assembly = assemble(SMALL, known_kinds(), training=True)
    yield assembly
    assembly.world.close()


def pictures(place: str, count: int = 5, size: int = 65, first: int = 0, **beside: object) -> Path:
    folder = Path(place)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for number in range(first, first + count):
        frame = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"frame-{number:03}.png"), frame)
    for name, values in beside.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def filled(assembly, *paths: Path, experts: tuple[Path, ...] = ()):
    agent = assembly.agent
    agent.reset(1, 0)
    opened = Sources(paths, experts).opened()
    form = form_of(assembly)
    for recording, _ in opened:
        recording.require(form)
    remember(agent.memory, initial_moment(agent.modules, agent.world, 1), opened, form)
    return agent.memory


def test_folders_of_frames_are_episodes_and_lack_all_else(rooms):
    pictures("film/a")
    pictures("film/b", 7, first=3)
    recording = open_recording(Path("film"))
    assert (recording.episodes, recording.steps) == (2, 12)
    assert recording.lacks == ("actions", "rewards", "ends")
    memory = filled(rooms, Path("film"))
    stored = memory.tensors()
    frame = cv2.imread("film/b/frame-004.png")[..., ::-1]
    assert np.array_equal(stored["frames"][6].numpy(), frame)
    assert stored["began"].tolist() == [0] * 5 + [5] * 7
    assert stored["no_action"].all()
    assert stored["no_ends"].all()
    unknown = {SIGNALS[i] for i in stored["no_signals"].all(0).nonzero()[:, 0].tolist()}
    assert unknown == {"reward", "end", "effort", "novelty"}  # it has no lives to lose


def test_what_stands_beside_the_frames_is_read(rooms):
    actions = np.array([[0.5, -1], [1, 0], [0, 0.2], [0.1, 0.1]])
    native = actions * np.array(rooms.world.spec.actions.high)
    pictures("film", actions=native, rewards=np.arange(4.0), terminated=np.array(True))
    assert open_recording(Path("film")).lacks == ()
    stored = filled(rooms, Path("film")).tensors()
    assert torch.allclose(stored["actions"][:4], torch.tensor(actions).float(), atol=1e-6)
    assert stored["signals"][:, 0].tolist() == [0, 0, 1, 2, 3]
    assert stored["signals"][:, SIGNALS.index("end")].tolist() == [0, 0, 0, 0, 1]
    assert stored["terminated"].tolist() == [False] * 4 + [True]
    assert {SIGNALS[i] for i in stored["no_signals"].any(0).nonzero()[:, 0].tolist()} == {"novelty"}


def test_arrays_and_grey_pictures_are_pictures_too(rooms):
    folder = Path("film")
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (4, 65, 65, 3)).astype(np.uint8)
    for number, frame in enumerate(frames):
        np.save(folder / f"{number}.npy", frame)
    assert np.array_equal(filled(rooms, folder).tensors()["frames"].numpy(), frames)


def test_frames_as_the_world_shows_them_are_reduced_as_in_acting():
    tree = {"world": {"id": "boxing"}, "perception": {"kind": "pixels-small", "frame_size": 42}}
    assembly = assemble(tree, known_kinds(), training=False)
    world = assembly.world
    try:
        shown = assemble(
            {"world": {"id": "boxing"}, "perception": {"frame_size": 0}}, known_kinds()
        )
        first = shown.world.reset(0).pixels[0].numpy()
        own = world.reset(0).pixels[0]
        Path("film").mkdir()
        for number in range(2):
            cv2.imwrite(f"film/{number}.png", first[..., ::-1])
        stored = filled(assembly, Path("film")).tensors()["frames"][0]
        assert stored.shape == own.shape == (42, 42, 1)
        assert (
            stored.int() - own.int()
        ).abs().max() <= 2  # the emulator's own grey rounds otherwise
    finally:
        world.close()
        shown.world.close()


def test_a_film_is_one_episode(rooms, capfd):
    pytest.importorskip("imageio_ffmpeg")
    from agent.commands.video import Film

    still = torch.zeros(66, 66, 3, dtype=torch.uint8)
    with Film(Path("film.mp4")) as film:
        for shade in (0, 60, 120, 180):
            film.add(still + shade)
    recording = open_recording(Path("film.mp4"))
    assert (recording.steps, recording.episodes) == (4, 1)
    (episode,) = recording.episodes_in(Form(rooms.world.spec, shown=(462, 462, 3)))
    with pytest.raises(TraceError, match=r"expected a picture of 65×65×3, or 462×462×3 as .*, got"):
        recording.require(Form(rooms.world.spec, shown=(462, 462, 3)))
    assert episode.actions is None
    Path("bad.mp4").write_bytes(b"no film")
    with pytest.raises(TraceError, match=r"bad\.mp4: expected a video of at least 2 frames"):
        open_recording(Path("bad.mp4"))
    assert capfd.readouterr().err == ""


# -- refused --------------------------------------------------------------------------------------


def empty() -> None:
    Path("film").mkdir()


def missing() -> None:
    pictures("film")
    Path("film/frame-002.png").unlink()


def torn() -> None:
    pictures("film")
    Path("film/frame-002.png").write_bytes(b"\x89PNG no more")


def uneven() -> None:
    pictures("film")
    cv2.imwrite("film/frame-005.png", np.zeros((40, 65, 3), np.uint8))


BAD = {
    "an empty folder": (empty, "expected numbered pictures"),
    "nothing there": (lambda: None, "no such file"),
    "a missing file": (missing, "expected picture 2 after frame-001.png"),
    "a torn file": (torn, r"frame-002\.png: expected a picture"),
    "sizes that differ": (uneven, r"frame-005\.png: expected 65×65×3 as .* got 40×65×3"),
    "another size": (lambda: pictures("film", size=48), "expected a picture of 65×65×3, got 48"),
    "a single picture": (lambda: pictures("film", 1), "at least 2 pictures"),
    "actions beyond the bounds": (
        lambda: pictures("film", actions=np.full((4, 2), 99.0)), "actions: expected 2 numbers from"
    ),
    "actions of another space": (
        lambda: pictures("film", actions=np.zeros(4, int)), "actions: expected 2 numbers from"
    ),
    "too few actions": (lambda: pictures("film", actions=np.zeros((2, 2))), "expected 4 or 5 entr"),
    "rewards that are none": (
        lambda: pictures("film", rewards=np.full(4, np.nan)), "expected finite numbers"
    ),
    "pickled actions": (
        lambda: pictures("film", actions=np.array([{}] * 4, object)), "expected an array"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_recordings_are_one_line_and_nothing_is_made(what, capsys):
    make, line = BAD[what]
    make()
    words = ["train", ROOMS, "--from", "film", "--run", "out", "--no-live"]
    watching = ["--world_model.kind=latent-jepa", "--perception.kind=pixels-compact"]
    assert run([*words, *watching]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    import re

    assert re.search(line, said), said
    assert not Path("out").exists()


def test_frames_alone_need_a_world_and_a_model_that_infers_actions(capsys):
    pictures("film")
    assert run(["train", "--from", "film"]) == 2
    assert "expected a WORLD beside recordings" in capsys.readouterr().err
    assert run(["train", ROOMS, "--from", "film", "--perception.kind=pixels-compact"]) == 2
    assert "expected actions, which the world model (JEPA) learns" in capsys.readouterr().err
    words = ["train", ROOMS, "--expert", "film", "--perception.kind=pixels-compact"]
    assert run(words) == 2
    assert "expected the actions of an expert" in capsys.readouterr().err


def test_actions_are_encoded_as_the_world_has_them():
    discrete = ActionSpec(discrete=True, size=3)
    assert encoded_actions(np.array([2, 0]), discrete, "x").argmax(-1).tolist() == [2, 0]
    with pytest.raises(TraceError, match=r"x: actions: expected whole numbers from 0 to 2 .* got"):
        encoded_actions(np.array([3, 0]), discrete, "x")
    box = ActionSpec(discrete=False, size=1, low=(-2.0,), high=(2.0,))
    assert encoded_actions(np.array([1.0, -2.0]), box, "x").tolist() == [[0.5], [-1.0]]


def test_options_take_several_recordings():
    Path("a").mkdir()
    words = ["train", "--from", "a", "minari:x/y-v0", "W", "--expert", "a", "--steps", "3"]
    assert gather_overrides(words) == [
        "train", "--from", "a", "--from", "minari:x/y-v0", "W", "--expert", "a", "--steps", "3",
    ]  # fmt: skip


def test_the_old_option_names_the_new_one(capsys):
    assert run(["train", "W", "--from-traces", "a"]) == 2
    assert "--from-traces is now --from" in capsys.readouterr().err


# -- Minari ---------------------------------------------------------------------------------------


def minari_dataset(place: Path, kind: str):
    """A dataset written by Minari alone: episodes of a random policy."""
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    import gymnasium
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    env = gymnasium.make(kind)
    env.action_space.seed(0)
    buffers = []
    for episode in range(3):
        seen, actions, rewards, over, cut = [env.reset(seed=episode)[0]], [], [], [], []
        while len(rewards) < 30 and not (over and over[-1]):
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation)
            rewards.append(float(reward))
            over.append(terminated)
            cut.append(truncated)
        cut[-1] = not over[-1]
        buffers.append(
            EpisodeBuffer(
                id=episode,
                observations=seen,
                actions=actions,
                rewards=rewards,
                terminations=over,
                truncations=cut,
            )
        )
    place = place.absolute()
    (place / "data").mkdir(parents=True)
    storage = MinariStorage.new(place / "data", env_spec=env.spec)
    storage.update_episodes(buffers)
    import minari

    storage.update_metadata({"dataset_id": "test/a-v0", "minari_version": minari.__version__})
    return buffers


@pytest.mark.parametrize("kind", ["CartPole-v1", "Pendulum-v1"])
def test_a_dataset_goes_round_unchanged(kind, monkeypatch):
    buffers = minari_dataset(Path("store/test/a-v0"), kind)
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", "store")
    figures = export("minari:test/a-v0", "b")
    assert figures == {"episodes": 3, "steps": sum(len(one.rewards) for one in buffers)}
    for one, again in zip(buffers, minari.MinariDataset("b/data"), strict=True):
        assert np.array_equal(np.stack(one.observations), again.observations)
        assert np.array_equal(np.stack(one.actions), again.actions)
        assert np.array_equal(one.rewards, again.rewards)
        assert np.array_equal(one.terminations, again.terminations)
        assert np.array_equal(one.truncations, again.truncations)
    assert minari.MinariDataset("b/data").env_spec.id == kind


def test_a_dataset_is_learned_from_and_a_run_becomes_one(capsys):
    minari_dataset(Path("set"), "CartPole-v1")
    small = ("learner.warmup_steps=2", "training.evaluate_episodes=1", "perception.width=16")
    notes = []
    result = train(
        None, *small, recordings=["set"], steps=12, run="a", on_note=notes.append
    )  # the world is the dataset's
    assert (result.world, result.updates) == ("CartPole-v1", 5)
    steps = open_recording(Path("set")).steps
    assert f"set: {steps} steps, 3 episodes" in "".join(notes)
    assert json.loads(Path("a/training.json").read_text())["recordings"] == [
        str(Path.cwd() / "set")
    ]

    words = ["play", "CartPole-v1", "--preset", "reactive", "--steps", "50", "--run", "r"]
    assert run([*words, "--no-live"]) == 0
    assert run(["export", "r", "--to", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["episodes"] >= 2
    one, other = (open_recording(Path(name)) for name in ("r", "out"))
    form = Form(assemble({"world": {"id": "CartPole-v1"}}, known_kinds()).world.spec)
    pairs = zip(
        (e for e in one.episodes_in(form) if e.steps > 1), other.episodes_in(form), strict=True
    )
    for before, after in pairs:
        assert np.array_equal(np.stack(list(before.observations)), np.stack(after.observations))
        assert before.actions.equal(after.actions)
        assert before.terminated == after.terminated
        columns = after.known.nonzero()[:, 0]
        assert torch.equal(before.signals[:, columns].double(), after.signals[:, columns].double())
    assert run(["export", "r", "--to", "out"]) == 2
    assert "which exists" in capsys.readouterr().err


def test_a_dataset_of_other_spaces_is_refused(capsys):
    minari_dataset(Path("set"), "CartPole-v1")
    assert run(["train", "Acrobot-v1", "--from", "set", "--run", "out"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "recording set: vector: expected 6 as in Acrobot-v1, got 4" in said
    pictures("film")
    assert run(["export", "film", "--to", "o"]) == 2
    assert "without actions, rewards, ends" in capsys.readouterr().err
    (Path("set/data/main_data.hdf5")).write_bytes(b"nothing")
    assert run(["train", "CartPole-v1", "--from", "set", "--run", "out"]) == 2
    assert "expected a Minari dataset, got" in capsys.readouterr().err
    assert not Path("out").exists()
    assert sources_of(["minari:a/b-v0"], []).recordings[0].parts[-2:] == ("a", "b-v0")
