"""A configurator of one's own: `sextet play --plugin restless --configurator.kind=restless`.

From this folder; elsewhere put the folder on PYTHONPATH.
"""

from typing import Literal

from modules.configurator.fixed import Fixed


class Restless(Fixed):
    """Thinks at every third step."""

    class Config(Fixed.Config):
        kind: Literal["restless"] = "restless"  # type: ignore[assignment]

    def configure(self, situation):
        directive = super().configure(situation)
        thinks = situation.episode_step % 3 == 0
        return directive.replace(
            mode=thinks.long() + 1,
            reason=tuple("thinks: a third step" if t else "reacts" for t in thinks.tolist()),
        )


MODULES = {"configurator": {"restless": Restless}}
