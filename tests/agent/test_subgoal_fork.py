"""A fork that sets the sub-goal goes through another door."""

from pathlib import Path

import pytest

from agent import fork, play
from tests.modules.test_hierarchical_planner import AGENT, LEVELS, PLUGIN

DOORS = ("world.settings.doors=4", "world_model.doors=4")
ACROSS = ("world.settings.start=[16,16]", "world.settings.goal=[48,48]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "rooms"
    settings = (*AGENT, *LEVELS, *DOORS, *ACROSS)
    play("sextet/FourRooms-v0", *settings, run=place, steps=60, seed=0, plugins=PLUGIN)
    return place


def rooms(moments) -> set[str]:
    """The rooms that the point was well inside of."""
    places = [(moment.state.latent[0] * 32 + 32).tolist() for moment in moments]
    names = {(True, True): "start", (False, True): "upper", (True, False): "lower"}
    inside = [(x, y) for x, y in places if min(abs(x - 32), abs(y - 32)) > 4]
    return {names.get((x < 32, y < 32), "goal") for x, y in inside}


def test_another_sub_goal_leads_through_another_door(run: Path):
    went = rooms(fork(run, 0, steps=60, plugins=PLUGIN).fork.moments)
    assert "goal" in went
    (way,) = went & {"upper", "lower"}
    other = {"upper": "lower", "lower": "upper"}[way]
    place = {"upper": "[0.5, -0.5]", "lower": "[-0.5, 0.5]"}[other]
    changed = fork(run, 0, [f"directive.subgoal={place}"], steps=60, hold=30, plugins=PLUGIN)
    assert changed.diverged is not None
    assert rooms(changed.fork.moments) & {"upper", "lower"} == {other}
    assert "a fork sets subgoal" in changed.fork.moments[0].directive.reason[0]
