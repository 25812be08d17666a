"""Priming from end to end: the tokens in force at each step reach whoever learns from it (§6)."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import dotted, merge
from agent.assembly.resolve import preset
from agent.learning.learner import Learner
from agent.live import live
from modules import chance
from modules.messages import Moment

WORLD = {"world": {"id": "sextet/Orchard-v0", "num_envs": 2}, "seed": 3}
SMALL = (
    "learner.batch=6",
    "learner.warmup_steps=4",
    "memory.capacity=2000",
    "configurator.priming=1",
)


def made(*overrides: str) -> Assembly:
    tree = merge(merge(preset("learn-tasks"), WORLD), dotted([*SMALL, *overrides]))
    return assemble(tree, known_kinds(()), training=True)


def stirred(assembly: Assembly) -> Assembly:
    """The same with weights that priming changes, as after learning."""
    torch.manual_seed(0)
    for port in ("perception", "world_model"):
        for name, parameter in getattr(assembly.agent.modules, port).named_parameters():
            if "modulate" in name:
                parameter.data.normal_()
    return assembly


def lived(assembly: Assembly, steps: int) -> list[Moment]:
    return list(live(assembly.agent, assembly.world, steps, 3))


@pytest.fixture(scope="module")
def primed() -> Iterator[tuple[Assembly, list[Moment]]]:
    assembly = stirred(made())
    yield assembly, lived(assembly, 440)
    assembly.world.close()


def test_experience_brings_back_the_tokens_that_primed_each_percept(primed: Any):
    assembly, moments = primed
    experience = assembly.agent.modules.memory.sample(64, 5, chance.keys(0, 1, 0))
    firsts = 0
    for i in range(64):
        start, row = divmod(int(experience.indices[i]), 2)
        for t in range(int(experience.mask[i].sum())):
            moment = moments[start + t]
            if moment.observation.first[row]:
                wanted, firsts = torch.zeros(1, 8), firsts + 1
            else:
                wanted = moments[start + t - 1].directive.tokens[row]
                assert wanted.sum() == 1
            assert torch.equal(experience.tokens[i, t], wanted)
    assert firsts


def test_what_is_learned_from_is_what_was_perceived(primed: Any):
    """Identity: under the tokens of the experience, percepts are encoded as they were lived."""
    assembly, moments = primed
    modules = assembly.agent.modules
    experience = modules.memory.sample(32, 3, chance.keys(0, 1, 1))
    with torch.no_grad():
        under = modules.perception.encode_windows(experience, experience.tokens)
        without = modules.perception.encode_windows(experience)
    off = 0.0
    for i in range(32):
        start, row = divmod(int(experience.indices[i]), 2)
        for t in range(int(experience.mask[i].sum())):
            latent = moments[start + t].state.latent[row]
            torch.testing.assert_close(under[i, t], latent, rtol=1e-3, atol=1e-4)
            off = max(off, float((without[i, t] - latent).abs().max()))
    assert off > 0.1


def test_the_first_percept_of_an_episode_is_unprimed_and_the_second_is_not(primed: Any):
    _, moments = primed
    begun = [m for m in moments if m.observation.first.any()]
    assert len(begun) >= 2
    for before, moment in itertools.pairwise(moments):
        known = before.directive.tokens[~moment.observation.first]
        assert torch.equal(known.sum((1, 2)), torch.ones(len(known)))


def test_the_learner_sees_under_the_tokens_of_the_experience(primed: Any):
    modules = primed[0].agent.modules
    learner = Learner(primed[0].agent, config=primed[0].config.settings.learner, seed=0)
    experience = modules.memory.sample(16, learner.window_steps(), chance.keys(0, 1, 2))
    found = []
    with torch.no_grad():
        for tokens in (experience.tokens, torch.zeros_like(experience.tokens), None):
            learned_from = experience.replace(tokens=tokens)
            _, states, targets = learner.encode(learned_from, chance.keys(0, 1, 3))
            found.append(torch.stack([states[0].latent, targets[1].latent]))
    assert ((found[0] - found[1]).abs().amax((1, 2)) > 0.1).all()
    torch.testing.assert_close(found[1], found[2])


@pytest.mark.parametrize("priming", [0.0, 1.0])
def test_priming_is_learned_wherever_tokens_reach_and_not_without_them(priming: float):
    assembly = made(f"configurator.priming={priming}")
    lived(assembly, 60)
    modules = assembly.agent.modules
    learner = Learner(assembly.agent, config=assembly.config.settings.learner, seed=0)
    for _ in range(3):
        learner.update()
    for module in (modules.perception.network, modules.world_model.trunk):
        learned = [p for n, p in module.named_parameters() if "modulate" in n]
        assert learned
        assert any(bool(p.any()) for p in learned) == (priming > 0)
    assembly.world.close()


def test_memory_takes_no_room_for_tokens_that_are_never_anything_but_zero():
    sizes = []
    for priming in (0.0, 1.0):
        assembly = made(f"configurator.priming={priming}")
        lived(assembly, 20)
        memory = assembly.agent.modules.memory
        assert (memory.sample(2, 2, chance.keys(0, 1, 0)).tokens is None) == (priming == 0)
        sizes.append(memory.bytes_per_step)
        assembly.world.close()
    assert sizes[1] - sizes[0] == pytest.approx(8 * 4, abs=1)


def test_a_memory_goes_on_with_its_tokens(primed: Any):
    assembly, _ = primed
    memory = assembly.agent.modules.memory
    wanted = memory.sample(16, 4, chance.keys(0, 1, 5)).tokens
    kept = {name: tensor.clone() for name, tensor in memory.tensors().items()}
    memory.load_tensors(kept)
    assert torch.equal(memory.sample(16, 4, chance.keys(0, 1, 5)).tokens, wanted)


def test_arms_of_the_comparison_differ_in_tokens_alone():
    """Both know the task: same weights at first, same sub-goals; only what is primed differs."""
    one, other = made("configurator.priming=0"), made()
    for mine, theirs in zip(lived(one, 120), lived(other, 120), strict=True):
        assert torch.equal(mine.directive.v, theirs.directive.v)
        assert torch.equal(mine.directive.u, theirs.directive.u)
        assert torch.equal(mine.state.latent, theirs.state.latent)
        assert torch.equal(mine.plan.action, theirs.plan.action)
        assert not mine.directive.tokens.any()
        assert theirs.directive.tokens.sum((1, 2)).tolist() == [1.0, 1.0]
    one.world.close()
    other.world.close()
