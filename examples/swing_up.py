"""A policy written by hand, as an expert to imitate: it swings Pendulum-v1 up and balances it.

    sextet play Pendulum-v1 --plugin swing_up --actor.policy.kind=swing-up --configurator.mode=1 \\
        --configurator.kind=fixed --perception.kind=vectors

Energy shaping (Åström & Furuta 2000) until the pendulum is nearly upright, then a linear feedback.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.messages import Directive, Frozen, Situation, WorldSpec

TORQUE, GRAVITY = 2.0, 10.0
"""The largest torque of Pendulum-v1, and its g; mass and length are 1."""


class SwingUp:
    """Torque from cos θ, sin θ and the angular velocity ω; θ is 0 upright."""

    class Config(Frozen):
        """`gain`: torque per unit of missing energy. `angle`, `velocity`: the linear feedback."""

        gain: float = 1.0
        angle: float = 15.0
        velocity: float = 4.0

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        self.config = config

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """The encoded torque, [B 1]."""
        # The first numbers of the latent are the observation, each x as 10·asinh(x / 10).
        cos, sin, omega = (10 * (situation.state.latent[:, :3] / 10).sinh()).unbind(1)
        # ½·I·ω² + m·g·l/2·cos θ, with I = 1/3, less what it is upright.
        missing = GRAVITY / 2 * (1 - cos) - omega.square() / 6
        direction = torch.where(omega == 0, 1.0, omega.sign())
        pumping = self.config.gain * missing * direction
        angle = torch.atan2(sin, cos)
        balancing = -self.config.angle * angle - self.config.velocity * omega
        torque = torch.where(cos > 0.9, balancing, pumping)
        return (torque / TORQUE).clamp(-1, 1).unsqueeze(1)


MODULES = {"policy": {"swing-up": SwingUp}}
