"""A drive of one's own: named signals in, energy out. From this folder (or PYTHONPATH naming it):

    sextet train Acrobot-v1 --plugin upright --cost.drives=[upright]
    python upright.py ../docs/figures/upright.png

The second command trains Acrobot for 6000 steps with seed 0, once by this drive alone and once by
the reward alone (-1 a step until the tip is up), and draws the returns of both.
"""

from __future__ import annotations

import sys

from torch import Tensor


class Upright:
    """How far Acrobot's tip is below its highest point: 0 upright, 1 hanging.

    The height of the tip is -cos θ₁ - cos(θ₁ + θ₂), -2 to 2. Acrobot observes cos θ₁, sin θ₁,
    cos θ₂, sin θ₂ and two angular velocities.
    """

    signals = ("observation_0", "observation_1", "observation_2", "observation_3")

    def energy(self, cos_1: Tensor, sin_1: Tensor, cos_2: Tensor, sin_2: Tensor) -> Tensor:
        """Energies [M], 0 to 1."""
        height = -cos_1 - (cos_1 * cos_2 - sin_1 * sin_2)
        return ((2 - height) / 4).clamp(0, 1)


MODULES = {"drive": {"upright": Upright}}


def mean_energy(agent: object, *settings: str, **options: object) -> float:
    """The mean energy of the only drive over 1000 steps of an agent."""
    from agent import live, load

    player = load(agent, *settings, plugins=("upright",), **options)
    steps = live(player.agent, player.world, steps=1000, seed=0)
    return sum(moment.energies.intrinsic.item() for moment in steps) / 1000


def figure(path: str, steps: int = 6000, every: int = 500) -> None:
    """Trains by each drive, prints the energy of `upright` before and after, draws the returns."""
    from matplotlib import pyplot

    from agent import train

    _, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    evaluated = (f"training.evaluate_every={every}", "training.evaluate_episodes=5")
    for drive, label in (("upright", "upright"), ("score", "score: the reward")):
        only = f"cost.drives=[{drive}]"
        run = train("Acrobot-v1", only, *evaluated, steps=steps, seed=0, plugins=("upright",))
        axes.plot(*zip(*run.scores, strict=True), marker=".", label=label)
        if drive == "upright":
            before = mean_energy("Acrobot-v1", only, preset="learn-actions")
            print(f"mean energy of upright: {before:.3f} before, {mean_energy(run):.3f} after")
    axes.set(xlabel="steps", ylabel="return (5 episodes)", title="Acrobot-v1, seed 0, drive alone")
    axes.legend()
    pyplot.savefig(path, dpi=120)


if __name__ == "__main__":
    figure(sys.argv[1])
