"""Actions of recordings that lack them, read from two observations after a few known ones."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from agent import train
from agent.learning.inferred_actions import with_inferred_actions
from agent.recording.readers import Episode, Form, OfEpisodes
from films import filmed
from modules.messages import SIGNALS, ActionSpec, TraceError, WorldSpec
from watch import walk
from worlds.point_rooms import TWO_ID

SIDE, STEPS, EPISODES = 16, 11, 30
MOVES = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])


def world(discrete: bool, frames: bool) -> WorldSpec:
    bounds = {} if discrete else {"low": (-1.0, -1.0), "high": (1.0, 1.0)}
    return WorldSpec(
        id="plane", pixels=(SIDE, SIDE, 1) if frames else None, vector=None if frames else 2,
        signals=SIGNALS, actions=ActionSpec(discrete=discrete, size=4 if discrete else 2, **bounds),
    )  # fmt: skip


class Walks(OfEpisodes):
    """Random moves of a square over a plane, shown as frames or as its place."""

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
            seen = [picture(p) if self.spec.pixels else p.numpy() for p in places]
            yield Episode(iter(seen), STEPS, *nothing, actions if self.known else None)


def picture(place: Tensor) -> np.ndarray:
    """A bright spot, two pixels wide."""
    lines = torch.arange(SIDE)
    near = [torch.exp(-((lines - at) ** 2) / 2) for at in place]
    return (255 * near[0][:, None] * near[1]).byte()[..., None].numpy()


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("discrete", [True, False])
def test_actions_are_read_from_what_changed(discrete: bool, frames: bool) -> None:
    spec = world(discrete, frames)
    film, known = Walks(1, spec, known=False), Walks(2, spec, known=True)
    luck = torch.get_rng_state()
    inferred = with_inferred_actions([(film, False), (known, True)], Form(spec), 400, seed=0)
    assert torch.equal(torch.get_rng_state(), luck)
    (first, expert), (second, known_too) = inferred.recordings
    assert (expert, known_too, first.lacks, first.steps) == (False, True, ("rewards",), film.steps)
    read = [episode.actions for episode in first.episodes_in(Form(spec))]
    error = (torch.stack(read) - film.actions).square().mean() / film.actions.var()
    assert error < 0.1
    if discrete:
        assert set(torch.stack(read).unique().tolist()) == {0, 1}
    quality = "right in" if discrete else "R²"
    assert f"300 inferred from 300 that are known: {quality} " in inferred.line
    assert float(inferred.line.rpartition(f"{quality} ")[2].split()[0]) > 0.9
    # What is known stays, and what was seen is seen.
    for episode, actions in zip(second.episodes_in(Form(spec)), known.actions, strict=True):
        assert episode.actions is actions or torch.equal(episode.actions, actions)
    seen = np.stack(next(iter(first.episodes_in(Form(spec)))).observations)
    assert np.array_equal(
        seen, np.stack(list(next(iter(film.episodes_in(Form(spec)))).observations))
    )


@pytest.mark.parametrize(("known", "got"), [(True, "all of them"), (False, "too few")])
def test_without_known_or_without_unknown_actions_it_is_refused(known: bool, got: str) -> None:
    spec = world(discrete=True, frames=False)
    with pytest.raises(TraceError, match=f"walks: training.infer_actions: .*got {got}"):
        with_inferred_actions([(Walks(1, spec, known), False)], Form(spec), 4, seed=0)


@pytest.mark.parametrize("of_expert", [False, True])
def test_a_film_and_a_few_tries_teach_what_actions_do(tmp_path: Path, of_expert: bool) -> None:
    """A world model of actions, or a policy that clones an expert who was only seen."""
    short = [tuple(part[:14] for part in walk(number)) for number in range(4)]
    film, tries = filmed(tmp_path / "film", short[:2], 0), filmed(tmp_path / "tries", short[2:], 1)
    sources = (
        {"experts": [film], "recordings": [tries]} if of_expert else {"recordings": [film, tries]}
    )
    notes: list[str] = []
    trained = train(
        TWO_ID, "training.infer_actions=3", "learner.warmup_steps=2", "learner.batch=4",
        "training.evaluate_episodes=1", "world.episode_steps=20", "perception.kind=pixels-compact",
        **sources, steps=3, run=tmp_path / "run", on_note=notes.append,
    )  # fmt: skip
    assert trained.updates > 0
    assert [note.split()[0] for note in notes[:3]] == ["recording", "recording", "actions"]
    assert "26 inferred from" in notes[2]
