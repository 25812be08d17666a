"""What memory returns is an input of policy, critic and world model: in acting, in imagination and
in learning.
"""

from typing import Any

import pytest
import torch

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import merge
from agent.assembly.resolve import preset
from agent.learning.learner import Learner
from agent.live import live
from agent.studies.study import branch, read_study
from modules import chance
from modules.messages import ConfigError, Moment

ROWS = 3


def settings(*trees: dict[str, Any]) -> dict[str, Any]:
    """Those of preset `recall` made small, and what is merged over them."""
    small = {
        "world": {"id": "sextet/Rooms-state-v0", "num_envs": ROWS},
        "memory": {"capacity": 300},
        "learner": {"batch": 8, "warmup_steps": 10},
    }
    tree = merge(preset("recall"), small)
    for one in trees:
        tree = merge(tree, one)
    return tree


def made(*trees: dict[str, Any]) -> Assembly:
    return assemble(settings(*trees), known_kinds(), training=False)


def lived(assembly: Assembly, steps: int = 30) -> list[Moment]:
    return list(live(assembly.agent, assembly.world, steps * ROWS, seed=5))


def learner(assembly: Assembly) -> Learner:
    return Learner(assembly.agent, config=assembly.config.settings.learner, seed=1)


@pytest.fixture(scope="module")
def trained() -> tuple[Assembly, list[Moment], Learner]:
    """An agent after 30 steps and 3 updates, and its moments before these."""
    assembly = made()
    moments, updates = lived(assembly), learner(assembly)
    for _ in range(3):
        updates.update()
    return assembly, moments, updates


def test_windows_hold_what_memory_returned(
    trained: tuple[Assembly, list[Moment], Learner],
) -> None:
    assembly, moments, _ = trained
    sampled = assembly.agent.modules.memory.sample(32, 4, chance.keys(0, 1, 0))
    times, rows = sampled.indices // ROWS, sampled.indices % ROWS
    assert sampled.readouts is not None
    assert sampled.recalled_keys is not None
    for window, (time, row) in enumerate(zip(times.tolist(), rows.tolist(), strict=True)):
        for step in range(int(sampled.mask[window].sum())):
            recalled = moments[time + step].recollection
            assert torch.equal(sampled.readouts[window, step], recalled.readout[row])
            assert torch.equal(sampled.recalled_keys[window, step], recalled.keys[row])
    assert any(bool(moment.recollection.readout.any()) for moment in moments)


def test_memory_returns_what_happened_in_the_same_step(
    trained: tuple[Assembly, list[Moment], Learner],
) -> None:
    _, moments, _ = trained
    for row in range(ROWS):
        latents = torch.stack([moment.state.latent[row] for moment in moments])
        first = int((latents[1:] != latents[:-1]).any(1).int().argmax()) + 1
        recalled, event = moments[first].recollection, latents[first - 1 : first + 1].flatten()
        assert not moments[first - 1].recollection.values[row].any()
        assert torch.allclose(recalled.values[row, 0], event)
        assert recalled.ages[row, 0] == 0


def test_learning_reads_again_what_memory_held_by_its_present_weights() -> None:
    assembly = made()
    moments, updates = lived(assembly), learner(assembly)
    memory: Any = assembly.agent.modules.memory
    sampled = memory.sample(16, 3, chance.keys(0, 1, 0))
    batch = updates.encode(sampled, chance.keys(0, 1, 1))
    then = sampled.readouts
    assert batch.states[0].readout is not None
    assert then is not None
    assert torch.allclose(batch.states[0].readout, then[:, 0], atol=1e-6)
    before = memory.query.last.weight.clone()
    for _ in range(5):
        updates.update()
    # The critic's loss alone reaches the query: the memory has no loss of its own.
    assert not torch.equal(memory.query.last.weight, before)
    again = updates.encode(sampled, chance.keys(0, 1, 1)).states[0].readout
    assert again is not None
    assert not torch.allclose(again, then[:, 0], atol=1e-6)
    assert len(moments) == 30


READERS = {
    "cost.critic": {"cost": {"critic": {"reads_memory": True}}},
    "world_model": {"world_model": {"reads_memory": True}},
    "actor.policy": {"actor": {"policy": {"kind": "categorical", "reads_memory": True}}},
}
NO_READER = {
    "cost": {"critic": {"reads_memory": False}},
    "world_model": {"reads_memory": False, "memory_writes": 0},
    "memory": {"kind": "ring", "capacity": 300},
}


