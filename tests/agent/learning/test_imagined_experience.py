"""Imagined rollouts follow the world model and Mode-1, and end where episodes end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_training import learner_of, made

from agent.imagination import Imagination
from agent.live import live
from modules.messages import Message
from modules.ports import Batch


def test_a_dream_goes_on_as_the_world_model_says_and_is_over_where_it_ends():
    assembly = made(imagination_horizon=4)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    experience = assembly.agent.memory.sample(8, 4, key)
    _, states, _ = learner.encode(experience, key)
    assert learner.imagined_experience is not None
    dreamt, given, whole = learner.imagined_experience.rollout(experience, states[0], key)
    assert len(given) == 4
    assert len(whole) == 5
    assert whole[0].latent.equal(states[0].latent.detach())
    model = assembly.agent.modules.world_model
    for t in range(4):
        after = model.step(whole[t], dreamt.actions[:, t])
        torch.testing.assert_close(after.latent, whole[t + 1].latent)
        torch.testing.assert_close(after.signals, dreamt.signals[:, t + 1])
    assert not any(state.latent.requires_grad for state in whole)
    ends = torch.stack([state.ended > 0.5 for state in whole], 1)
    for row in range(8):
        first = int(ends[row].long().argmax()) if ends[row].any() else 4
        assert dreamt.mask[row].tolist() == [t <= first for t in range(5)]
    assert "cost/imagined critic" in learner.update()


def test_dreams_branch_by_any_first_action_and_go_on_as_mode_1():
    assembly = made(imagination_horizon=3, rollouts_per_state=16)
    assembly.agent.modules.actor.policy.epsilon = 0.0
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    for _ in range(3):
        learner.update()
    experience = assembly.agent.memory.sample(8, 4, key)
    _, states, _ = learner.encode(experience, key)
    assert learner.imagined_experience is not None
    dreamt, given, whole = learner.imagined_experience.rollout(experience, states[0], key)
    assert whole[0].latent.equal(states[0].latent.detach().repeat_interleave(16, 0))
    assert dreamt.indices.equal(experience.indices.repeat_interleave(16))
    first = dreamt.actions[:, 0].view(8, 16, -1)
    assert bool((first.sum(1) > 0).all()), "each action begins some branch of each state"
    for t in (1, 2):
        said = learner.imagined_experience.modules.cost.action_values(given[t], torch.ones(1, 4))
        assert said is not None
        assert dreamt.actions[:, t].argmax(-1).equal(said.argmin(-1))


def fields_of(message: Message) -> set[str]:
    """The fields that are missing from a message or from one within it, as dotted names."""
    missing = set(type(message).model_fields) - set(message.__dict__)
    for name, value in message.__dict__.items():
        if isinstance(value, Message):
            missing |= {f"{name}.{field}" for field in fields_of(value)}
    return missing


@pytest.mark.parametrize(
    "settings", [{"imagination_horizon": 2}, {"critic_unroll_steps": 2, "ema_rate": 0.5}]
)
def test_modules_meet_whole_messages_and_an_imagination_in_learning(settings, monkeypatch):
    """A module that reads any field of them, or that plans, works in imagined experience too."""
    assembly = made(**settings)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, missing, imagined = learner_of(assembly), set(), []
    modules = assembly.agent.modules

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: object, *arguments: Any) -> Any:
            for message in arguments:
                if isinstance(message, Batch):
                    message = message.experience
                if isinstance(message, Message):
                    missing.update(fields_of(message))
                if isinstance(message, Imagination):
                    imagined.append(message.step(message.start(), torch.eye(2)[[0] * 8]))
                    assert message.energy(imagined[-1]).shape == (8,)
            return method(self, *arguments)

        return call

    for module, verb in ((modules.world_model, "start"), (modules.actor, "act"),
                         (modules.cost, "losses"), (modules.cost, "energy")):  # fmt: skip
        monkeypatch.setattr(type(module), verb, watched(getattr(type(module), verb)))
    losses = learner.update()
    assert {"cost/imagined critic", "cost/unrolled critic"} & set(losses)
    assert missing == set()
    assert bool(imagined) == ("imagination_horizon" in settings)
