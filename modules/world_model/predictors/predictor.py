"""Predictors: the networks within a world model that compute the next latent (LeCun 2022, §4.4)."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class PredictorSize(NamedTuple):
    """The sizes of a predictor's network.

    `latent` D and `action` A: of its inputs. `width`, `blocks`: of the network, settings of the
    world model. `token_shape` (T, E): of the directive's tokens.
    """

    latent: int
    action: int
    width: int
    blocks: int
    token_shape: tuple[int, int]


class PredictorNetwork(Protocol):
    """A `torch.nn.Module`: latent, action and tokens → features [M W] of the change in one step.

    `hidden_size` R: of the recurrent state, 0 without one.
    """

    hidden_size: int

    def __call__(
        self, latent: Tensor, action: Tensor, tokens: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features [M W] and the next recurrent state [M R] of standardised latents [M D] and
        encoded actions [M A].

        `tokens` [M T E] or [M T·E], None: all 0. `hidden` [M R]: the recurrent state, 0 where an
        episode begins. Both may have B rows where M = B·N, the N candidates of a row adjacent.
        """

    def readout(self, heads: int) -> nn.Linear:
        """A layer from features [M W] to the changes of K `heads`, [M K·D], head by head.

        The rows of its `weight` [K·O I] are ordered by head too; O and I are its own.
        """


@runtime_checkable
class Predictor(Protocol):
    """Settings of a predictor. The world model constructs the network, so that its initial weights
    follow from the seed in the order of the world model's layers.
    """

    def network(self, size: PredictorSize) -> PredictorNetwork:
        """A new network. Raises ConfigError where the sizes do not fit, in one line."""


def per_candidate(values: Tensor, rows: int) -> Tensor:
    """`values` [B ...] repeated for the candidates of each row, [M ...]; M = `rows` = B·N."""
    if len(values) == rows:
        return values
    return values.repeat_interleave(rows // len(values), 0)
