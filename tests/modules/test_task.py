"""The configurator of several tasks, the critic's sub-goal heads, and the tokens of experience."""

from typing import Any

import pytest
import torch
from directed import directed
from torch import Tensor

from agent.bench import memory as bench
from modules.configurator.fixed import Fixed
from modules.configurator.task import Task
from modules.cost.critic import ActionCritic
from modules.cost.subgoals import SubgoalCritic
from modules.messages import (
    ActionSpec,
    ConfigError,
    Energy,
    Experience,
    Situation,
    WorldSpec,
)
from modules.ports import encoded_states
from modules.weights import subgoal

TASKS, ACTIONS, SIZE = 3, 4, 5
WORLD = WorldSpec(
    id="small", pixels=None, vector=4, goal=TASKS, signals=("reward",),
    actions=ActionSpec(discrete=True, size=ACTIONS),
)  # fmt: skip
DRIVES = ("score", "effort", "goal")
HEADS = ("effort", *(subgoal(task) for task in range(TASKS)))
FACTS: dict[str, Any] = {
    "world": WORLD, "drives": DRIVES, "heads": HEADS, "token_shape": (2, 4), "horizon_max": 64,
}  # fmt: skip


def situation(goal: Tensor | None, rows: int = 3) -> Situation:
    before = bench.moment(rows, 1)
    zeros = torch.zeros(rows)
    return Situation(
        env_index=torch.arange(rows),
        state=before.state.replace(goal=goal),
        recollection=before.recollection,
        energies=Energy(
            intrinsic=torch.zeros(rows, 4), critic=torch.zeros(rows, 4), disagreement=zeros
        ),
        surprise=zeros,
        episode_model_calls=zeros.long(),
        episode_step=zeros.long(),
        rng_key=torch.arange(rows),
        previous=before,
    )


# -- the configurator -------------------------------------------------------------------------


def test_each_row_is_directed_by_the_task_its_goal_tells():
    said = directed(Task, **FACTS).configure(situation(torch.eye(TASKS)[[2, 0, 2]]))
    flat = said.tokens.flatten(1)
    assert torch.equal(flat.argmax(-1), torch.tensor([2, 0, 2]))
    assert torch.equal(flat.sum(-1), torch.ones(3))
    weights = dict(zip(HEADS, said.v.T, strict=True))
    for task in range(TASKS):
        assert torch.equal(weights[subgoal(task)], (flat.argmax(-1) == task).float())
    assert torch.equal(weights["effort"], torch.zeros(3))
    assert said.reason[0] == (
        "acts: task 2 of 3 as the goal says; primed for it; sub-goal head 2 counts"
    )
    assert said.reason[0] == said.reason[2] != said.reason[1]


def test_before_a_task_is_known_nothing_is_primed_and_no_sub_goal_counts():
    said = directed(Task, **FACTS).initial(2)
    assert not said.tokens.any()
    assert not said.v[:, 1:].any()
    assert "not known yet" in said.reason[0]


def test_a_task_that_is_set_stands_from_the_start_whatever_the_world_says():
    configurator = directed(Task, task=1, **FACTS)
    said = configurator.configure(situation(torch.eye(TASKS)[[2, 0, 2]]))
    for directive in (said, configurator.initial(3)):
        assert torch.equal(directive.tokens.flatten(1).argmax(-1), torch.ones(3).long())
        assert directive.v[:, 2].all()
        assert "task 1 of 3 as set" in directive.reason[0]


