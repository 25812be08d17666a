"""A configurator with one directive for all steps: the usual control of a comparison."""

from __future__ import annotations

from modules.configurator.base_directive import BaseDirective, Mode
from modules.messages import Directive, Frozen, Situation


class Fixed:
    """The block `directive:` of the settings in one mode at every step."""

    class Config(Frozen):
        """`mode`: 1 reacts at every step, 2 plans at every step."""

        mode: Mode = 2

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.mode, self.base = config.mode, base
        self._directives: dict[int, Directive] = {}

    def configure(self, situation: Situation) -> Directive:
        """The directive; the same message object each time."""
        return self.initial(situation.batch)

    def initial(self, rows: int) -> Directive:
        """The directive for a number of rows."""
        if rows not in self._directives:
            self._directives[rows] = self.base.uniform(rows, self.mode, 0, "always, as set")
        return self._directives[rows]
