"""The hierarchical planner, with a world model and a level above that know FourRooms exactly."""

from contextlib import closing

import pytest
import torch

from agent import load
from modules.configurator.hold_subgoal import HoldSubgoal
from modules.messages import SIGNALS, ConfigError

PLUGIN = ("tests.known_levels",)
AGENT = (
    "perception.kind=place", "world_model.kind=with-level", "cost.drives=[]",
    "cost.critic.kind=crow-flies", "directive.u={goal: 0}", "directive.v={goal: 1}",
    "sum_critic_every_step=true", "configurator.kind=fixed", "configurator.mode=2",
    "directive.horizon_steps=70", "directive.model_calls=9700", "directive.commit_steps=10",
    "discount=1",
)  # fmt: skip
LEVELS = (
    "actor.planner={kind: hierarchical, near_steps: 0.8, "
    "upper: {kind: cem, samples: 256, iterations: 3, init_std: 1}, "
    "lower: {kind: cem, samples: 32, iterations: 2, action_repeat: 5}}",
)
UPPER, LOWER = 7 * 256 * 3 + 1, 10 * 32 * 2
"""Model calls of a plan."""
FLAT = (
    "actor.planner={kind: cem, samples: 64, iterations: 1, action_repeat: 2}",
    "directive.horizon_steps=14",
)
REWARD = SIGNALS.index("reward")
WAY_ROUND = ("world.settings.start=[40,14]", "world.settings.goal=[40,50]")


def moments(steps, *settings, rows=4, seed=0):
    player = load(
        "sextet/FourRooms-v0", *AGENT, *settings, num_envs=rows, seed=seed, plugins=PLUGIN
    )
    with closing(player.world):
        return list(player.live(steps * rows))


def reached(lived) -> list[bool]:
    signals = torch.stack([moment.observation.signals[:, REWARD] for moment in lived])
    return (signals > 0).any(0).tolist()


def test_sub_goals_lead_the_long_way_round_where_the_flat_planner_stays():
    assert sum(reached(moments(75, *LEVELS, *WAY_ROUND))) >= 3
    assert reached(moments(75, *FLAT, *WAY_ROUND)) == [False] * 4


def test_the_sub_goal_is_what_the_plan_goes_to():
    """The lower planner's first steps lead nearer to the sub-goal, not to the goal."""
    first, *later = moments(11, *LEVELS, *WAY_ROUND)
    subgoal = first.plan.subgoals[:, 0]
    assert first.plan.subgoals.shape == (4, 1, 2)
    before = (first.state.latent - subgoal).norm(dim=-1)
    after = (later[9].state.latent - subgoal).norm(dim=-1)
    assert float(after.mean()) < 0.5 * float(before.mean())
    # A committed plan keeps its sub-goal, a new one has another.
    assert later[8].plan.subgoals.equal(first.plan.subgoals)
    assert not later[9].plan.subgoals.equal(first.plan.subgoals)
    assert first.plan.steps.tolist() == [10] * 4


def test_near_the_goal_there_is_no_sub_goal():
    near = ("world.settings.start=[50,14]", "world.settings.goal=[50,24]")
    (moment,) = moments(1, *LEVELS, *near)
    assert bool(moment.plan.subgoals.isinf().all())
    assert moment.plan.model_calls.tolist() == [LOWER] * 4
    (moment,) = moments(1, *LEVELS, "actor.planner.near_steps=0", *near)
    assert bool(moment.plan.subgoals.isfinite().all())


def test_model_calls_of_both_levels_are_counted():
    (moment,) = moments(1, *LEVELS, *WAY_ROUND)
    assert moment.plan.model_calls.tolist() == [UPPER + LOWER] * 4
    for budget in (1, 2, 7, 40, 400):
        (moment,) = moments(1, *LEVELS, *WAY_ROUND, f"directive.model_calls={budget}")
        assert 0 < int(moment.plan.model_calls.max()) <= budget


def test_rows_are_planned_as_if_alone():
    settings = (*LEVELS, "world.settings.start=[50,14]")
    together = moments(1, *settings, rows=3, seed=5)[0]
    alone = moments(1, *settings, rows=1, seed=5)[0]
    assert together.plan.actions[:1].equal(alone.plan.actions)


def test_the_directive_sets_the_sub_goal_instead():
    place = (torch.tensor([14.0, 14.0]) - 32) / 32
    clamp = f"interventions=['clamp:subgoal={[round(float(x), 4) for x in place]}']"
    lived = moments(60, *LEVELS, *WAY_ROUND, clamp)
    assert bool((lived[0].plan.subgoals[:, 0] - place).abs().max() < 1e-3)
    assert int(lived[0].plan.model_calls.max()) == LOWER  # nothing is chosen
    assert bool(((lived[-1].state.latent - place).norm(dim=-1) * 32 < 4.5).all())


def test_a_planner_of_levels_above_may_be_the_upper_one():
    nested = (
        "actor.planner={kind: hierarchical, upper: {kind: hierarchical}, lower: {kind: cem}}",
    )
    with pytest.raises(ConfigError, match=r"planner\.upper\.kind: expected a world model with a l"):
        moments(1, *nested)


def test_bad_settings_are_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"try world_model\.kind=hierarchical-jepa"):
        load("CartPole-v1", "actor.planner.kind=hierarchical")
    with pytest.raises(ConfigError, match="expected a world whose goals are pictures"):
        load("CartPole-v1", "world_model.kind=hierarchical-jepa", "actor.planner.kind=hierarchical")
    for setting in ("world_model.pool_steps=1", "world_model.levels=4", "world_model.macro_size=1"):
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            load("CartPole-v1", "world_model.kind=hierarchical-jepa", setting)


def test_a_sub_goal_is_held_until_it_is_old():
    hold = ("configurator={kind: hold-subgoal, hold_steps: 10}", "directive.commit_steps=5")
    lived = moments(21, *LEVELS, *WAY_ROUND, *hold, rows=1)
    is_set = [bool(moment.directive.subgoal.isfinite().all()) for moment in lived]
    assert is_set == [False] + [True] * 9 + [False] + [True] * 9 + [False]
    chosen = [moment.plan.subgoals for moment in lived]
    assert all(one.equal(chosen[0]) for one in chosen[:10])
    assert not chosen[10].equal(chosen[0])
    # The upper level plans once in ten steps, the lower one twice.
    assert [int(moment.plan.model_calls) for moment in lived[:11:5]] == [
        UPPER + LOWER,
        LOWER,
        UPPER + LOWER,
    ]
    assert "sub-goal is 3 steps old" in lived[3].directive.reason[0]


def test_without_levels_holding_is_planning_at_every_step():
    from tests.modules.directed import directed

    held = directed(
        HoldSubgoal, drives=("goal",), heads=("goal",), token_shape=(1, 1), horizon_max=100
    )
    assert held.initial(2).subgoal is None


def test_shuffled_sub_goals_are_others():
    shuffled = (
        "interventions=['shuffle:subgoal=4']", "configurator={kind: hold-subgoal}",
        "directive.commit_steps=5",
    )  # fmt: skip
    lived = moments(40, *LEVELS, *WAY_ROUND, *shuffled, rows=1)
    directed = {tuple(moment.directive.subgoal[0].tolist()) for moment in lived}
    assert len(directed) > 2
