"""Detection of latent variables z that fail: z leaks, or z is ignored (LeCun 2022, §4.5)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from agent.agent import Agent
from agent.learning.imagined_experience import begun_at, first_moment
from modules import chance
from modules.measures.branches import leakage
from modules.messages import Experience
from modules.ports import LatentVariableModel, encoded_states

FEW_UPDATES = 300
"""Updates before which z is not examined: until the predictor has learned what is certain, z stands
in for it (an overlap of .29 after 320 small updates in CartPole, of .11 after 375 larger ones).
"""

MIN_STEPS = 64
"""Steps below which a read-out is not judged."""

MAX_OVERLAP = 0.5
"""Greatest share of a change that can be read both from z and from the state with its action (.97
of a Gaussian z without limit in CartPole).
"""

MIN_MISSED, MIN_EXPLAINED = 0.05, 0.2
"""Share of a change that draws from the prior must miss for z to be judged, and the least share of
that which the inferred z explains. It is chosen after the fact, so that of codes which differ by
chance the best explains a little (.08 of 8 codes that learned nothing).
"""

_COMPONENTS = 32
"""Principal components of the latents that the read-out of a change takes for the state."""


@torch.no_grad()
def examine_latent(
    agent: Agent, experience: Experience, latents: Tensor, key: Tensor
) -> tuple[dict[str, float], list[str]]:
    """Figures and warnings of the z of an agent's world model on windows of two steps, whose
    `latents` are [B 2 D]; none where it has no z.

    `health/latent_overlap`: R² of the change of the latents read from the inferred z alone, plus
    that read from state and action alone (from the state where z is the action), less 1. The R² of
    independent variables add up to 1 at most, so above it z repeats what state and action
    determine: z leaks (criterion 4).
    `health/latent_explained`: 1 less the error of the change predicted under the inferred z over
    that under draws from the prior; at 0 predictions do not depend on z.
    """
    modules = agent.modules
    if modules.world_model.latent is None:
        return {}, []
    model = cast(LatentVariableModel, modules.world_model)
    over = experience.terminated[:, 0] | experience.truncated[:, 0]
    usable = experience.mask.all(1) & ~over
    if experience.action_mask is not None:
        usable = usable & experience.action_mask[:, 0]
    row = usable.nonzero()[:, 0]
    if len(row) < MIN_STEPS:
        return {}, []
    before, after = (s.select(row) for s in encoded_states(experience, latents))
    action, directive = experience.actions[row, 0], modules.configurator.initial(len(row))
    if experience.tokens is not None:
        directive = directive.replace(tokens=experience.tokens[row, 1])
    keys = chance.keys(int(key), len(row), 0)
    situation = begun_at(before, modules, first_moment(agent, before), keys)
    start = model.start(situation, directive)
    z, _ = model.infer_latent(start, action, after)
    luck = chance.uniform(keys, "luck", model.latent.luck)
    drawn = model.sample_latent(start, action, luck, torch.ones(len(row)))
    change = after.latent - before.latent
    scale = change.square().mean(0)
    moved = scale > 1e-12
    if not bool(moved.any()):
        return {}, []

    def error(z: Tensor) -> float:
        missed = model.complete(model.step(start, action, z)).latent - after.latent
        return float((missed.square().mean(0) / scale)[moved].mean())

    missed, best = error(drawn), error(z)
    known = _components(before.latent)
    if not getattr(model, "infers_actions", False):  # a z that is the action says what it says
        known = torch.cat([known, action], 1)
    overlap = leakage(z, change) + leakage(known, change) - 1
    explained = 1 - best / max(missed, 1e-12)
    figures = {"health/latent_overlap": overlap, "health/latent_explained": explained}
    name, warnings = f"world model {type(model).__name__}", []
    if overlap > MAX_OVERLAP:
        warnings.append(
            f"{name}: z leaks: {overlap:.0%} of a change can be read from z and from state and "
            "action alike; limit z more (world_model.latent)"
        )
    if missed > MIN_MISSED and explained < MIN_EXPLAINED:
        warnings.append(
            f"{name}: z is ignored: {missed:.0%} of a change is not predicted, of which z explains "
            f"{max(explained, 0):.0%}; limit z less (world_model.latent)"
        )
    return figures, warnings


def _components(latents: Tensor) -> Tensor:
    """The coordinates of latents [M D] along their first principal components, [M C]."""
    centred = latents - latents.mean(0)
    left, values, _ = torch.linalg.svd(centred.double(), full_matrices=False)
    used = values > 1e-6 * values[0]
    components: Tensor = (left * values)[:, used][:, :_COMPONENTS]
    return components.float()
