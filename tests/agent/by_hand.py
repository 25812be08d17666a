"""Moments of a small life, put together by hand so that every field of them is known."""

import torch

from modules.messages import (
    ActionSpec,
    Directive,
    Energy,
    Moment,
    Observation,
    Plan,
    Recollection,
    State,
    WorldSpec,
)

DRIVES, HEADS = ("score", "pain"), ("score", "pain")
SIGNALS = ("reward", "life_lost", "lives", "end", "effort", "novelty")
PONG = WorldSpec(
    id="ALE/Pong-v5",
    pixels=(210, 160, 3),
    vector=None,
    signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=4, names=("NOOP", "FIRE", "RIGHT", "LEFT")),
)


def state(rows: int, latent: torch.Tensor, signals: torch.Tensor, hidden: int) -> State:
    return State(
        latent=latent,
        hidden=torch.zeros(rows, hidden),
        signals=signals,
        ended=torch.zeros(rows),
        uncertainty=torch.full((rows,), 0.25),
    )


def moment(step: int, rows: int, pixels: tuple[int, int, int] | None, seed: int) -> Moment:
    """Rewarded +1 every 10th step, a life lost every 25th, the game over every 50th."""
    draw = torch.Generator().manual_seed(seed * 10007 + step)
    signals = torch.zeros(rows, 6)
    signals[:, 0], signals[:, 1] = float(step % 10 == 9), float(step % 25 == 24)
    signals[:, 2], signals[:, 3] = 3.0 - step // 25, float(step % 50 == 49)
    over = torch.full((rows,), step % 50 == 49)
    frames = None
    if pixels is not None:
        frames = torch.zeros(rows, *pixels, dtype=torch.uint8)
        frames[:, 10 : 10 + step % 20, 20:30] = 200
    mode = torch.full((rows,), 2 if step % 3 == 0 else 1)
    actions = torch.nn.functional.one_hot(torch.randint(4, (rows, 5), generator=draw), 4).float()
    return Moment(
        step=step,
        observation=Observation(
            pixels=frames,
            vector=torch.randn(rows, 3, generator=draw) if pixels is None else None,
            signals=signals,
            first=torch.full((rows,), step % 50 == 0),
            terminated=over,
            truncated=torch.zeros(rows, dtype=torch.bool),
        ),
        state=state(rows, torch.randn(rows, 32, generator=draw), signals, 7),
        recollection=Recollection(
            keys=torch.randn(rows, 3, 8, generator=draw),
            values=torch.randn(rows, 3, 5, generator=draw),
            weights=torch.full((rows, 3), 0.3),
            ages=torch.tensor([4.0, 9.0, 30.0]).repeat(rows, 1),
            readout=torch.randn(rows, 5, generator=draw),
            novelty=torch.full((rows,), 0.1),
        ),
        energies=Energy(
            intrinsic=torch.randn(rows, 2, generator=draw),
            critic=torch.randn(rows, 2, generator=draw),
            disagreement=torch.rand(rows, generator=draw),
            critic_actions=torch.randn(rows, 4, 2, generator=draw),
        ),
        surprise=torch.rand(rows, generator=draw),
        episode_model_calls=torch.full((rows,), 100 * step),
        episode_step=torch.full((rows,), step % 50),
        directive=Directive(
            mode=mode,
            horizon_steps=torch.full((rows,), 5),
            model_calls=torch.full((rows,), 200),
            commit_steps=torch.ones(rows, dtype=torch.int64),
            u=torch.ones(rows, 2),
            v=torch.ones(rows, 2),
            tokens=torch.zeros(rows, 2, 4),
            futures=torch.ones(rows, dtype=torch.int64),
            latent_temperature=torch.ones(rows),
            risk=torch.zeros(rows),
            adversarial=torch.zeros(rows, dtype=torch.bool),
            configurator_state=torch.zeros(rows, 2),
            reason=tuple(
                f"row {row}: surprise 3.1 above its usual 2.0, plan" for row in range(rows)
            ),
        ),
        plan=Plan(
            actions=actions,
            steps=torch.where(mode == 2, 5, 1),
            remaining_commit=torch.zeros(rows, dtype=torch.int64),
            energy=torch.full((rows,), -0.8),
            mode=mode,
            model_calls=torch.where(mode == 2, 182, 0),
            candidates=actions.unsqueeze(1).repeat(1, 3, 1, 1),
            candidate_energies=torch.tensor([-0.8, -0.5, float("inf")]).repeat(rows, 1),
        ),
        expected=state(rows, torch.randn(rows, 32, generator=draw), signals, 0),
    )
