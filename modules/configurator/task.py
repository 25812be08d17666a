"""A configurator of several tasks: weights, sub-goal and tokens of each (LeCun 2022, §6)."""

from __future__ import annotations

import torch
from pydantic import Field

from modules.configurator.base_directive import (
    BaseDirective,
    DirectiveChange,
    Mode,
)
from modules.messages import ConfigError, Directive, Frozen, Situation, WorldSpec
from modules.weights import subgoal


class TaskSettings(DirectiveChange):
    """How the directive of one task differs from the base directive.

    `task`: its number. `tokens`: the first of the T·E numbers that prime the modules, the others
    are 0; None: one-hot, 1 at the task's number.
    """

    task: int = Field(ge=0)
    tokens: tuple[float, ...] | None = None


class Task:
    """A directive for each task of a family: weights, sub-goal, tokens, horizon, mode.

    The task is the largest entry of the world's goal, or the setting `task`. Its sub-goal head of
    the critic has weight 1, those of other tasks 0; without sub-goal heads, heads have the weights
    of their drives. Its tokens prime perception and world model: each learns what a token changes,
    so a one-hot token stands for a learned vector in every layer that it reaches.

    Perception runs before the configurator, so an episode's first percept is not primed: its goal
    is observed with it. From the second step on the previous directive primes perception; where
    `task` is set, from the first.
    """

    class Config(Frozen):
        """`mode`: 1 reacts, 2 plans. `task`: its number; None: from the world's goal. `priming`:
        factor of the tokens, 0 primes nothing. `each`: what differs for some tasks.
        """

        mode: Mode = 1
        task: int | None = Field(None, ge=0)
        priming: float = Field(1.0, ge=0, le=100)
        each: tuple[TaskSettings, ...] = ()

        @property
        def horizon_max(self) -> int:
            """The longest horizon of a task, steps."""
            return max([0, *(one.horizon_steps or 0 for one in self.each)])

    def __init__(self, *, config: Config, base: BaseDirective, world: WorldSpec) -> None:
        self.tasks, self.task, self.priming = world.goal or 1, config.task, config.priming
        self.goal_names_task = world.goal is not None
        numbers = [one.task for one in config.each]
        for number in [*numbers, *([] if self.task is None else [self.task])]:
            if number >= self.tasks:
                raise ConfigError(
                    f"config configurator.task: expected one of the {self.tasks} tasks of "
                    f"{world.id} (0 to {self.tasks - 1}), got {number}"
                )
        if len({*numbers}) < len(numbers):
            raise ConfigError(
                "config configurator.each: expected each task once, got tasks "
                f"{', '.join(map(str, numbers))}"
            )
        by_task = {one.task: one for one in config.each}
        directives = [
            self._directive(by_task.get(number, TaskSettings(task=number)), config.mode, base)
            for number in range(self.tasks)
        ]
        reason = "an episode begins, its task is not known yet; nothing primed"
        unknown = base.uniform(1, config.mode, 0, reason)
        self._table = Directive.joined([*directives, unknown])

    def _directive(self, settings: TaskSettings, mode: int, base: BaseDirective) -> Directive:
        """The directive of a task, one row."""
        task, mode, base = settings.task, settings.mode or mode, base.changed(settings)
        count, width = base.token_shape
        size, head, tokens = count * width, subgoal(task), settings.tokens
        if tokens is None:
            if task >= size:
                raise ConfigError(
                    f"config tokens: expected {self.tasks} numbers or more, one for each task, got "
                    f"{count}x{width}; try tokens.width={self.tasks}"
                )
            tokens = (*(0.0,) * task, 1.0)
        if len(tokens) > size:
            raise ConfigError(
                f"config configurator.each.tokens: expected at most {size} numbers for task {task} "
                f"({count}x{width}), got {len(tokens)}"
            )
        if head in base.heads:
            base = base.changed(DirectiveChange(v={head: 1.0} | base.settings.v))
        flat = torch.zeros(1, size)
        flat[0, : len(tokens)] = torch.tensor(tokens) * self.priming
        source = "the goal says" if self.task is None else "set"
        priming = "primed for it" if bool(flat.any()) else "nothing primed"
        counts = f"sub-goal head {task} counts"
        heads = counts if head in base.heads else "heads count as their drives"
        reason = f"task {task} of {self.tasks} as {source}; {priming}; {heads}"
        directive = base.uniform(1, mode, 0, reason)
        return directive.replace(tokens=flat.view(1, count, width))

    def configure(self, situation: Situation) -> Directive:
        """The directive of each row's task."""
        goal = situation.state.goal
        if self.task is None and goal is not None and self.goal_names_task:
            return self._table.select(goal.argmax(-1))
        return self._table.select(torch.full((situation.batch,), self.task or 0))

    def initial(self, rows: int) -> Directive:
        """The directive of the task that is set, else one that primes nothing."""
        return self._table.select(
            torch.full((rows,), self.tasks if self.task is None else self.task)
        )