def test_a_task_may_have_its_own_weights_tokens_horizon_and_mode():
    own = {
        "task": 1, "mode": 2, "u": {"effort": 0.5}, "v": {"subgoal 1": 2.0, "subgoal 0": -1.0},
        "tokens": [0.5, 0.0, -0.5], "horizon_steps": 7, "model_calls": 9, "commit_steps": 2,
        "risk": 0.25,
    }  # fmt: skip
    said = directed(Task, each=[own], u={"score": 3.0}, priming=2.0, **FACTS).configure(
        situation(torch.eye(TASKS)[[1, 0, 1]])
    )
    assert said.mode.tolist() == [2, 1, 2]
    assert said.u.tolist() == [[3.0, 0.5, 1.0], [3.0, 0.0, 1.0], [3.0, 0.5, 1.0]]
    assert said.v[0].tolist() == [0.5, -1.0, 2.0, 0.0]
    assert said.tokens[0].flatten().tolist() == [1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert said.horizon_steps.tolist() == [7, 48, 7]
    assert said.model_calls.tolist() == [9, 800, 9]
    assert said.commit_steps.tolist() == [2, 8, 2]
    assert said.risk.tolist() == [0.25, 0.0, 0.25]


def test_unprimed_differs_from_primed_in_tokens_and_reason_alone():
    goal = torch.eye(TASKS)[[1, 0, 2]]
    primed = directed(Task, **FACTS).configure(situation(goal))
    plain = directed(Task, priming=0.0, **FACTS).configure(situation(goal))
    for name, value in primed.tensors():
        if value is None:  # no sub-goals without a planner of levels
            continue
        same = torch.equal(getattr(primed, name), getattr(plain, name))
        assert same == (name != "tokens"), name
    assert not plain.tokens.any()
    assert "nothing primed" in plain.reason[0]


def test_where_a_world_sets_no_goal_there_is_one_task():
    facts = {**FACTS, "world": WORLD.model_copy(update={"goal": None}), "heads": ("score",)}
    said = directed(Task, **facts).configure(situation(None))
    assert torch.equal(said.tokens.flatten(1).argmax(-1), torch.zeros(3).long())
    assert torch.equal(said.v, torch.ones(3, 1))
    assert said.reason[0].endswith("heads count as their drives")


def test_the_sub_goal_of_a_world_of_one_task_counts_whoever_directs():
    facts = {**FACTS, "heads": ("effort", "subgoal 0")}
    del facts["world"]
    assert directed(Fixed, **facts).initial(1).v.tolist() == [[0.0, 1.0]]
    assert directed(Fixed, v={"subgoal 0": 0.5}, **facts).initial(1).v.tolist() == [[0.0, 0.5]]
    # Of several it is not known which.
    facts["heads"] = HEADS
    assert not directed(Fixed, **facts).initial(1).v.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": 3}, "expected one of the 3 tasks of small (0 to 2), got 3"),
        ({"each": [{"task": 5}]}, "got 5"),
        ({"each": [{"task": 1}, {"task": 1}]}, "each task once"),
        ({"each": [{"task": 1, "tokens": [0.0] * 9}]}, "at most 8 numbers for task 1"),
        ({"each": [{"task": 1, "u": {"hunger": 1.0}}]}, "'hunger' is not one of"),
        ({"token_shape": (1, 2)}, "try tokens.width=3"),
    ],
)
def test_what_no_task_can_have_is_refused_in_one_line(settings: dict[str, Any], words: str):
    with pytest.raises(ConfigError) as caught:
        directed(Task, **{**FACTS, **settings})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# -- sub-goal heads ---------------------------------------------------------------------------


def critic(**changed: Any) -> SubgoalCritic:
    torch.manual_seed(0)
    settings = {
        "config": SubgoalCritic.Config(width=8, n_steps=2, drive_weights={"effort": 1.0}),
        "world": WORLD, "latent_size": SIZE, "heads": DRIVES, "discount": 0.9, **changed,
    }  # fmt: skip
    made = SubgoalCritic(**settings)
    with torch.no_grad():
        for parameter in [*made.members.parameters(), *made.targets.parameters()]:
            parameter.normal_(std=0.5)
    return made


