"""What the world model's objective needs of a training, compared with its settings."""

from __future__ import annotations

from typing import Any

from agent.assembly.resolve import ResolvedConfig
from modules.messages import ConfigError
from modules.objectives.objective import Objective


def require_trainable_objective(config: ResolvedConfig, world_model: Any) -> None:
    """Raises ConfigError where a training would leave the world model's objective, if it has one
    that needs trajectories or pairs of views, or its `target_grad_scale` without effect.
    """
    _require_target_gradient(config, world_model)
    objective, learner = getattr(world_model, "objective", None), config.settings.learner
    trained = learner.train_modules
    slot = config.slots["world_model"].inner.get("objective")
    if slot is None or not isinstance(objective, Objective):
        return
    if trained and "world_model" not in trained:
        return
    kind = slot.kind
    if objective.online_steps > learner.online_steps:
        raise ConfigError(
            f"config learner.online_steps: expected at least {objective.online_steps} with the "
            f"objective '{kind}', which compares consecutive latents, got {learner.online_steps}; "
            f"try learner.online_steps={objective.online_steps}"
        )
    if objective.online_steps == 1 and not objective.compares_views:
        return
    if trained and "perception" not in trained:
        raise ConfigError(
            "config learner.train_modules: expected perception among them with the objective "
            f"'{kind}', which shapes its latents, got {list(trained)}; try "
            "world_model.objective.kind=none"
        )
    if not getattr(world_model.config, "encoder_grad_scale", 1):
        raise ConfigError(
            "config world_model.encoder_grad_scale: expected above 0 with the objective "
            f"'{kind}', which shapes the perception's latents, got 0; try 0.2 or 1"
        )


def _require_target_gradient(config: ResolvedConfig, world_model: Any) -> None:
    """Raises ConfigError where no gradient would reach the encoder through a prediction's target
    although the world model is to have one.
    """
    learner, settings = config.settings.learner, getattr(world_model, "config", None)
    trained = learner.train_modules
    if not getattr(settings, "target_grad_scale", 0) or (trained and "world_model" not in trained):
        return
    slot = config.slots["world_model"]
    if "objective" not in slot.inner:
        raise ConfigError(
            f"config world_model.target_grad_scale: expected 0 with '{slot.kind}', whose "
            "predictions are not judged by encodings, got another; try world_model.kind=jepa"
        )
    needed = world_model.config.unroll_steps + 1
    if learner.online_steps < needed:
        raise ConfigError(
            f"config learner.online_steps: expected at least {needed} with "
            f"world_model.target_grad_scale and unroll_steps={needed - 1}, got "
            f"{learner.online_steps}; try learner.online_steps={needed}"
        )
    if (trained and "perception" not in trained) or not world_model.config.encoder_grad_scale:
        raise ConfigError(
            "config world_model.target_grad_scale: expected a perception that learns from the "
            "world model (learner.train_modules, world_model.encoder_grad_scale), got one that "
            "does not; try world_model.target_grad_scale=0"
        )
