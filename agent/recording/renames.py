"""Names that version 0.1 wrote into run folders, and what they are called now.

Configurations, weights and traces of 0.1 are read through these tables; nothing on disk is
rewritten. On the command line an old name is refused, and the new one is suggested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.messages import Moment

SETTINGS: dict[str, str] = {
    "literal_cost": "sum_critic_every_step",
    "lookahead": "td_lambda",
    "world.rows": "world.num_envs",
    "learner.ports": "learner.train_modules",
    "learner.target_rate": "learner.ema_rate",
    "learner.reset_keep": "learner.shrink_perturb_alpha",
    "learner.clip_norm": "learner.max_grad_norm",
    "learner.updates_per_step": "learner.replay_ratio",
    "learner.imagined_steps": "learner.imagination_horizon",
    "learner.imagined_branches": "learner.rollouts_per_state",
    "learner.imagined_weight": "learner.imagination_weight",
    "learner.foretold_steps": "learner.critic_unroll_steps",
    "learner.foretold_weight": "learner.critic_unroll_weight",
    "training.begin_with": "training.init_from",
    "training.vector": "training.vectorized_env",
    "perception.wider": "perception.width_multiplier",
    "perception.stack": "perception.frame_stack",
    "perception.gray": "perception.grayscale",
    "perception.shift_pixels": "perception.random_shift_pixels",
    "perception.intensity": "perception.intensity_jitter_std",
    "perception.centred": "perception.subtract_mean_frame",
    "world_model.ensemble": "world_model.ensemble_size",
    "world_model.shaping": "world_model.encoder_grad_scale",
    "world_model.windows": "world_model.batch_fraction",
    "world_model.objective.variance": "world_model.objective.std_coeff",
    "world_model.objective.covariance": "world_model.objective.cov_coeff",
    "world_model.objective.floor": "world_model.objective.target_std",
    "world_model.objective.projections": "world_model.objective.num_slices",
    "world_model.objective.knots": "world_model.objective.num_points",
    "cost.critic.members": "cost.critic.ensemble_size",
    "cost.critic.target_rate": "cost.critic.ema_rate",
    "cost.critic.n_steps_first": "cost.critic.n_step_start",
    "cost.critic.discount_first": "cost.critic.discount_start",
    "cost.critic.weights": "cost.critic.drive_weights",
    "cost.critic.bins": "cost.critic.num_bins",
    "cost.critic.limit": "cost.critic.v_max",
    "memory.correction_exponent": "memory.beta",
    "memory.recall.scale": "memory.recall.bandwidth",
    "memory.recall.threshold": "memory.recall.gamma",
    "memory.recall.shown": "memory.recall.top_k",
    "actor.replan_surprise": "actor.replan_threshold",
    "actor.shown": "actor.num_logged_candidates",
    "actor.policy.persistence": "actor.policy.repeat_prob",
    "actor.planner.hold": "actor.planner.action_repeat",
    "actor.planner.share": "actor.planner.search_fraction",
    "actor.planner.branches": "actor.planner.refine_samples",
    "actor.planner.fan": "actor.planner.branching_factor",
    "actor.planner.caution": "actor.planner.min_gain_std",
    "actor.planner.elite_share": "actor.planner.elite_fraction",
    "actor.planner.lean": "actor.planner.warm_start_prob",
    "actor.planner.spread": "actor.planner.init_std",
    "actor.planner.spread_least": "actor.planner.min_std",
    "actor.planner.starts": "actor.planner.num_restarts",
    "actor.planner.rate": "actor.planner.learning_rate",
    "configurator.deviations": "configurator.enter_std",
    "configurator.calm_deviations": "configurator.exit_std",
    "configurator.least": "configurator.min_threshold",
    "configurator.dwell_steps": "configurator.min_dwell_steps",
    "configurator.think_every": "configurator.max_idle_steps",
    "configurator.warm_steps": "configurator.warmup_steps",
    "configurator.memory_steps": "configurator.stats_window",
    "configurator.longest_commit": "configurator.max_commit_steps",
    "configurator.calls_per_episode": "configurator.model_calls_per_episode",
}
"""Dotted path of a setting in 0.1 → its path now."""

KINDS: dict[str, dict[str, str]] = {
    "world_model.objective": {"centred": "cosine-centered"},
}
"""Slot → kinds of 0.1 → their names now."""

FIELDS: dict[str, str] = dict(Moment.renamed) | {
    f"{name}.{old}": f"{name}.{new}"
    for name, field in Moment.model_fields.items()
    for old, new in getattr(field.annotation, "renamed", {}).items()
}
"""Dotted path of a field of a recorded moment in 0.1 → its path now."""

WEIGHTS: dict[str, str | None] = {
    "perception/picture.": "perception/pixel_stats.",
    "perception/usual.": "perception/latent_stats.",
    "world_model/felt.": "world_model/signal_head.",
    "world_model/latents.": "world_model/latent_stats.",
    "world_model/strides.": "world_model/delta_stats.",
    "world_model/feelings.": "world_model/signal_stats.",
    "world_model/misses.": "world_model/error_stats.",
    "world_model/updates": None,
}
"""Prefix of the name of a weight in 0.1 → its prefix now, None where there is none."""

SIGNALS: dict[str, str] = {"score": "reward"}
"""Signals of 0.1 → their names now."""


def current_world(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a world, as a trace stores it, under present names."""
    current = dict(spec)
    if "signals" in current:
        current["signals"] = [SIGNALS.get(name, name) for name in current["signals"]]
    actions = current.get("actions")
    if isinstance(actions, Mapping) and "parts" in actions:
        renamed = {"factors" if name == "parts" else name: v for name, v in actions.items()}
        current["actions"] = renamed
    current.pop("steps_limit", None)
    return current


def current_weights(named: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of a checkpoint, named `port/weight` or `group/port/weight`, by their present names,
    in the same order.
    """
    current = {_current_weight(name): tensor for name, tensor in named.items()}
    return {name: tensor for name, tensor in current.items() if name is not None}


def _current_weight(name: str) -> str | None:
    for old, new in WEIGHTS.items():
        head, matched, tail = name.partition(old)
        if matched and (not head or head.endswith("/")):
            return None if new is None else head + new + tail
    return name


def current_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with every setting under its present name.

    `tree` is nested, as in `config.yaml`; `training.evaluation` inside it is a configuration too.
    """
    current = _renamed(tree, "")
    training = current.get("training")
    if isinstance(training, Mapping) and isinstance(training.get("evaluation"), Mapping):
        evaluation = current_settings(training["evaluation"])
        current["training"] = {**training, "evaluation": evaluation}
    return current


def _renamed(tree: Mapping[str, Any], path: str) -> dict[str, Any]:
    current: dict[str, Any] = {}
    for name, value in tree.items():
        here = f"{path}{name}"
        new = SETTINGS.get(here, here).rpartition(".")[2]
        if name == "kind" and isinstance(value, str):
            value = KINDS.get(path.rstrip("."), {}).get(value, value)
        # A file with both names uses the present one.
        if new != name and new in tree:
            continue
        nested = isinstance(value, Mapping) and here != "training.evaluation"
        current[new] = _renamed(value, f"{here}.") if nested else value
    return current
