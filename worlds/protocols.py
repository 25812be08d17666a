"""Protocols, which fix how the emulator runs, and sensors, which fix the format of frames.

A protocol sets the dynamics alone. The size and colours of frames are chosen by the agent's
perception, declared as a `Sensor` and applied by the environment.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from modules.messages import ConfigError
from modules.suggest import not_one_of

Reading = Literal["pixels", "vectors"]
"""What a perception asks the observations of a foreign environment to be read as."""


class Protocol(BaseModel):
    """Evaluation protocol of an Atari environment (Machado et al. 2018).

    sticky: probability that a frame repeats the previous frame's action. frame_skip: emulated
    frames a step. noop_max: an episode starts after 0 to noop_max - 1 no-op frames. life_ends:
    in training, the loss of a life terminates the episode and the game continues in the next.
    frames_limit: emulated frames after which a game is truncated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    sticky: float = Field(ge=0, lt=1)
    frame_skip: int = Field(default=4, ge=1)
    noop_max: int = Field(default=0, ge=0)
    life_ends: bool = False
    frames_limit: int = Field(default=108_000, ge=1)


PROTOCOLS: dict[str, Protocol] = {
    # After Machado et al. 2018, "Revisiting the Arcade Learning Environment".
    "v5": Protocol(name="v5", sticky=0.25),
    # Atari 100k (Kaiser et al. 2020, appendix), with the no-op starts of DQN (Mnih et al. 2015).
    "100k": Protocol(name="100k", sticky=0.0, noop_max=30, life_ends=True),
}
"""The protocols by name."""


def protocol_named(name: str | None) -> Protocol:
    """The protocol `name`, `v5` for None.

    Raises: ConfigError for an unknown name, with the most similar one.
    """
    if name is None:
        return PROTOCOLS["v5"]
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol: {not_one_of(name, PROTOCOLS)}")
    return PROTOCOLS[name]


class Sensor(BaseModel):
    """Format of the frames that an agent's perception reads, as in Mnih et al. 2015.

    height, width: pixels after resizing by area. gray: one channel instead of three colours; other
    channels are kept as they are. max_pool: the
    elementwise maximum of a step's last two emulated frames, which removes the flicker of sprites
    drawn on every other frame; None: in Atari only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    height: int = Field(default=84, ge=1, le=1024)
    width: int = Field(default=84, ge=1, le=1024)
    gray: bool = True
    max_pool: bool | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return self.height, self.width, 1 if self.gray else 3
