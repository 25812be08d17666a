"""Imagined futures of learned world models on the page: decoded, or the nearest recorded frames."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.assembly.build import assemble, known_kinds
from agent.cli import run
from agent.counterfactual.fork import Replay
from agent.imagination import Imagination
from agent.live import live
from agent.view.page.data import Recording
from agent.view.page.futures import STRIPS, Decoded, Imagined, Remembered
from modules.messages import State

SMALL = (
    "--perception.frame_size=36", "--perception.latent_size=16", "--world_model.width=16",
    "--world_model.ensemble_size=1", "--directive.horizon_steps=3", "--directive.model_calls=12",
    "--directive.commit_steps=1", "--configurator.kind=fixed", "--configurator.mode=2",
)  # fmt: skip


def trained(folder: Path, *settings: str) -> Path:
    """A recorded run of an agent that was trained for some steps in Fork, and plans."""
    where = ("--seed", "2", "--run")
    training = ("--training.steps=90", "--training.evaluate_every=0", "--learner.warmup_steps=40",
                "--learner.batch=8", "--training.report_every=40")  # fmt: skip
    assert run(["train", "sextet/Fork-v0", *SMALL, *settings, *training, *where,
                str(folder / "learned")]) == 0  # fmt: skip
    assert run(["play", str(folder / "learned"), "--steps", "110", "--no-live", *where,
                str(folder / "played")]) == 0  # fmt: skip
    return folder / "played"


@pytest.fixture(scope="module")
def generative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("generative"), "--world_model.kind=generative")


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recurrent")
    return trained(folder, "--world_model.predictor.kind=gru")


def test_a_model_that_decodes_shows_the_frames_it_predicts(generative: Path) -> None:
    recording = Recording(generative)
    step = next(s for s in range(1, 20) if int(recording.moment(s).plan.mode[0]) == 2)
    imagined = Imagined(recording)
    pack = imagined.pack(step, 0)
    assert pack.facts["how"] == Decoded.how
    source = imagined._source
    assert isinstance(source, Decoded)
    model = source.agent.modules.world_model
    # The first step of a candidate is the expected state of its action.
    moment, situation = source._situation(step)
    world = recording.world.actions
    for future in pack.facts["futures"]:
        frames = pack.arrays["frames"][future["frames"]]
        assert frames.shape[1:] == recording.world.pixels
        assert future["note"] == ""
    chosen = pack.facts["futures"][0]
    expected = model.predict(situation, moment.plan.action, moment.directive)
    np.testing.assert_array_equal(
        pack.arrays["frames"][chosen["frames"][0]], model.decode(expected)[0].numpy()
    )
    assert world.size == 3
    assert len(np.unique(pack.arrays["frames"])) > 3


def test_another_shows_the_recorded_frame_of_the_nearest_latent(recurrent: Path) -> None:
    recording = Recording(recurrent)
    for step in (1, 9, 20):
        pack = Imagined(recording).pack(step, 0)
        assert pack.facts["how"] == Remembered.how
        recorded = {recording.frame(s, 0).tobytes() for s in range(110)}
        for future in pack.facts["futures"]:
            assert future["note"].startswith("nearest recorded states, distance")
            assert {pack.arrays["frames"][i].tobytes() for i in future["frames"]} <= recorded


def test_what_a_recurrent_model_carried_is_computed_again(recurrent: Path) -> None:
    """A trace does not have it. The same run again has, in the moments themselves."""
    replay = Replay(recurrent)
    agent, world = replay.agent(), replay.world
    moments = list(live(agent, world, 110, replay.seed))
    imagined = Imagined(Recording(recurrent))
    source = imagined._source
    assert isinstance(source, Remembered)
    firsts = 0
    with torch.no_grad():
        # From the keyframe of step 0 and, at last, from that of step 100.
        for step in (*range(1, 26), *range(100, 110)):
            before = moments[step - 1]
            expected = torch.where(before.observation.ended[:, None], 0, before.expected.hidden)
            firsts += int(moments[step].observation.first[0])
            torch.testing.assert_close(source._carried(step), expected, rtol=0, atol=2e-3)
            assert bool(expected.any()) != bool(moments[step].observation.first[0])
    assert firsts >= 3
    replay.close()


@pytest.mark.parametrize("at", [12, 57, 104])
def test_a_fork_continues_with_the_recurrent_state(recurrent: Path, at: int) -> None:
    """From the keyframe before, whose moment holds it, in the middle of an episode or not."""
    with Replay(recurrent) as replay:
        assert replay.fork(at, steps=5).identical


def test_a_wrong_recurrent_state_is_noticed(recurrent: Path) -> None:
    """The page compares what the model expects with what was recorded."""
    imagined = Imagined(Recording(recurrent))
    source = imagined._source
    assert isinstance(source, Remembered)
    source._carried = lambda step: torch.full((1, 128), 30.0)  # type: ignore[method-assign]
    assert "predict another state" in imagined.pack(9, 0).facts["how"]


def test_a_decoded_frame_is_of_the_state_itself() -> None:
    tree = {"world": {"id": "sextet/Fork-v0"}, "world_model": {"kind": "generative"},
            "perception": {"frame_size": 36, "latent_size": 16}}  # fmt: skip
    assembly = assemble(tree, known_kinds())
    model = assembly.agent.modules.world_model
    state = State(
        latent=torch.randn(2, 16), hidden=torch.zeros(2, 0), signals=torch.zeros(2, 6),
        ended=torch.zeros(2), uncertainty=torch.zeros(2),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.observation_stats.variance.fill_(0.1)
        model.observation_stats.centre.fill_(0.5)
        both, second = model.decode(state), model.decode(state.select(torch.tensor([1])))
    assert (both[1].int() - second[0].int()).abs().max() <= 1
    assert not both[0].equal(both[1])
    assembly.world.close()


@pytest.fixture(scope="module")
def branching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("branching")
    return trained(
        folder, "--world_model.kind=latent-jepa", "--directive.futures=6",
        "--directive.model_calls=90",
    )  # fmt: skip


def test_futures_that_a_plan_was_chosen_by_are_imagined_again(branching: Path) -> None:
    """The page draws the latent variables that the planner drew: the energies are the recorded."""
    recording = Recording(branching)
    step = next(s for s in range(1, 20) if int(recording.moment(s).plan.mode[0]) == 2)
    imagined = Imagined(recording)
    pack = imagined.pack(step, 0)
    assert pack.facts["how"] == Remembered.how
    for future in pack.facts["futures"]:
        assert len(future["others"]) == STRIPS - 1
        assert future["note"].startswith(f"{STRIPS} of 6 futures, nearest recorded states")
    source = imagined._source
    assert isinstance(source, Remembered)
    moment, situation = source._situation(step)
    m, plan_cost = source.agent.modules, source.agent.plan_cost
    alone = Imagination(m.world_model, m.cost, situation, moment.directive, plan_cost)
    candidates = moment.plan.candidates[:1, :1, :3]
    energy = float(alone.cost(alone.rollout(candidates)).detach())
    recorded = float(moment.plan.candidate_energies[0, 0])
    assert energy == pytest.approx(recorded, abs=1e-3)
