"""A goal that is a picture: from the world to the state as a latent, and into the goal drive."""

import pytest
import torch

from agent import live, load
from modules.messages import Message
from worlds.make import make_world

SMALL = ("perception.kind=pixels-small", "perception.latent_size=16", "perception.frame_stack=2")


def player(*settings, world="sextet/TwoRooms-v0"):
    return load(world, *SMALL, *settings)


def test_the_goal_of_a_state_is_the_latent_of_the_picture():
    played = player()
    perception = played.agent.modules.perception
    goals = []
    for moment in live(played.agent, played.world, 4, 0):
        seen = moment.observation
        assert seen.goal is None
        stack = seen.goal_pixels[:, None].expand(-1, 2, -1, -1, -1)
        expected = perception.encode(stack, moment.directive.tokens * 0)
        torch.testing.assert_close(moment.state.goal, expected)
        goals.append(moment.state.goal)
        drive = list(played.agent.modules.cost.drives).index("goal")
        distance = (moment.state.latent - moment.state.goal).square().mean(-1)
        torch.testing.assert_close(moment.energies.intrinsic[:, drive], distance)
    played.world.close()


def test_at_the_goal_the_goal_drive_is_0_and_elsewhere_it_is_not():
    place = "world.settings.goal=[50,40]"
    for start, reached in (("[50,40]", True), ("[12,12]", False)):
        played = player(place, f"world.settings.start={start}")
        moment = next(iter(live(played.agent, played.world, 1, 0)))
        drive = list(played.agent.modules.cost.drives).index("goal")
        assert (float(moment.energies.intrinsic[0, drive]) < 1e-9) == reached
        played.world.close()


def test_a_picture_that_changes_is_encoded_again():
    """In Rooms the thing is asked for after the events, within the episode."""
    settings = ("world.settings.goal_form=pixels", "world.settings.events=3")
    played = player(*settings, "configurator.kind=fixed", world="sextet/Rooms-v0")
    goals = [moment.state.goal for moment in live(played.agent, played.world, 15, 0)]
    assert all(goal.equal(goals[0]) for goal in goals[:12])
    assert not goals[12].equal(goals[0])
    assert all(goal.equal(goals[12]) for goal in goals[12:])
    played.world.close()


def test_pictures_read_as_vectors_have_goals_of_numbers():
    world = make_world("sextet/TwoRooms-v0", reading="vectors")
    assert (world.spec.goal_pixels, world.spec.goal) == (False, 65 * 65 * 3)
    seen = world.reset(0)
    assert seen.goal_pixels is None
    assert seen.goal.shape == (1, 65 * 65 * 3)
    world.close()


@pytest.mark.parametrize("form", ["pixels", "state"])
def test_an_observation_with_a_goal_survives_bytes(form):
    world = make_world("sextet/TwoRooms-v0", settings={"goal_form": form})
    seen = world.reset(0)
    again = Message.from_bytes(seen.to_bytes())
    for (name, one), (_, other) in zip(seen.tensors(), again.tensors(), strict=True):
        assert (one is None) == (other is None), name
        assert one is None or one.equal(other)
    world.close()
