"""What the rules of a run are, and what an eye may ask for.

A protocol fixes the dynamics alone: how the emulator is run. How a frame is shrunk or coloured is
the agent's choice, declared as a `Sensor` and carried out by the world.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from modules.messages import ConfigError


class Protocol(BaseModel):
    """Rules an Atari world is run by.

    sticky: probability that a frame repeats the action of the frame before. frame_skip: emulated
    frames a step. noop_max: an episode begins after 0 to noop_max - 1 frames of doing nothing.
    life_ends: in training, a lost life ends an episode while the game goes on. frames_limit: a
    game is cut off after so many emulated frames.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    sticky: float = Field(ge=0, lt=1)
    frame_skip: int = Field(default=4, ge=1)
    noop_max: int = Field(default=0, ge=0)
    life_ends: bool = False
    frames_limit: int = Field(default=108_000, ge=1)

    @property
    def steps_limit(self) -> int:
        """Steps after which a game is cut off at the latest."""
        return -(-self.frames_limit // self.frame_skip)


PROTOCOLS: dict[str, Protocol] = {
    # After Machado et al. 2018, "Revisiting the Arcade Learning Environment".
    "v5": Protocol(name="v5", sticky=0.25),
    # What papers on 100k steps do (Kaiser et al. 2020, appendix; DQN's no-op starts).
    "100k": Protocol(name="100k", sticky=0.0, noop_max=30, life_ends=True),
}
"""The protocols by name."""


def protocol_named(name: str | None) -> Protocol:
    """The protocol of that name, `v5` where there is none. Raises ConfigError."""
    if name is None:
        return PROTOCOLS["v5"]
    if name not in PROTOCOLS:
        raise ConfigError(
            f"protocol: {name!r} is not one of {', '.join(PROTOCOLS)}{guess(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]


def guess(got: str, allowed: Iterable[str]) -> str:
    """What to append to an error: the most alike of what is allowed, where one is alike."""
    lowered = {choice.lower(): choice for choice in allowed}
    close = difflib.get_close_matches(got.lower(), lowered, n=1, cutoff=0.5)
    return f". Did you mean {lowered[close[0]]!r}?" if close else ""


class Sensor(BaseModel):
    """What an agent's eye asks of a world that shows frames.

    height, width: pixels, shrunk by area. gray: one channel instead of three. max_pool: the
    brighter of the last two emulated frames at each point, which undoes the flicker of sprites
    drawn on every other frame; None: where the world flickers (Atari).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    height: int = Field(default=84, ge=1, le=1024)
    width: int = Field(default=84, ge=1, le=1024)
    gray: bool = True
    max_pool: bool | None = None