def randomised(assembly: Assembly) -> None:
    """Gives all weights random values: fresh last layers are 0, and read nothing."""
    torch.manual_seed(0)
    modules = assembly.agent.modules
    for module in (modules.world_model, modules.cost, modules.actor):
        if isinstance(module, torch.nn.Module):
            for weight in module.parameters():
                torch.nn.init.normal_(weight, std=0.3)


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_depends_on_what_memory_returns_where_it_is_told_to(reader: str) -> None:
    """Its output changes with the read-out, and that of the other two does not."""
    assembly = made(NO_READER, READERS[reader])
    randomised(assembly)
    moments = lived(assembly, steps=4)
    agent, modules = assembly.agent, assembly.agent.modules
    assert modules.reads_memory
    outputs = []
    for shift in (0.0, 1.0):
        situation = moments[-1].situation(moments[-2], chance.keys(0, ROWS, 3))
        assert situation.state.readout is not None
        state = situation.state.replace(readout=situation.state.readout + shift)
        situation = situation.replace(state=state)
        directive = moments[-1].directive
        imagination = agent.imagination(situation, directive)
        after = imagination.rollout(torch.eye(5)[:2].expand(ROWS, 1, 2, 5)).state
        actor: Any = modules.actor
        policy = {}
        if hasattr(actor.policy, "logits"):
            policy["actor.policy"] = actor.policy.logits(state.inputs(actor.reads_memory))
        outputs.append(
            {
                "cost.critic": modules.cost.energy(state).critic_actions,
                "world_model": after.latent,
                **policy,
            }
        )
        assert torch.equal(after.readout, state.readout)
    changed = {name for name in outputs[0] if not torch.equal(outputs[0][name], outputs[1][name])}
    assert changed == {reader}


def test_no_state_has_a_readout_where_nothing_reads_it() -> None:
    assembly = made(NO_READER)
    assert all(moment.state.readout is None for moment in lived(assembly, steps=2))
    sampled = assembly.agent.modules.memory.sample(4, 2, chance.keys(0, 1, 0))
    assert sampled.readouts is None


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"memory": {"kind": "ring"}}, r"world_model.memory_writes: expected 0 where memory.kind"),
        ({"world_model": {"memory_writes": 0}}, r"memory.kind: 'world-state' holds what the world"),
        (
            {"cost": {"critic": {"reads_memory": False}}, "world_model": {"reads_memory": False}},
            r"memory.kind: 'world-state': expected a module that reads memory",
        ),
        (
            merge(NO_READER, {"interventions": ["clamp:recollection.readout=0"]}),
            r"recollection.readout=0': expected a module that reads memory, got none",
        ),
        (
            {"world": {"settings": {"goal_form": "none"}}},
            r"memory.query_reads_state: expected true in a world without goals that are numbers",
        ),
        ({"interventions": ["ablate:recollection.readout"]}, r"recollection.readout to clamp"),
        ({"interventions": ["clamp:recollection.readout=[1, 2]"]}, r"a list of shape \[152\]"),
        (
            {"world": {"num_envs": 1}, "interventions": ["exchange:recollection.readout"]},
            r"expected at least 2 rows to exchange the read-out among, got 1",
        ),
    ],
)
def test_a_setting_without_effect_is_refused_in_one_line(tree: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as refused:
        made(tree)
    assert "\n" not in str(refused.value)


def test_interventions_change_what_is_returned_and_not_what_is_held() -> None:
    whole = lived(made())
    for written in ("clamp:recollection.readout=0.5", "exchange:recollection.readout"):
        for moment, other in zip(lived(made({"interventions": [written]})), whole, strict=True):
            returned, intended = moment.recollection, other.recollection
            changed = intended.readout.roll(-1, 0)
            if "clamp" in written:
                changed = torch.full_like(changed, 0.5)
            # Until the question nothing that the agent does has an effect.
            if not bool(moment.observation.goal.any()):
                assert torch.equal(returned.readout, changed)
                assert torch.equal(returned.values, intended.values)
                assert torch.equal(moment.state.readout, changed)
    for moment, other in zip(
        lived(made({"interventions": ["shuffle:recollection.readout"]})), whole, strict=True
    ):
        moved = [other.recollection.readout.roll(places, 0) for places in (1, 2)]
        if not bool(moment.observation.goal.any()):
            assert any(torch.equal(moment.recollection.readout, one) for one in moved)


def test_a_restored_memory_goes_on_exactly() -> None:
    first, second = made(), made()
    lived(first)
    lived(second, steps=1)
    memory: Any = first.agent.modules.memory
    other: Any = second.agent.modules.memory
    other.load_tensors(memory.tensors())
    state = memory.last_written().state
    for (name, value), (_, restored) in zip(
        memory.recall(state).tensors(), other.recall(state).tensors(), strict=True
    ):
        assert torch.equal(value, restored), name
    assert torch.equal(
        memory.sample(8, 3, chance.keys(0, 1, 0)).recalled_values,
        other.sample(8, 3, chance.keys(0, 1, 0)).recalled_values,
    )


def test_entries_are_those_of_one_episode() -> None:
    assembly = made({"world": {"episode_steps": 20}})
    for moment in lived(assembly, steps=22):
        if bool(moment.observation.first.any()):
            assert not moment.recollection.readout[moment.observation.first].any()
    memory: Any = assembly.agent.modules.memory
    memory.cut_episodes()
    assert not memory.values.any()


def test_the_study_of_outputs_has_the_agent_of_preset_recall() -> None:
    """Its base is of another agent, so that it names all of them itself."""
    study = read_study("ablate-each-output")
    world = study.world("sextet/Rooms-state-v0")
    own = merge(branch(world.settings), branch(study.arms["recalls"].train.settings))  # type: ignore[union-attr]
    whole = preset("recall")
    for part in ("perception", "world_model", "cost", "memory", "actor", "discount", "directive"):
        assert own[part] == whole[part], part
    assert own["learner"] == whole["learner"]
