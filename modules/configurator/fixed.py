"""A configurator that never changes its mind: the control of every comparison."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from modules.configurator.base_directive import BaseDirective, Settings
from modules.messages import Directive, Situation

DOES = {1: "acts", 2: "thinks"}
"""Mode-1 reacts, Mode-2 plans (LeCun 2022, §3.1), in the words of a reason."""


class Fixed:
    """The same directive at every step, whatever happens."""

    class Config(Settings):
        """Settings that stand. `mode`: 1 reacts at every step, 2 plans at every step."""

        kind: Literal["fixed"] = "fixed"
        mode: int = Field(2, ge=1, le=2)

    def __init__(
        self,
        *,
        standing: BaseDirective,
        mode: int = 2,
    ) -> None:
        self.mode = mode
        self.standing = standing
        self._made: dict[int, Directive] = {}

    def configure(self, situation: Situation) -> Directive:
        """The directive; the very same message each time."""
        return self.initial(situation.batch)

    def initial(self, rows: int) -> Directive:
        """The directive for so many rows."""
        if rows not in self._made:
            self._made[rows] = self.standing.directive(
                torch.full((rows,), self.mode),
                torch.zeros(rows, 0),
                (f"{DOES[self.mode]}: always, as set",) * rows,
            )
        return self._made[rows]
