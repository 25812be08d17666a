"""Promises of a module that learns (`modules.ports.Learnable`)."""

from __future__ import annotations

import torch

from agent.contracts.promises import promises_in, require
from agent.contracts.subject import SEED, Subject
from modules import chance
from modules.ports import Batch, WritableMemory, encoded_states


def losses_reach_its_parameters(subject: Subject) -> None:
    """Losses are finite scalars whose gradients reach its parameters; priorities are [B]."""
    module, perception = subject.module, subject.modules.perception
    experience = subject.modules.memory.sample(4, 6, chance.keys(SEED, 1, 1))
    # As if every step had been planned, so that a policy has targets to distil.
    experience = experience.replace(mode2_mask=experience.mask)
    with torch.enable_grad():
        online = perception.encode_windows(experience, None, None)
        losses, priorities = module.losses(
            Batch(
                experience,
                encoded_states(experience, online),
                encoded_states(experience, online.detach()),
            ),
            chance.keys(SEED, 1, 2),
        )
        own = [p for p in module.parameters() if p.requires_grad]
        if isinstance(module, WritableMemory):
            require(not losses, "expected no losses of its own: those who read a memory train it")
            return
        require(bool(losses) == bool(own), "expected losses exactly where it has parameters")
        if not own:
            return
        for name, loss in losses.items():
            require(loss.ndim == 0 and loss.isfinite(), f"{name} is not one finite number")
        total = torch.stack(list(losses.values())).sum()
        gradients = torch.autograd.grad(total, own, allow_unused=True)
    reached = any(g is not None and g.any() for g in gradients)
    require(reached, "no gradient reached its parameters")
    if priorities is not None:
        require(priorities.shape == (4,), f"priorities: expected [4], got {[*priorities.shape]}")
    module.on_update()


PROMISES = promises_in(globals())
