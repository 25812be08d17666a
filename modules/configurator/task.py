"""A configurator for several tasks: it says what counts now, and primes the others for it (§6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from modules.configurator.base_directive import BaseDirective, Settings
from modules.configurator.fixed import DOES
from modules.messages import ConfigError, Directive, Situation, WorldSpec
from modules.weights import subgoal


class TaskSettings(BaseModel):
    """What is different for one task; what is None is as for all.

    `task`: its number. `tokens`: the numbers that prime the modules, the first of the T·E there
    are; None: one-hot, a 1 where the task's number says. `u`, `v`, `mode`, `horizon_steps`,
    `model_calls`, `commit_steps`, `risk`: as for all configurators.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: int = Field(ge=0)
    tokens: tuple[float, ...] | None = None
    mode: int | None = Field(None, ge=1, le=2)
    u: dict[str, float] | None = None
    v: dict[str, float] | None = None
    horizon_steps: int | None = Field(None, ge=1, le=1000)
    model_calls: int | None = Field(None, ge=0, le=10_000_000)
    commit_steps: int | None = Field(None, ge=1, le=1000)
    risk: float | None = Field(None, ge=-1000, le=1000)


class Task:
    """A directive for each task of a family: weights, sub-goal, tokens, horizon, mode.

    The task is the largest entry of the world's goal, or the setting `task`, whatever the world
    says. Its sub-goal head of the critic counts 1, those of other tasks 0; where the critic has
    none, heads count as their drives. Its tokens prime perception and world model: each learns
    for itself what a token is to change, so a one-hot token stands for a learned vector in every
    layer that it reaches.

    Perception speaks before the configurator, so an episode's first percept is unprimed where
    the goal comes with it: nothing was known that could have primed it. From the second on the
    standing directive primes; where `task` is set, from the first.
    """

    class Config(Settings):
        """`mode`: 1 reacts, 2 plans. `task`: the task, None: as the world's goal says. `priming`:
        how large tokens are; 0 primes nothing. `each`: what is different for some tasks.
        """

        kind: Literal["task"] = "task"
        mode: int = Field(1, ge=1, le=2)
        task: int | None = Field(None, ge=0)
        priming: float = Field(1.0, ge=0, le=100)
        each: tuple[TaskSettings, ...] = ()

        @property
        def horizon_max(self) -> int:
            """The longest horizon any directive may ask, steps."""
            return max([self.horizon_steps, *(one.horizon_steps or 0 for one in self.each)])

    def __init__(
        self,
        *,
        standing: BaseDirective,
        mode: int = 1,
        task: int | None = None,
        priming: float = 1.0,
        each: Sequence[TaskSettings | Mapping[str, Any]] = (),
        world: WorldSpec,
    ) -> None:
        tasks, self.task, self.priming = world.goal or 1, task, priming
        given = [e if isinstance(e, TaskSettings) else TaskSettings.model_validate(e) for e in each]
        named = [one.task for one in given] + ([] if task is None else [task])
        if beyond := [number for number in named if number >= tasks]:
            raise ConfigError(
                f"config configurator.task: expected one of the {tasks} tasks of {world.id} (0 to "
                f"{tasks - 1}), got {beyond[0]}"
            )
        own = {one.task: one for one in given}
        if len(own) < len(given):
            raise ConfigError(
                "config configurator.each: expected each task once, got tasks "
                f"{', '.join(str(one.task) for one in given)}"
            )
        made = []
        for number in range(tasks):
            here, does, primes = standing, mode, None
            if (one := own.get(number)) is not None:
                new = one.model_dump(exclude_none=True, exclude={"task", "tokens"})
                does, primes = new.pop("mode", mode), one.tokens
                here = here.changed(**new)
            made.append(self._directive(number, here, does, primes, tasks))
        made.append(
            standing.directive(
                torch.tensor([mode]),
                torch.zeros(1, 0),
                (f"{DOES[mode]}: an episode begins, its task is not known yet; nothing primed",),
            )
        )
        fields = {
            name: torch.cat([getattr(one, name) for one in made]) for name, _ in Directive._tensors
        }
        self._table = Directive(**fields, reason=tuple(one.reason[0] for one in made))
        self._none = tasks

    def _directive(
        self,
        task: int,
        standing: BaseDirective,
        mode: int,
        primes: tuple[float, ...] | None,
        tasks: int,
    ) -> Directive:
        """The directive of a task, one row."""
        count, width = standing.token_shape
        room, head, heads = count * width, subgoal(task), standing.heads
        if primes is None:
            if task >= room:
                raise ConfigError(
                    f"config tokens: expected {tasks} numbers or more, one for each task, got "
                    f"{count}x{width}; try tokens.width={tasks}"
                )
            primes = (*(0.0,) * task, 1.0)
        if len(primes) > room:
            raise ConfigError(
                f"config configurator.each.tokens: expected at most {room} numbers for task {task} "
                f"({count}x{width}), got {len(primes)}"
            )
        if head in heads:
            standing = standing.changed(v={head: 1.0} | standing.settings["v"])
        flat = torch.zeros(1, room)
        flat[0, : len(primes)] = torch.tensor(primes) * self.priming
        primed = "primed for it" if bool(flat.any()) else "nothing primed"
        aims = f"sub-goal head {task} counts" if head in heads else "heads count as their drives"
        directive = standing.directive(
            torch.tensor([mode]),
            torch.zeros(1, 0),
            (f"{DOES[mode]}: task {task} of {tasks} as {self._source}; {primed}; {aims}",),
        )
        return directive.replace(tokens=flat.view(1, count, width))

    @property
    def _source(self) -> str:
        return "the goal says" if self.task is None else "set"

    def configure(self, situation: Situation) -> Directive:
        """The directive of each row's task."""
        goal = situation.state.goal
        task = torch.zeros(situation.batch, dtype=torch.int64)
        if self.task is not None:
            task += self.task
        elif goal is not None:
            task = goal.argmax(-1)
        return self._table.select(task)

    def initial(self, rows: int) -> Directive:
        """That of the task where it is set; else nothing is known, and nothing primed."""
        return self._table.select(
            torch.full((rows,), self._none if self.task is None else self.task)
        )
