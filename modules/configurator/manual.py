"""A configurator steered by hand: from Python, or by keys while the agent plays."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field

from modules.configurator.base_directive import BaseDirective, Settings
from modules.configurator.fixed import DOES
from modules.messages import ConfigError, Directive, Situation
from modules.weights import known

KEYS: Mapping[str, str] = {
    "1": "react", "2": "think", "m": "other mode", "+": "look further", "-": "look less far",
    ">": "more", "<": "less", "u": "next drive", "c": "commit longer", "x": "commit shorter",
    "r": "as it was set",
}  # fmt: skip
"""The keys it knows, and what each does; > and < weigh the drive that u has picked."""


_TOLD = 4
"""So many changes at most are told at once."""


@dataclass(frozen=True)
class _Hand:
    """What the hand has set; replaced whole, so that any thread reads one that is consistent."""

    standing: BaseDirective
    settings: dict[str, Any]
    picked: int = 0
    log: tuple[str, ...] = ()


class Manual:
    """A fixed configurator until somebody changes its mind, at any time and from any thread.

    `set(mode=1, u={"pain": 2})` or `press("m")` count from the next step on. The carry [B 1]
    holds how many changes a row has heard of, so that the reason of its next directive tells the
    others (the last four; an episode that begins hears of them again). What the hand did is in
    the directives of the trace; without a hand the run is that of `fixed`.
    """

    class Config(Settings):
        """Where the hand begins. `mode`: 1 reacts at every step, 2 plans at every step.

        `longest_horizon`: how far the hand may make plans look, steps.
        """

        kind: Literal["manual"] = "manual"
        mode: int = Field(2, ge=1, le=2)
        longest_horizon: int = Field(96, ge=1, le=1000)

        @property
        def horizon_max(self) -> int:
            """The longest horizon any directive may ask, steps."""
            return max(self.longest_horizon, self.horizon_steps)

    def __init__(
        self,
        *,
        standing: BaseDirective,
        mode: int = 2,
        longest_horizon: int = 96,
    ) -> None:
        self.standing, self.drives, self.heads = standing, standing.drives, standing.heads
        longest = max(longest_horizon, standing.horizon_steps)
        self.longest_horizon = min(longest, standing.horizon_max)
        self._first: dict[str, Any] = {"mode": mode, **standing.settings}
        # A key is read against what is set and changes it in one go, `set` within `press`.
        self._lock = threading.RLock()
        self._hand = _Hand(self._standing(self._first), self._first)

    def _standing(self, settings: Mapping[str, Any]) -> BaseDirective:
        own = {name: value for name, value in settings.items() if name != "mode"}
        return self.standing.changed(**own)

    @property
    def keys(self) -> Mapping[str, str]:
        """The keys and what they do."""
        return KEYS

    @property
    def status(self) -> str:
        """What is set now, in a few words."""
        hand = self._hand
        now = hand.settings
        drive = self.drives[hand.picked]
        weight = float(hand.standing.u[hand.picked])
        return (
            f"Mode-{now['mode']}, {now['horizon_steps']} ahead, {now['commit_steps']} at a time, "
            f"{drive.replace('_', ' ')} ×{weight:g}"
        )

    def set(self, **changes: Any) -> str:
        """Changes settings from the next step on; what was changed, in words.

        `mode`, `u`, `v` (by name; what is not named stays), `horizon_steps`, `model_calls`,
        `commit_steps`, `latent_temperature`, `risk`. Raises ConfigError and changes nothing
        where one is unknown or out of range.
        """
        return self._change(changes, None)

    def _change(self, changes: Mapping[str, Any], key: str | None, anew: bool = False) -> str:
        known(changes, tuple(self._first), "configurator.set")
        with self._lock:
            hand = self._hand
            new = dict(self._first if anew else hand.settings)
            for name, value in changes.items():
                new[name] = {**new[name], **value} if isinstance(value, Mapping) else value
            checked = _checked(new)
            if checked["horizon_steps"] > self.longest_horizon:
                raise ConfigError(
                    f"configurator.set horizon_steps: expected at most {self.longest_horizon}, got "
                    f"{checked['horizon_steps']}; raise configurator.longest_horizon"
                )
            told = self._told(hand.settings, checked)
            if not told:
                return "nothing changed"
            by = f" (key {key})" if key else ""
            self._hand = replace(
                hand, standing=self._standing(checked), settings=checked,
                log=(*hand.log, f"{told}{by}"),
            )  # fmt: skip
            return told

    def _told(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
        """What is different, in words."""
        parts = []
        before, after = self._standing(old), self._standing(new)
        for name, value in new.items():
            if name == "u":
                pairs = zip(self.drives, before.u.tolist(), after.u.tolist(), strict=True)
                parts += [f"u.{drive} {a:g} → {b:g}" for drive, a, b in pairs if a != b]
            elif name == "v":
                # Heads weigh what their drives do unless they were named.
                if value != old["v"]:
                    pairs = zip(self.heads, before.v.tolist(), after.v.tolist(), strict=True)
                    parts += [f"v.{head} {a:g} → {b:g}" for head, a, b in pairs if a != b]
            elif value != old[name]:
                parts.append(f"{name.replace('_', ' ')} {old[name]:g} → {value:g}")
        return ", ".join(parts)

    def press(self, key: str) -> str | None:
        """What a key changes, in words; None where it means nothing. Never raises."""
        if key not in KEYS:
            return None
        with self._lock:
            return self._pressed(key)

    def _pressed(self, key: str) -> str:
        hand = self._hand
        now = hand.settings
        if key == "u":
            self._hand = replace(hand, picked=(hand.picked + 1) % len(self.drives))
            return f"picked {self.drives[self._hand.picked]}"
        if key == "r":
            return self._change({}, key, anew=True)
        if key in "12":
            return self._change({"mode": int(key)}, key)
        if key == "m":
            return self._change({"mode": 3 - now["mode"]}, key)
        if key in "+-":
            horizon = now["horizon_steps"] * (2 if key == "+" else 0.5)
            return self._change(
                {"horizon_steps": int(min(max(horizon, 1), self.longest_horizon))}, key
            )
        if key in "cx":
            commit = now["commit_steps"] * (2 if key == "c" else 0.5)
            return self._change({"commit_steps": int(min(max(commit, 1), 1000))}, key)
        weight = float(hand.standing.u[hand.picked])
        weight = min(weight * 2 or 0.25, 1024.0) if key == ">" else weight / 2
        weight = weight if weight >= 0.05 else 0.0
        return self._change({"u": {self.drives[hand.picked]: weight}}, key)

    def initial(self, rows: int) -> Directive:
        """As it is set; no change has been heard of yet."""
        hand = self._hand
        mode = hand.settings["mode"]
        return hand.standing.directive(
            torch.full((rows,), mode),
            torch.zeros(rows, 1),
            (f"{DOES[mode]}: always, as set",) * rows,
        )

    def configure(self, situation: Situation) -> Directive:
        """As it is set now; the reason tells the last change to a row that has not heard of it."""
        hand = self._hand
        does, rows = DOES[hand.settings["mode"]], situation.batch
        heard = situation.previous.directive.configurator_state[:, 0].long().tolist()
        calm = f"{does}: as set by hand" if hand.log else f"{does}: always, as set"
        told = {h: "; ".join(hand.log[h:][-_TOLD:]) for h in set(heard)}
        return hand.standing.directive(
            torch.full((rows,), hand.settings["mode"]),
            torch.full((rows, 1), float(len(hand.log))),
            tuple(f"{does}: by hand, {told[h]}" if told[h] else calm for h in heard),
        )


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings within their ranges. Raises ConfigError naming the first that is not."""
    from pydantic import ValidationError

    try:
        made = Manual.Config.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"configurator.set {where}: {first['input']!r} is not "
            f"{first['msg'].removeprefix('Input should be ')}"
        ) from None
    return {name: getattr(made, name) for name in settings}
