"""A configurator steered by hand: from Python, or by keys while the agent plays."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from modules.configurator.base_directive import (
    MODE_VERBS,
    BaseDirective,
    DirectiveChange,
    HorizonSteps,
    Mode,
)
from modules.field_path import RANGES
from modules.messages import ConfigError, Directive, Frozen, Situation
from modules.validation import validated

KEYS: Mapping[str, str] = {
    "1": "react", "2": "think", "m": "other mode", "+": "look further", "-": "look less far",
    ">": "more", "<": "less", "u": "next drive", "c": "commit longer", "x": "commit shorter",
    "r": "as it was set",
}  # fmt: skip
"""Keys and what each does; > and < change the weight of the drive that u has selected."""

LOGGED = 4
"""A reason names at most so many changes."""


@dataclass(frozen=True)
class _Setting:
    """The present setting; replaced as a whole, so that every thread reads a consistent one."""

    mode: int
    base: BaseDirective
    drive: int = 0
    log: tuple[str, ...] = ()

    def changed(self, change: DirectiveChange) -> _Setting:
        """The setting after a change."""
        return replace(self, mode=change.mode or self.mode, base=self.base.changed(change))


class Manual:
    """The base directive in one mode, changed at any time and from any thread.

    `set(mode=1, u={"pain": 2})` and `press("m")` count from the next step on. The
    `configurator_state` [B 1] is the number of changes that the row's reasons have named, so that
    the next reason names the new ones (the last four; an episode that begins names them again).
    Without changes the run is that of `fixed`.
    """

    class Config(Frozen):
        """`mode`: 1 reacts at every step, 2 plans at every step, until it is changed.
        `longest_horizon`: upper limit of the horizon, steps.
        """

        mode: Mode = 2
        longest_horizon: HorizonSteps = 96

        @property
        def horizon_max(self) -> int:
            """The longest horizon that can be set, steps."""
            return self.longest_horizon

    keys = KEYS
    """Keys and what each does."""

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.drives, self.heads = base.drives, base.heads
        longest = max(config.longest_horizon, base.settings.horizon_steps)
        self.longest_horizon = min(longest, base.horizon_max)
        self._first = self._present = _Setting(config.mode, base)
        # A key reads the present setting and changes it under one lock, `set` within `press`.
        self._lock = threading.RLock()

    @property
    def status(self) -> str:
        """The present setting in a few words."""
        now = self._present
        settings, drive = now.base.settings, self.drives[now.drive]
        return (
            f"Mode-{now.mode}, {settings.horizon_steps} ahead, {settings.commit_steps} at a time, "
            f"{drive.replace('_', ' ')} ×{float(now.base.u[now.drive]):g}"
        )

    def set(self, **changes: Any) -> str:
        """Changes fields of the directive from the next step on; what changed, in words.

        `mode`, `u`, `v` (by name), `horizon_steps`, `model_calls`, `commit_steps`, `futures`,
        `latent_temperature`, `risk`, `adversarial`. Raises ConfigError and changes nothing if one
        is unknown or out of range.
        """
        change = validated(DirectiveChange, changes, "configurator.set ")
        with self._lock:
            return self._replace(self._present.changed(change))

    def _replace(self, after: _Setting, key: str | None = None) -> str:
        before, settings = self._present, after.base.settings
        if settings.horizon_steps > self.longest_horizon:
            raise ConfigError(
                f"configurator.set horizon_steps: expected at most {self.longest_horizon}, got "
                f"{settings.horizon_steps}; raise configurator.longest_horizon"
            )
        words = self._difference(before, after)
        if not words:
            return "nothing changed"
        by = f" (key {key})" if key else ""
        self._present = replace(after, log=(*before.log, f"{words}{by}"))
        return words

    def _difference(self, before: _Setting, after: _Setting) -> str:
        """What is different after, in words."""
        old, new = before.base.settings, after.base.settings
        pairs: dict[str, tuple[float, float]] = {"mode": (before.mode, after.mode)}
        weights = [("u", self.drives, before.base.u, after.base.u)]
        # A head that is not named has the weight of its drive: no change of its own.
        if old.v != new.v:
            weights.append(("v", self.heads, before.base.v, after.base.v))
        for field, names, a, b in weights:
            values = zip(a.tolist(), b.tolist(), strict=True)
            pairs |= {f"{field}.{name}": pair for name, pair in zip(names, values, strict=True)}
        for field in type(new).model_fields:
            if field not in ("u", "v"):
                pairs[field.replace("_", " ")] = getattr(old, field), getattr(new, field)
        return ", ".join(f"{name} {a:g} → {b:g}" for name, (a, b) in pairs.items() if a != b)

    def press(self, key: str) -> str | None:
        """What a key changes, in words; None if it has no meaning. Never raises."""
        if key not in KEYS:
            return None
        with self._lock:
            now = self._present
            if key == "u":
                self._present = replace(now, drive=(now.drive + 1) % len(self.drives))
                return f"picked {self.drives[self._present.drive]}"
            if key == "r":
                return self._replace(replace(self._first, drive=now.drive), key)
            return self._replace(now.changed(self._change(now, key)), key)

    def _change(self, now: _Setting, key: str) -> DirectiveChange:
        """The change that a key makes."""
        settings, factor = now.base.settings, 2 if key in "+c" else 0.5
        if key in "12m":
            return DirectiveChange(mode=3 - now.mode if key == "m" else int(key))
        if key in "+-":
            horizon = max(settings.horizon_steps * factor, 1)
            return DirectiveChange(horizon_steps=int(min(horizon, self.longest_horizon)))
        if key in "cx":
            least, most = RANGES["directive.commit_steps"]
            return DirectiveChange(
                commit_steps=int(min(max(settings.commit_steps * factor, least), most))
            )
        weight = float(now.base.u[now.drive])
        weight = min(weight * 2 or 0.25, 1024.0) if key == ">" else weight / 2
        return DirectiveChange(u={self.drives[now.drive]: weight if weight >= 0.05 else 0.0})

    def initial(self, rows: int) -> Directive:
        """The present setting; no change has been named yet."""
        now = self._present
        return now.base.uniform(rows, now.mode, 1, "always, as set")

    def configure(self, situation: Situation) -> Directive:
        """The present setting; each row's reason names the changes that it has not named yet."""
        now = self._present
        verb, rows = MODE_VERBS[now.mode], situation.batch
        named = situation.previous.directive.configurator_state[:, 0].long().tolist()
        unchanged = f"{verb}: as set by hand" if now.log else f"{verb}: always, as set"
        changes = {n: "; ".join(now.log[n:][-LOGGED:]) for n in set(named)}
        return now.base.directive(
            torch.full((rows,), now.mode),
            torch.full((rows, 1), float(len(now.log))),
            tuple(f"{verb}: by hand, {changes[n]}" if changes[n] else unchanged for n in named),
        )
