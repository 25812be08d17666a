"""The settings of a run that belong to no module: world, learning, training and the run itself.

Each class is validated by pydantic; what a module can be set to stands in its own `Config`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.learning.learner import Learner


class WorldSettings(BaseModel):
    """Which world, how many rows of it, under which dynamics.

    `protocol`: None where the world has no protocols or its own default is wanted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    num_envs: int = Field(default=1, ge=1, le=1024)
    protocol: str | None = None


class TokenSettings(BaseModel):
    """The directive's tokens: how many, and how wide each is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    count: int = Field(default=4, ge=1, le=64)
    width: int = Field(default=32, ge=1, le=1024)


class TrainingSettings(BaseModel):
    """The schedule of a training, in steps summed over environments; an interval of 0: only at the
    end.

    `init_from`: a bundled agent, run or checkpoint whose weights are loaded first; None: fresh.
    `vectorized_env`: the vectorised Atari environment; not used where the world model is the
    emulator. `evaluation`: settings that differ in evaluation, a configuration tree.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = Field(default=100_000, ge=1)
    report_every: int = Field(default=1_000, ge=0)
    evaluate_every: int = Field(default=10_000, ge=0)
    evaluate_episodes: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=10_000, ge=0)
    init_from: str | None = None
    vectorized_env: bool = True
    evaluation: dict[str, Any] = Field(default_factory=dict)


class RunSettings(BaseModel):
    """What belongs to no single module.

    `steps` and `episodes` end a run, whichever is reached first; None: no limit of that sort.
    `device`: where learning happens, cpu or cuda; the loop lives on the CPU. `discount`: γ of
    plans and critics, a step. `sum_critic_every_step`: the critic counts at every imagined step,
    as the paper writes it. `lookahead`: λ of a plan's cost, below 1 the critic has its say at
    every depth (`agent.imagination`). `interventions`: laid around the configurator, the first
    innermost, as in `clamp:mode=1`. `plugins`: packages whose modules are used.
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
    tokens: TokenSettings = TokenSettings()
    interventions: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    learner: Learner.Config = Learner.Config()
    training: TrainingSettings = TrainingSettings()
