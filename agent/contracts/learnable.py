"""Promises of a module that learns (`modules.ports.Learnable`)."""

from __future__ import annotations

import torch
from torch import Tensor

from agent.contracts.promises import promises_in, require
from agent.contracts.subject import SEED, Subject
from modules import chance
from modules.messages import Experience, State
from modules.ports import Batch


def losses_reach_its_parameters(subject: Subject) -> None:
    """Losses are finite scalars whose gradients reach its parameters; priorities are [B]."""
    module, perception = subject.module, subject.modules.perception
    experience = subject.modules.memory.sample(4, 6, chance.keys(SEED, 1, 1))
    # As if every step had been planned, so that a policy has targets to distil.
    experience = experience.replace(mode2_mask=experience.mask)
    with torch.enable_grad():
        online = perception.encode_windows(experience, None, None)
        losses, priorities = module.losses(
            Batch(experience, _states(experience, online), _states(experience, online.detach())),
            chance.keys(SEED, 1, 2),
        )
        own = [p for p in module.parameters() if p.requires_grad]
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


def _states(experience: Experience, latents: Tensor) -> list[State]:
    """Each of the W steps of latents [B W D] as a state."""
    rows, steps = experience.mask.shape
    return [
        State.unchecked(
            latent=latents[:, t],
            hidden=torch.zeros(rows, 0),
            signals=experience.signals[:, t],
            ended=(experience.terminated[:, t] | experience.truncated[:, t]).float(),
            uncertainty=torch.zeros(rows),
            goal=None if experience.goals is None else experience.goals[:, t],
        )
        for t in range(steps)
    ]


PROMISES = promises_in(globals())