def batch(goals: Tensor | None, rows: int = 6, steps: int = 4) -> tuple[Any, ...]:
    torch.manual_seed(1)
    no = torch.zeros(rows, steps, dtype=torch.bool)
    experience = Experience(
        frames=None, vectors=torch.zeros(rows, steps, 4),
        actions=torch.eye(ACTIONS)[torch.randint(ACTIONS, (rows, steps))],
        signals=torch.zeros(rows, steps, 1), goals=goals, terminated=no, truncated=no, mask=~no,
        importance_weights=torch.ones(rows), indices=torch.arange(rows),
    )  # fmt: skip
    latents = torch.stack([torch.randn(rows, SIZE) for _ in range(steps)], 1).requires_grad_()
    states = encoded_states(experience, latents)
    return torch.rand(rows, steps, len(DRIVES)), experience, states[:1], states


def goals(tasks: list[int], steps: int = 4) -> Tensor:
    return torch.eye(TASKS)[tasks].unsqueeze(1).repeat(1, steps, 1)


def test_a_head_for_each_task_and_each_drive_that_no_task_changes():
    assert critic().heads == HEADS
    assert critic(world=WORLD.model_copy(update={"goal": None})).heads == ("effort", "subgoal 0")


def test_a_head_learns_from_its_own_task_alone():
    made = critic()
    loss, _ = made.losses(*batch(goals([0, 0, 2, 2, 0, 2])))
    loss["critic"].backward()
    for member in made.members:
        # The last layer: what all actions share, then each; of every head, and what heads share.
        found = member.last.weight.grad.view(1 + ACTIONS, len(HEADS) + 1, -1)
        assert found[:, HEADS.index("subgoal 0")].any()
        assert found[:, HEADS.index("subgoal 2")].any()
        assert found[:, HEADS.index("effort")].any()
        assert found[:, -1].any()
        assert not found[:, HEADS.index("subgoal 1")].any()


def test_under_one_task_it_is_the_critic_of_actions_with_that_head():
    """Identity: what heads of other tasks are leaves no trace."""
    made = critic()
    energies, experience, states, targets = batch(goals([1] * 6))
    plain = ActionCritic(
        config=ActionCritic.Config(width=8, n_steps=2, drive_weights={"effort": 1.0}),
        world=WORLD, latent_size=SIZE, heads=("effort", "goal"), discount=0.9,
    )  # fmt: skip
    kept = [HEADS.index("effort"), HEADS.index("subgoal 1")]
    with torch.no_grad():
        for mine, theirs in zip(
            [*plain.members, *plain.targets], [*made.members, *made.targets], strict=True
        ):
            mine.hidden.load_state_dict(theirs.hidden.state_dict())
            for own, all_ in zip(mine.last.parameters(), theirs.last.parameters(), strict=True):
                each = all_.view(1 + ACTIONS, len(HEADS) + 1, -1).clone()
                each[:, 1:-1] += each[:, -1:]  # what sub-goals share
                own.copy_(each[:, kept].flatten(0, 1).view_as(own))
    told = torch.stack([energies[..., 1], energies[..., 0] + energies[..., 2]], -1)
    wanted, urgent = plain.losses(told, experience, states, targets)
    got, found = made.losses(energies, experience, states, targets)
    torch.testing.assert_close(got["critic"], wanted["critic"])
    torch.testing.assert_close(found, urgent)


def test_it_learns_where_actions_are_made_of_parts():
    """As Boxing's: what is said of an action is made of what its parts and itself are worth."""
    parts = ((0, 0), (0, 1), (1, 0), (1, 1))
    actions = ActionSpec(discrete=True, size=ACTIONS, factors=parts)
    made = critic(world=WORLD.model_copy(update={"actions": actions}))
    learned = batch(goals([0, 1, 2, 0, 1, 2]))
    losses, _ = made.losses(*learned)
    losses["critic"].backward()
    assert all(member.last.weight.grad.any() for member in made.members)
    said = made.expect(learned[2][0]).critic_actions
    assert said.shape == (6, ACTIONS, len(HEADS))


def test_without_goals_every_step_is_of_the_one_task():
    made = critic(world=WORLD.model_copy(update={"goal": None}))
    loss, _ = made.losses(*batch(None))
    loss["critic"].backward()
    assert all(member.last.weight.grad.any() for member in made.members)
