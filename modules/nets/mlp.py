"""Networks of fully connected layers, modulated by tokens."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from modules.nets.film import FiLM


class MLP(nn.Module):
    """`layers` hidden layers (SiLU) of `width`, each modulated by tokens, then a linear one.

    With `zero_output` the last layer begins at zero: the output is exactly 0 until it is trained.
    With `layer_norm` each hidden layer is normalised before it is modulated (Ba et al. 2016).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        layers: int = 2,
        token_shape: tuple[int, int] = (0, 0),
        zero_output: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        sizes = [inputs, *[width] * layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) if layer_norm else nn.Identity() for _ in range(layers)
        )
        self.films = nn.ModuleList(FiLM(token_shape, width) for _ in range(layers))
        self.last = nn.Linear(sizes[-1], outputs)
        if zero_output:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """`x` [M inputs] → [M outputs] under `tokens` [B T E]."""
        for linear, norm, film in zip(self.hidden, self.norms, self.films, strict=True):
            x = nn.functional.silu(film(norm(linear(x)), tokens))
        out: Tensor = self.last(x)
        return out


class ResidualMLP(nn.Module):
    """A linear layer, then `blocks` of x + W₂·SiLU(FiLM(W₁·norm(x))).

    Each block begins as the identity (W₂ = 0), so a deep network begins as a linear one. There is
    no norm at the end: a linear path from input to output remains, which the prediction of a linear
    world needs, since a norm discards the scale of its input.
    """

    def __init__(
        self, inputs: int, width: int, blocks: int, token_shape: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.films = nn.ModuleList(FiLM(token_shape, width) for _ in range(blocks))
        outer = [nn.Linear(width, width) for _ in range(blocks)]
        for linear in outer:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.outer = nn.ModuleList(outer)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """`x` [M inputs] → features [M width] under `tokens` [B T E]."""
        x = self.first(x)
        for norm, inner, film, outer in zip(
            self.norms, self.inner, self.films, self.outer, strict=True
        ):
            x = x + outer(nn.functional.silu(film(inner(norm(x)), tokens)))
        return x
