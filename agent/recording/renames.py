"""Names that version 0.1 wrote into run folders, and what they are called now.

Configurations, weights and traces of 0.1 are read through these tables; nothing on disk is
rewritten. On the command line an old name is refused, and the new one is suggested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from modules.messages import Moment
from modules.plain_yaml import plain_yaml

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
    "configurator.u": "directive.u",
    "configurator.v": "directive.v",
    "configurator.horizon_steps": "directive.horizon_steps",
    "configurator.model_calls": "directive.model_calls",
    "configurator.commit_steps": "directive.commit_steps",
    "configurator.latent_temperature": "directive.latent_temperature",
    "configurator.risk": "directive.risk",
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
    """A configuration with every setting under its present path.

    `tree` is nested, as in `config.yaml`; `training.evaluation` inside it is a configuration too,
    and so is the configurator in an intervention such as `swap:200={kind: fixed}`. A tree with a
    block `directive` is not of version 0.1: its configurator's settings stay where they are.
    """
    current = _current(tree, moves="directive" not in tree)
    if isinstance(texts := current.get("interventions"), list | tuple):
        current["interventions"] = [_current_intervention(str(text)) for text in texts]
    return current


def _current(tree: Mapping[str, Any], moves: bool) -> dict[str, Any]:
    current: dict[str, Any] = {}
    for path, value in _settings(tree):
        new = SETTINGS.get(path, path)
        if new.partition(".")[0] != path.partition(".")[0] and not moves:
            new = path
        if path == "training.evaluation" and isinstance(value, Mapping):
            value = _current(value, moves)
        elif path.endswith(".kind") and isinstance(value, str):
            value = KINDS.get(path.removesuffix(".kind"), {}).get(value, value)
        # A file with both names uses the present one.
        if new == path or _at(tree, new) is None:
            _put(current, new, value)
    return current


def _settings(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path and the value of each setting; `u: {pain: 0}` is a value."""
    for name, value in tree.items():
        here = f"{path}{name}"
        leaf = here in SETTINGS or here in SETTINGS.values() or here == "training.evaluation"
        names = value if isinstance(value, Mapping) else ()
        if names and not leaf and all(isinstance(n, str) and "." not in n for n in names):
            yield from _settings(value, f"{here}.")
        else:
            yield here, value


def _at(tree: object, path: str) -> object:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _put(tree: dict[str, Any], path: str, value: object) -> None:
    *branches, name = path.split(".")
    for branch in branches:
        tree = tree.setdefault(branch, {})
    tree[name] = value


def _current_intervention(text: str) -> str:
    """`swap:STEP={kind: …}` with the settings of its configurator under their present names."""
    head, _, value = text.partition("=")
    try:
        settings = plain_yaml(value) if head.startswith("swap:") else None
    except ValueError:
        settings = None
    if not isinstance(settings, Mapping) or "directive" in settings:
        return text
    current = _current({"configurator": settings}, moves=True)
    merged = {**current["configurator"], **{k: v for k, v in current.items() if k == "directive"}}
    if merged == settings:
        return text
    flow = yaml.safe_dump(merged, default_flow_style=True, sort_keys=False, width=10_000)
    return f"{head}={flow.strip()}"
