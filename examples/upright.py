"""A drive of one's own: `sextet train Acrobot-v1 --plugin upright --cost.drives=[upright]`.

From this folder; elsewhere put the folder on PYTHONPATH.
"""

from torch import Tensor


class Upright:
    """How far Acrobot's tip is below its highest point: 0 upright, 1 hanging.

    The tip is at height -cos θ₁ - cos(θ₁ + θ₂), -2 to 2. Acrobot observes cos θ₁, sin θ₁, cos θ₂,
    sin θ₂ first, then the angular velocities.
    """

    signals = ("observation_0", "observation_1", "observation_2", "observation_3")

    def energy(self, cos_1: Tensor, sin_1: Tensor, cos_2: Tensor, sin_2: Tensor) -> Tensor:
        """Energies [M], 0 to 1."""
        height = -cos_1 - (cos_1 * cos_2 - sin_1 * sin_2)
        return ((2 - height) / 4).clamp(0, 1)


MODULES = {"drive": {"upright": Upright}}
