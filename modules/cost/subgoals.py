"""Sub-goal heads: one critic head for each task of a family (LeCun 2022, §6).

Setting sub-goals is the configurator's most important function (LeCun 2022, §6). Here a task is a
column of the world's one-hot goal. Each task has a critic head, and the configurator sets a
sub-goal by giving that head a weight in v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.cost.critic import EnsembleCritic
from modules.cost.value_function import ActionValues
from modules.messages import Experience, State, WorldSpec
from modules.weights import subgoal, subgoals
from modules.weights import weights as weights_of

TASK_DRIVES = ("score", "goal")
"""The drives whose energy depends on the task: the sub-goal heads estimate their weighted sum."""


class SubgoalValues(ActionValues):
    """As `ActionValues`; the sub-goal heads, the last ones, share an additional output.

    A sub-goal head = the shared output + its own. Tasks that are alike, as a primed perception may
    make them, train the shared output together.
    """

    def __init__(self, world: WorldSpec, heads: tuple[str, ...]) -> None:
        super().__init__(world, heads)
        self.tasks = sum(subgoals(heads))

    def output_size(self, head_size: int) -> int:
        """(1 + advantage terms)·(L + 1)·Z."""
        return super().output_size(head_size) + (1 + self.terms.shape[1]) * head_size

    def arrange(self, output: Tensor, head_size: int) -> Tensor:
        """As of any actions, after the shared output is added to the sub-goal heads."""
        parts = output.view(
            *output.shape[:-1], 1 + self.terms.shape[1], self.shape[1] + 1, head_size
        )
        shared, drives = parts[..., -1:, :], self.shape[1] - self.tasks
        heads = torch.cat([parts[..., :drives, :], parts[..., drives:-1, :] + shared], -2)
        return super().arrange(heads.flatten(-3), head_size)


class SubgoalCritic(EnsembleCritic):
    """TC_k(s, a) for each task k: the future energy of score and goal where k is the task.

    Only steps of task k train head k. Drives that do not depend on the task (pain, effort, novelty)
    keep heads of their own. A world without goals is one task. At each step all heads bootstrap
    from the action of least energy under the drives' weights and the head of the step's task.
    """

    task_weights: Tensor

    class Config(EnsembleCritic.Config):
        """As `actions`; `drive_weights` of score and goal also weigh their sum in a sub-goal."""

    value_function = SubgoalValues

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
        readout_size: int = 0,
    ) -> None:
        weights = weights_of(config.drive_weights, heads, "cost.critic.drive_weights")
        self.tasks = world.goal or 1
        self.own_drives = [i for i, name in enumerate(heads) if name not in TASK_DRIVES]
        own = {heads[i]: float(weights[i]) for i in self.own_drives}
        names = tuple(subgoal(task) for task in range(self.tasks))
        super().__init__(
            config=config.model_copy(update={"drive_weights": own | dict.fromkeys(names, 1.0)}),
            world=world,
            latent_size=latent_size,
            heads=(*own, *names),
            discount=discount,
            readout_size=readout_size,
        )
        of_task = torch.tensor([name in TASK_DRIVES for name in heads])
        self.register_buffer("task_weights", weights * of_task, persistent=False)

    def losses(
        self,
        energies: Tensor,
        experience: Experience,
        states: list[State],
        targets: list[State],
        head_mask: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As of any critic; `energies` [B W K] of the drives. A step trains its task's head."""
        task = (energies @ self.task_weights).unsqueeze(-1)
        task = task.expand(*energies.shape[:-1], self.tasks)
        return super().losses(
            torch.cat([energies[..., self.own_drives], task], -1),
            experience,
            states,
            targets,
            self._head_mask(experience),
        )

    def _head_mask(self, experience: Experience) -> Tensor | None:
        """The heads that each step trains, [B W L], 1 or 0; None: all."""
        if experience.goals is None:
            return None
        task = torch.nn.functional.one_hot(experience.goals.argmax(-1), self.tasks).float()
        return torch.cat([task.new_ones(*task.shape[:-1], len(self.own_drives)), task], -1)
