"""The settings of a run that belong to no module: world, directive, learning, training, the run.

The settings of a module are fields of its own `Config`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modules.configurator.base_directive import DirectiveSettings


class WorldSettings(BaseModel):
    """`id`: the world. `num_envs`: copies of it side by side (rows). `protocol`: the rules of an
    Atari game, such as `100k`; None: the default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    num_envs: int = Field(default=1, ge=1, le=1024)
    protocol: str | None = None


class TokenSettings(BaseModel):
    """The directive's tokens: `count` T of `width` E."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    count: int = Field(default=4, ge=1, le=64)
    width: int = Field(default=32, ge=1, le=1024)


class LearnerSettings(BaseModel):
    """How the modules learn.

    train_modules: which modules learn, all where none is named; the others stay as they are.
    batch: windows an update, as long as the modules ask for. online_steps: how many of their first
    steps the learning perception encodes; the average one encodes all. learning_rate,
    weight_decay, epsilon: of AdamW. max_grad_norm: largest norm of the gradient. ema_rate: share
    of the modules that their averages take over in an update, 1: all; the averages encode what
    followed, are evaluated and kept. precision: of what perceptions compute in learning; bfloat16
    is up to twice as fast on a processor that has it, another computes in float32.
    replay_ratio: may be a fraction. warmup_steps: lived before the first update. reset_every:
    updates between resets, 0: never. shrink_perturb_alpha: what perception and world model keep of
    themselves then. imagination_horizon: how far the critic learns from imagined futures, 0: from
    experience alone. rollouts_per_state: how many such futures of each state. imagination_weight:
    of that loss. critic_unroll_steps: how far the critic also learns from what the world model
    foretells of what was done. critic_unroll_weight: of that loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    train_modules: tuple[str, ...] = ()
    batch: int = Field(default=32, ge=1)
    online_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=10.0, gt=0)
    ema_rate: float = Field(default=1.0, gt=0, le=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    replay_ratio: float = Field(default=1.0, ge=0)
    warmup_steps: int = Field(default=500, ge=2)
    reset_every: int = Field(default=0, ge=0)
    shrink_perturb_alpha: float = Field(default=0.5, ge=0, le=1)
    imagination_horizon: int = Field(default=0, ge=0, le=100)
    rollouts_per_state: int = Field(default=1, ge=1, le=64)
    imagination_weight: float = Field(default=1.0, ge=0)
    critic_unroll_steps: int = Field(default=0, ge=0, le=100)
    critic_unroll_weight: float = Field(default=1.0, ge=0)


class TrainingSettings(BaseModel):
    """When things happen in training, in steps summed over rows; 0: at its end alone.

    `init_from`: a trained agent whose weights it begins with, bundled or a folder; None: fresh.
    `vectorized_env`: Atari at training speed; without effect where the world model is the emulator.
    `evaluation`: what is set otherwise while evaluating.
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
    """Settings that belong to no single module.

    `steps` and `episodes` end a run, the first that is reached; None: no such limit. `device`:
    where the modules learn, cpu or cuda; the loop runs on the CPU. `discount`: γ of plans and
    critics, per step. `sum_critic_every_step`: the cost of a plan sums the critic over its steps,
    as the paper writes it. `td_lambda`: λ of a plan's cost; below 1 it is the λ-mixture over all
    depths (`agent.imagination`). `tokens`: the size of the directive's tokens. `directive`: the
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
    tokens: TokenSettings = TokenSettings()
    directive: DirectiveSettings = DirectiveSettings()
    interventions: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    learner: LearnerSettings = LearnerSettings()
    training: TrainingSettings = TrainingSettings()
