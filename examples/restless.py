"""A configurator of one's own: `sextet play --plugin restless --configurator.kind=restless`.

From this folder; elsewhere put the folder on PYTHONPATH.
"""

from modules.configurator.fixed import Fixed


class Restless(Fixed):
    """Plans at every third step."""

    def configure(self, situation):
        directive = super().configure(situation)
        plans = situation.episode_step % 3 == 0
        return directive.replace(
            mode=plans.long() + 1,
            reason=tuple("plans: a third step" if p else "reacts" for p in plans.tolist()),
        )


MODULES = {"configurator": {"restless": Restless}}
