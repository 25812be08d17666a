"""Actions of recordings that lack them, read from two observations after a few known ones."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from agent import train
from agent.learning.inferred_actions import with_inferred_actions
from agent.learning.offline_training import OfflineTraining
from agent.recording.readers import Episode, Form, OfEpisodes
from films import filmed
from modules.messages import SIGNALS, ActionSpec, TraceError, WorldSpec
from watch import walk
from worlds.point_rooms import TWO_ID

SIDE, STEPS, EPISODES = 16, 11, 30
MOVES = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])


def world(discrete: bool) -> WorldSpec:
    bounds = {} if discrete else {"low": (-1.0, -1.0), "high": (1.0, 1.0)}
    return WorldSpec(
        id="plane", pixels=(SIDE, SIDE, 1), vector=None, signals=SIGNALS,
        actions=ActionSpec(discrete=discrete, size=4 if discrete else 2, **bounds),
    )  # fmt: skip


class Walks(OfEpisodes):
    """Frames of random moves of a spot over a plane."""

    world, path = None, Path("walks")

    def __init__(self, seed: int, spec: WorldSpec, known: bool) -> None:
        self.spec, self.known, self.lacks = spec, known, () if known else ("actions", "rewards")
        self.episodes, self.steps = EPISODES, EPISODES * STEPS
        luck = torch.Generator().manual_seed(seed)
        shape = (EPISODES, STEPS - 1)
        if spec.actions.discrete:
            chosen = torch.randint(4, shape, generator=luck)
            self.actions, moves = torch.nn.functional.one_hot(chosen, 4).float(), MOVES[chosen]
        else:
            self.actions = moves = 2 * torch.rand((*shape, 2), generator=luck) - 1
        begin = 4 + 8 * torch.rand((EPISODES, 1, 2), generator=luck)
        self.places = torch.cat([begin, begin + moves.cumsum(1)], 1)

    def require(self, form: Form) -> None:
        assert form.world == self.spec

    def episodes_in(self, form: Form) -> Iterator[Episode]:
        nothing = torch.zeros(STEPS, len(SIGNALS)), torch.zeros(len(SIGNALS), dtype=torch.bool)
        for places, actions in zip(self.places, self.actions, strict=True):
            seen = [picture(place) for place in places]
            yield Episode(iter(seen), STEPS, *nothing, actions if self.known else None)


def picture(place: Tensor) -> np.ndarray:
    """A bright spot, two pixels wide."""
    lines = torch.arange(SIDE)
    near = [torch.exp(-((lines - at) ** 2) / 2) for at in place]
    return (255 * near[0][:, None] * near[1]).byte()[..., None].numpy()


@pytest.mark.parametrize("discrete", [True, False])
def test_actions_are_inferred_from_what_changed(discrete: bool) -> None:
    spec = world(discrete)
    film, known = Walks(1, spec, known=False), Walks(2, spec, known=True)
    luck = torch.get_rng_state()
    recordings, line = with_inferred_actions([(film, False), (known, True)], Form(spec), 400, 0)
    assert torch.equal(torch.get_rng_state(), luck)
    (first, expert), second = recordings
    assert (expert, first.lacks, first.steps) == (False, ("rewards",), film.steps)
    assert second == (known, True)  # it lacked nothing
    episodes = list(first.episodes_in(Form(spec)))
    inferred = torch.stack([episode.actions for episode in episodes])
    assert (inferred - film.actions).square().mean() < 0.1 * film.actions.var()
    if discrete:
        assert set(inferred.unique().tolist()) == {0, 1}
    said = re.fullmatch(
        r"actions   300 inferred from 300 that are known; of the last 30 of these, held out, "
        r"(R² )?([\d.]+)( are right)?", line,
    )  # fmt: skip
    assert said is not None, line
    assert float(said[2]) > 0.9
    for episode, places in zip(episodes, film.places, strict=True):
        assert np.array_equal(episode.observations, [picture(place) for place in places])


def test_where_all_actions_are_known_nothing_is_inferred() -> None:
    spec = world(discrete=True)
    recordings = [(Walks(1, spec, known=True), False)]
    inferred, line = with_inferred_actions(recordings, Form(spec), 4, seed=0)
    assert inferred == recordings
    assert "all known" in line


def test_without_known_actions_it_is_refused() -> None:
    spec = world(discrete=True)
    with pytest.raises(
        TraceError, match=r"walks: training.infer_actions: expected 50 .*got 0; add"
    ):
        with_inferred_actions([(Walks(1, spec, known=False), False)], Form(spec), 4, seed=0)


@pytest.mark.parametrize("of_expert", [False, True])
def test_a_film_and_a_few_tries_teach_what_actions_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_expert: bool
) -> None:
    """A world model of actions, or a policy that clones an expert who was only seen. A training
    that was killed before its first checkpoint infers the same actions again.
    """
    short = [tuple(part[:31] for part in walk(number)) for number in range(4)]
    film, tries = filmed(tmp_path / "film", short[:2], 0), filmed(tmp_path / "tries", short[2:], 1)
    sources = {"experts": [film], "recordings": [tries]}
    if not of_expert:
        sources = {"recordings": [tries, film]}
    notes: list[str] = []
    acted: list[Tensor] = []
    begin = OfflineTraining._turns

    def observed(self: OfflineTraining, resume: object) -> Iterator[None]:
        turns = begin(self, resume)
        acted.append(self.agent.memory.tensors()["actions"])
        return turns

    monkeypatch.setattr(OfflineTraining, "_turns", observed)
    run = tmp_path / "run"
    train(
        TWO_ID, "training.infer_actions=3", "learner.warmup_steps=2", "learner.batch=4",
        "training.evaluate_episodes=1", "world.episode_steps=20", "perception.kind=pixels-compact",
        **sources, steps=3, run=run, on_note=notes.append,
    )  # fmt: skip
    assert [note.split()[0] for note in notes[:3]] == ["recording", "recording", "actions"]
    assert "60 inferred from 60 that are known" in notes[2]
    of_film = acted[0][62:92]
    assert bool(of_film.any(1).all())
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    train(resume=run)
    assert torch.equal(acted[0], acted[1])
