"""The settings of a run that belong to no module: world, directive, tokens, the run.

The settings of a module are fields of its own `Config`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agent.learning.learner import Learner
from agent.learning.training import Training
from modules.configurator.base_directive import DirectiveSettings


class WorldSettings(BaseModel):
    """`id`: the world. `num_envs`: copies of it side by side (rows). `protocol`: the rules of an
    Atari game, such as `100k`; None: the default. `episode_steps`: the length at which an episode
    is truncated; None: the world's own limit, or 10,000 where it has none. `step_seconds`: the
    longest that a step of a world other than Atari may take, seconds; None: no limit. `isolate`:
    such a world runs in a process of its own, whose end or silence does not end this one.
    `settings`: arguments of the constructor of such a world, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    num_envs: int = Field(default=1, ge=1, le=1024)
    protocol: str | None = None
    episode_steps: int | None = Field(default=None, ge=1)
    step_seconds: float | None = Field(default=None, gt=0, le=86_400)
    isolate: bool = False
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class TokenSettings(BaseModel):
    """The directive's tokens: `count` T of `width` E."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    count: int = Field(default=4, ge=1, le=64)
    width: int = Field(default=32, ge=1, le=1024)


class RunSettings(BaseModel):
    """Settings that belong to no single module.

    `steps` and `episodes` end a run, the first that is reached; None: no such limit. `device`:
    where the modules learn, cpu or cuda; the loop runs on the CPU. `discount`: γ of plans and
    critics, per step. `sum_critic_every_step`: the cost of a plan sums the critic over its steps,
    as the paper writes it. `td_lambda`: λ of a plan's cost; below 1 it is the λ-mixture over all
    depths (`agent.imagination`). `branch_steps`: the first steps of a plan, in which futures draw
    latent variables; 0: all. `tokens`: the size of the directive's tokens. `directive`: the
    directive of every configurator, unless it has a reason to depart from it. `interventions`:
    around the configurator, the first innermost, as `clamp:mode=1`. `plugins`: packages whose
    modules are used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    world: WorldSettings
    seed: int = Field(default=0, ge=0, lt=2**31)
    steps: int | None = Field(default=None, ge=1)
    episodes: int | None = Field(default=None, ge=1)
    device: str = "cpu"
    discount: float = Field(default=0.99, gt=0, le=1)
    sum_critic_every_step: bool = False
    td_lambda: float = Field(default=1.0, ge=0, le=1)
    branch_steps: int = Field(default=0, ge=0, le=1000)
    tokens: TokenSettings = TokenSettings()
    directive: DirectiveSettings = DirectiveSettings()
    interventions: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    learner: Learner.Config = Learner.Config()
    training: Training.Config = Training.Config()
