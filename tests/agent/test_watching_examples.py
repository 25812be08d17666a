"""`examples/watch.py`, `watch_and_act.py` and `infer.py`: films, their bars, and the commands."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import infer
import watch
import watch_and_act
from agent import load
from agent.recording.readers import open_recording
from films import filmed
from worlds import road
from worlds.point_rooms import SPEED
from worlds.walls import shortest_path


def test_a_film_has_frames_and_here_and_there_actions(tmp_path: Path):
    place = filmed(tmp_path / "film", map(short, map(watch.walk, range(3))), 2)
    recording = open_recording(place)
    assert (recording.episodes, recording.steps) == (3, 18)
    assert recording.lacks == ("rewards", "ends")  # actions beside the first and the third
    assert [p.parent.name for p in sorted(place.rglob("actions.npy"))] == ["0000", "0002"]
    none = open_recording(filmed(tmp_path / "none", [short(watch.walk(0))], 0))
    assert "actions" in none.lacks


def short(film):
    return film[0][:6], film[1][:5]


def test_the_walk_is_what_its_actions_say():
    frames, actions = watch.walk(3)
    places = infer.point_in(np.stack(frames))
    assert len(actions) == len(frames) - 1 == watch.STEPS
    longest = np.abs(np.diff(places, axis=0)).max()
    assert longest <= np.ceil(SPEED) + 1  # a place is read to a pixel


def test_what_an_action_did_is_read_from_lane_and_speed():
    own = torch.tensor([[[1, 0], [0, 1], [0, 1], [2, 0]]])
    held = watch.roads.Held(torch.zeros(1, 4, 1), torch.zeros(1, 4), {"own": own.double()})
    assert watch.effects_of(held).tolist() == [2, 4, 6]
    drives = watch.held_drives(1)
    assert drives.frames.shape[:2] == (1, road.STEPS)
    assert len(watch.effects_of(drives)) == road.STEPS - 1
    assert watch.places_of(held).tolist() == [3, 1, 1]


def test_no_code_tells_the_whole_action():
    """Left in the left lane looks like straight: what it did tells half, with the place two thirds,
    by counting 4/9·ln 2 of ln 3 less in each of steering and pedal.
    """
    (known,), (alone,) = watch.ceilings(watch.held_drives(8)).values()
    assert known["action"] == pytest.approx(0.72, abs=0.07)  # collisions slow the car, too
    assert alone["action"] == pytest.approx(0.52, abs=0.07)


def test_the_expert_walks_round_the_square_and_reaches_the_goal(tmp_path: Path):
    place = infer.shown(tmp_path / "expert", 3)
    import cv2

    for folder in sorted(place.iterdir()):
        frames = np.stack([cv2.imread(str(p))[..., ::-1] for p in sorted(folder.glob("*.png"))])
        assert not any(infer.inside(tuple(p)) for p in infer.point_in(frames).tolist())
        assert np.load(folder / "actions.npy").shape == (60, 2)


def test_only_episodes_whose_way_is_through_the_square_count():
    middle, beyond = (44.0, 24.0), (58.0, 26.0)
    assert infer.crosses((20.0, 20.0), beyond)
    assert not infer.crosses((20.0, 20.0), middle)  # the goal is inside
    assert not infer.crosses((20.0, 20.0), (20.0, 50.0))
    assert infer.inside(middle)
    assert not infer.inside((infer.SQUARE.left + 1.0, 24.0))
    assert len(shortest_path((20.0, 20.0), beyond, infer.WALLS)) >= 2


KNOWN = "what it did, given lane and speed"
WATCHED = {
    "watching": [{"touched": 0.95}], "all actions": [{"touched": 1.0}],
    "tries alone": [{"touched": 0.3}],
    "codes first": [{"action": 0.75, KNOWN: 0.8, "leaves": 0.02}],
}  # fmt: skip
INFERRED = {
    "plans, with the head": [{"avoided": 0.97, "touched": 0.9}],
    "plans, without": [{"avoided": 0.2}],
}


@pytest.mark.parametrize(
    ("row", "figures"),
    [
        ("watching", {"touched": 0.9}), ("tries alone", {"touched": 0.96}),
        ("codes first", {"action": 0.6, KNOWN: 0.8, "leaves": 0.02}),
        ("codes first", {"action": 0.8, KNOWN: 0.6, "leaves": 0.02}),
        ("codes first", {"action": 0.8, KNOWN: 0.8, "leaves": 0.2}),
    ],
)  # fmt: skip
def test_each_bar_of_watching_can_be_missed(row, figures):
    assert all(watch.bars_of(WATCHED).values())
    assert list(watch.bars_of(WATCHED | {row: [figures]}).values()).count(False) == 1


ACTED = {
    "road, 4000 steps": [{"score": 10.0, "own steps, thousands": 4}],
    "road, 4000 steps, watched": [{"score": 50.0}],
    "road, 5000 steps": [{"score": 20.0, "own steps, thousands": 5}],
    "road, 5000 steps, watched": [{"score": 70.0}],
    "road, 8000 steps": [{"score": 45.0, "own steps, thousands": 8}],
    "road, 8000 steps, watched": [{"score": 60.0}],
    "Boxing": [{"game score": 4.0}], "Boxing, watched": [{"game score": 7.0}],
    "Krull": [{"game score": 100.0}], "Krull, watched": [{"game score": 90.0}],
    "Pong": [{"game score": 2.0}], "Pong, watched": [{"game score": 3.0}],
    "Boxing, cloned": [{"game score": 6.0}], "Krull, cloned": [{"game score": 160.0}],
    "Pong, cloned": [{"game score": 2.0}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "figures"),
    [
        ("road, 4000 steps, watched", {"score": 44.0}), ("Pong, watched", {"game score": 2.9}),
        ("Krull, cloned", {"game score": 149.0}),
    ],
)  # fmt: skip
def test_each_bar_of_acting_after_watching_can_be_missed(row, figures):
    assert all(watch_and_act.bars_of(ACTED).values())
    assert list(watch_and_act.bars_of(ACTED | {row: [figures]}).values()).count(False) == 1


def test_a_score_below_0_is_not_better_when_it_is_lower():
    lower = {"Boxing": [{"game score": -2.0}], "Boxing, watched": [{"game score": -2.5}]}
    assert list(watch_and_act.bars_of(ACTED | lower).values()) == [True, False, True]


def test_a_car_that_does_not_act_keeps_its_lane():
    frames, actions = watch_and_act.keeping(5)
    own = (np.stack(frames) == (235, 235, 240)).all(-1).any(1)  # columns with the car's colour
    assert len(frames) == road.STEPS
    assert (own == own[0]).all()
    assert set(actions.tolist()) == {watch_and_act.KEEP}


def test_a_film_of_a_play_ends_with_its_episode(monkeypatch):
    """Episodes of Road have 201 observations."""
    monkeypatch.setattr(watch_and_act, "LONGEST", 150)
    # What is played does not matter here, and plans would take minutes.
    monkeypatch.setattr(watch_and_act, "load", partial(load, preset="reactive"))
    films = [frames for frames, _ in watch_and_act.plays(road.ID, 450)]
    assert [len(frames) for frames in films] == [150, 51, 150, 51, 48]
    assert films[0][0].ndim == 3


def test_own_steps_are_filmed_with_their_actions():
    """In Breakout a random player loses its five lives in about 200 steps."""
    films = list(watch_and_act.tries("Breakout", 400, 3))
    assert len(films) >= 2
    assert sum(len(frames) for frames, _ in films) == 401
    for frames, actions in films:
        assert frames[0].shape == (64, 64, 1)
        assert len(actions) == len(frames) - 1
    actions = np.concatenate([of_film for _, of_film in films])
    assert set(actions.tolist()) == {0, 1, 2, 3}
    # The same as before it with probability REPEAT, and in a quarter of the other steps.
    again = (actions[1:] == actions[:-1]).mean()
    assert again == pytest.approx(0.625, abs=0.08)


@pytest.mark.parametrize(
    ("row", "figures"),
    [
        ("plans, with the head", {"avoided": 0.9, "touched": 0.9}),
        ("plans, with the head", {"avoided": 0.99, "touched": 0.5}),
        ("plans, without", {"avoided": 0.6}),
    ],
)
def test_each_bar_of_the_inferred_objective_can_be_missed(row, figures):
    assert all(infer.bars_of(INFERRED).values())
    assert list(infer.bars_of(INFERRED | {row: [figures]}).values()).count(False) == 1


@pytest.mark.slow
@pytest.mark.parametrize("program", [watch, watch_and_act, infer])
def test_the_command_trains_and_prints(program, tmp_path, monkeypatch, capsys):
    words = ["--quick", "--json", "--runs", str(tmp_path / "runs" / program.__name__)]
    monkeypatch.setattr(sys, "argv", [f"{program.__name__}.py", *words])
    program.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    road_rows = {*watch.ROAD_MODELS, "at most", "at most, what it did"}
    acted = {"road, 400 steps", "road, 400 steps, watched"}
    acted |= {"Breakout", "Breakout, watched", "Breakout, cloned"}
    expected = {
        "watch": {*watch.ROOM_MODELS, *road_rows},
        "watch_and_act": acted,
        "infer": {*INFERRED, "cloning alone"},
    }
    assert set(rows) == expected[program.__name__]
