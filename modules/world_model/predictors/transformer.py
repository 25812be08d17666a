"""A transformer as predictor: parts of the latent, the action and the tokens attend to another."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu

from modules.messages import ConfigError, Frozen
from modules.world_model.predictors.predictor import (
    PredictorNetwork,
    PredictorSize,
    per_candidate,
)


class TransformerPredictor:
    """The latent is cut into patches; patches, action and directive's tokens are the sequence.

    Pre-norm blocks of self-attention (Vaswani et al. 2017; Xiong et al. 2020), as the predictors of
    I-JEPA (Assran et al. 2023) and DINO-WM (Zhou et al. 2024). The configurator reaches it as LeCun
    2022, §6 proposes: by further tokens of its input. Tokens of 0 are part of the sequence too, so
    no tokens and tokens of 0 are the same.
    """

    class Config(Frozen):
        """Settings of `transformer`.

        patch_size: numbers of the latent in a patch; the last one is padded with 0.
        attention_heads: of each block; they divide the width.
        """

        patch_size: int = Field(default=16, ge=1, le=8192)
        attention_heads: int = Field(default=4, ge=1, le=64)

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def network(self, size: PredictorSize) -> PredictorNetwork:
        """A new network with `size.width` features a patch. Raises ConfigError where the number of
        heads does not divide the width.
        """
        heads = self.config.attention_heads
        if size.width % heads:
            raise ConfigError(
                "config world_model.predictor.attention_heads: expected a divisor of "
                f"world_model.width, {size.width}, got {heads}; try 1"
            )
        return _TransformerNetwork(size, self.config.patch_size, heads)


class _TransformerNetwork(nn.Module):
    """A sequence of P patches, the action and T tokens → features of each patch, [M P·width]."""

    hidden_size = 0

    def __init__(self, size: PredictorSize, patch_size: int, attention_heads: int) -> None:
        super().__init__()
        self.patch_size, self.channels, self._latent_size = patch_size, size.width, size.latent
        self.patches = -(-size.latent // patch_size)
        count, token_width = size.token_shape
        self.token_shape = (count, token_width) if token_width else (0, 0)
        self.embed_patch = nn.Linear(patch_size, size.width)
        self.embed_action = nn.Linear(size.action, size.width)
        self.embed_token = nn.Linear(token_width, size.width, bias=False) if token_width else None
        length = self.patches + 1 + self.token_shape[0]
        self.position = nn.Parameter(torch.randn(length, size.width) * 0.02)
        self.blocks = nn.ModuleList(
            _AttentionBlock(size.width, attention_heads) for _ in range(size.blocks)
        )

    def forward(
        self, latent: Tensor, action: Tensor, tokens: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = len(latent)
        padded = pad(latent, (0, self.patches * self.patch_size - self._latent_size))
        sequence = [
            self.embed_patch(padded.view(rows, self.patches, self.patch_size)),
            self.embed_action(action).unsqueeze(1),
        ]
        if self.embed_token is not None:
            if tokens is None:
                tokens = latent.new_zeros(rows, *self.token_shape)
            embedded = self.embed_token(tokens.reshape(len(tokens), *self.token_shape))
            sequence.append(per_candidate(embedded, rows))
        x = torch.cat(sequence, 1) + self.position
        for block in self.blocks:
            x = block(x)
        return x[:, : self.patches].flatten(1), per_candidate(hidden, rows)

    def readout(self, heads: int) -> nn.Linear:
        return _PatchReadout(self.channels, heads, self.patch_size, self._latent_size)


class _AttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) with a hidden layer of 4·width.

    Both begin at zero, the block as the identity. There is no norm behind the last block: a linear
    path from each patch to its change remains.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for parameter in (*self.attention_out.parameters(), *self.outer.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """A sequence [M L width] → the same form."""
        projected = self.query_key_value(self.attention_norm(x))
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1)
        )
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.attention_out(attended)
        out: Tensor = x + self.outer(silu(self.inner(self.mlp_norm(x))))
        return out


class _PatchReadout(nn.Linear):
    """Features of patches [M P·width] → changes [M K·D], each patch's from its own features."""

    def __init__(self, channels: int, heads: int, patch_size: int, latent_size: int) -> None:
        super().__init__(channels, heads * patch_size)
        self._heads, self._latent_size = heads, latent_size

    def forward(self, features: Tensor) -> Tensor:
        rows = len(features)
        patches = super().forward(features.view(rows, -1, self.in_features))
        by_head = patches.view(rows, patches.shape[1], self._heads, -1).transpose(1, 2).flatten(2)
        return by_head[:, :, : self._latent_size].flatten(1)
