"""Beam search in imagination (LeCun 2022, §3.1.2 step 5, §5)."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, cheapest, one_hot, ranked, require
from modules.messages import Frozen, WorldSpec
from modules.ports import Futures, Imagination

_MIN_SURVIVAL = 1e-3
"""A future whose episode lasts with at most this probability is not extended further."""


class Beam:
    """Extends each future in the beam by several actions and keeps the cheapest.

    All actions are tried where the budget allows, else those of least critic value.

    The width of the beam at each level is what the budget affords, including what earlier levels
    did not spend. Equal states are kept once. Among futures of equal cost those whose states look
    different are kept, then chance decides, so that the beam spreads where energies do not yet
    differ. The proposals (the rest of the last plan, the policy's action) are extended beside the
    beam to the horizon and enter it where they are cheap.

    The rest of the budget refines the best plan: random variants change it from one decision on, to
    its end or for some decisions; a variant of no higher cost replaces it. The beam is
    wide near the start of a plan, refinement repairs its end.

    Rows planned for together share the width of the beam and what is left for each level, so a
    row may be planned for a little differently beside others than alone, never beyond its budget.
    """

    class Config(Frozen):
        """Beam search for discrete actions.

        `action_repeat`: every decision lasts this many steps, so that a budget reaches further.
        `search_fraction`: share of the budget that the beam may use, the rest refines; 1: beam
        search alone. `refine_samples`: futures sampled together in refinement. `branching_factor`:
        actions tried from each future, those of least critic value; 0: all.
        """

        action_repeat: int = Field(4, ge=1, le=32)
        search_fraction: float = Field(0.3, gt=0, le=1)
        refine_samples: int = Field(4, ge=1, le=64)
        branching_factor: int = Field(0, ge=0)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("beam", world, discrete=True)
        self.action_repeat, self.search_fraction = config.action_repeat, config.search_fraction
        self.refine_samples, self.branching_factor = config.refine_samples, config.branching_factor
        self.choices = world.actions.size

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`. A small budget reduces the width, then the actions tried, then the
        horizon; the first proposal is given up last.
        """
        horizon = max(1, min(proposals.shape[2], budget // 2))
        for_beam = min(budget, max(int(self.search_fraction * budget), 2 * horizon))
        paths, totals, left = self._search(imagination, proposals[:, :, :horizon], key, for_beam)
        # Of equals, chance decides which is first: no action may win by its number.
        shuffled = chance.uniform(key, "beam last", totals.shape[1]).argsort(-1)
        totals = totals.round(decimals=9).gather(1, shuffled)
        paths = paths.gather(1, shuffled.unsqueeze(-1).expand(-1, -1, horizon))
        paths, totals = cheapest(paths, totals)
        refined = self._refine(imagination, paths[:, 0], key, left + budget - for_beam)
        if refined is not None:
            path, total = refined
            paths = torch.cat([path[:, None], paths], 1)
            totals = torch.cat([total[:, None], totals], 1)
        return ranked(one_hot(paths, self.choices), totals)

    def _extend(self, imagination: Imagination, futures: Futures, actions: Tensor) -> Futures:
        """The futures after the actions [B N h], of h steps."""
        for step in range(actions.shape[-1]):
            action = one_hot(actions[:, :, step].flatten(), self.choices)
            futures = imagination.extend(futures, action)
        return futures

    def _search(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> tuple[Tensor, Tensor, int]:
        """The beam: paths [B N H] with their costs [B N] (inf: cut short), and calls left."""
        choices, (rows, _, horizon, _) = self.choices, proposals.shape
        branching_factor = max(
            1, min(self.branching_factor or choices, choices, budget // horizon - 1)
        )
        count = min(proposals.shape[1], budget // horizon - branching_factor)
        proposed = proposals[:, :count].argmax(-1)
        futures = imagination.begin(1 + count)
        path = torch.zeros(rows, 1 + count, 0, dtype=torch.int64)
        width, left, paths, totals = 1, budget, [], []
        for t in range(0, horizon, self.action_repeat):
            until = min(t + self.action_repeat, horizon)
            tried = self._tried(imagination, futures, width, branching_factor, key)
            actions = torch.cat(
                [tried.unsqueeze(-1).expand(-1, -1, until - t), proposed[:, :, t:until]], 1
            )
            origin = torch.cat(
                [
                    torch.arange(width).repeat_interleave(branching_factor),
                    width + torch.arange(count),
                ]
            )
            children = len(origin)
            futures = self._extend(imagination, futures.select(origin.expand(rows, -1)), actions)
            path = torch.cat([path[:, origin], actions], -1)
            total = imagination.cost(futures)
            left -= children * (until - t)
            done = (futures.survival <= _MIN_SURVIVAL) | (until == horizon)
            if bool(done.any()):
                paths.append(torch.nn.functional.pad(path, (0, horizon - until)))
                totals.append(total.masked_fill(~done, torch.inf))
            if bool(done.all()):
                break
            afford = max(1, (left // (horizon - until) - count) // branching_factor)
            noise = chance.uniform(key, f"beam {t}", children)
            best = self._select(imagination, futures, total, noise, afford)
            width = best.shape[1]
            keep = torch.cat([best, (children - count + torch.arange(count)).expand(rows, -1)], 1)
            futures = futures.select(keep)
            path = path.gather(1, keep.unsqueeze(-1).expand(-1, -1, until))
        return torch.cat(paths, 1), torch.cat(totals, 1), left

    def _tried(
        self,
        imagination: Imagination,
        futures: Futures,
        width: int,
        branching_factor: int,
        key: Tensor,
    ) -> Tensor:
        """The actions tried from each of the first `width` futures, [B width·branching_factor]:
        all, or those of least critic value; without action values, random ones. A budget spent
        on every action of a large set would extend one future only.
        """
        rows = len(key)
        if branching_factor == self.choices:
            return torch.arange(branching_factor).repeat(width).expand(rows, -1)
        noise = chance.uniform(key, f"beam fan {futures.steps}", width, self.choices)
        order = noise.argsort(-1)
        beam = futures.select(torch.arange(width).expand(rows, -1))
        values = imagination.action_values(beam)
        if values is not None:
            # Actions of equal value stay in random order.
            shuffled = values.gather(-1, order)
            order = order.gather(-1, shuffled.sort(stable=True, dim=-1).indices)
        return order[:, :, :branching_factor].flatten(1)

    def _refine(
        self, imagination: Imagination, path: Tensor, key: Tensor, budget: int
    ) -> tuple[Tensor, Tensor] | None:
        """A plan [B H] of no higher cost than `path` [B H] and its cost [B], or None where the
        budget is too small.
        """
        rows, horizon = path.shape
        decisions = list(range(0, horizon, self.action_repeat))
        if budget < horizon + self.refine_samples * (horizon - decisions[-1]):
            return None
        budget -= horizon
        # The plan is imagined once more, with the future before each decision in `before`.
        futures, before = imagination.begin(1), []
        for t in decisions:
            before.append(futures)
            futures = self._extend(imagination, futures, path[:, None, t : t + self.action_repeat])
        best = imagination.cost(futures)[:, 0]
        turn = -1
        while True:
            turn += 1
            # Multiples of the golden ratio visit all decisions evenly, in the same order for all
            # rows.
            first = int(len(decisions) * (turn * 0.6180339887 % 1))
            if self.refine_samples * (horizon - decisions[first]) > budget:
                affordable = (
                    d
                    for d, t in enumerate(decisions)
                    if self.refine_samples * (horizon - t) <= budget
                )
                first = next(affordable, len(decisions))
                if first == len(decisions):
                    break
            actions = self._sample(path, key, turn, decisions[first])
            futures = before[first].select(torch.zeros(rows, self.refine_samples).long())
            passed = []
            for t in decisions[first:]:
                passed.append(futures)
                part = actions[:, :, t : t + self.action_repeat]
                futures = self._extend(imagination, futures, part)
                budget -= self.refine_samples * part.shape[-1]
                if bool((futures.survival <= _MIN_SURVIVAL).all()):
                    # No later decision matters, also where the plan before lasted longer.
                    later = decisions[first + len(passed) :]
                    passed += [futures.ended()._replace(steps=step) for step in later]
                    break
            total, which = imagination.cost(futures._replace(steps=horizon)).min(-1)
            better = total <= best + 1e-9
            best = total.where(better, best)
            path = actions[torch.arange(rows), which].where(better[:, None], path)
            for decision, sampled in enumerate(passed[1:], first + 1):
                chosen = sampled.select(which[:, None])
                before[decision] = chosen.where(better, before[decision])
        return path, best

    def _sample(self, path: Tensor, key: Tensor, turn: int, first_step: int) -> Tensor:
        """Sequences [B N H] that leave `path` [B H] at `first_step`; every second one returns to
        it after some decisions.
        """
        rest = path.shape[1] - first_step
        decisions = -(-rest // self.action_repeat)
        drawn = chance.integers(
            key, f"beam branch {turn}", self.choices, self.refine_samples, decisions
        )
        noise = chance.uniform(key, f"beam turn {turn}", self.refine_samples, decisions + 1)
        # A decision repeats the one before with probability 1/2: longer holds reach further.
        for d in range(1, decisions):
            drawn[:, :, d] = drawn[:, :, d - 1].where(noise[:, :, d] < 0.5, drawn[:, :, d])
        drawn = drawn.repeat_interleave(self.action_repeat, -1)[:, :, :rest]
        plan = path.unsqueeze(1).expand(-1, self.refine_samples, -1)
        away_steps = (noise[:, :, :1] * rest).ceil().long()
        away_steps[:, 1::2] = path.shape[1]
        away = torch.arange(rest) < away_steps
        return torch.cat([plan[:, :, :first_step], drawn.where(away, plan[:, :, first_step:])], -1)

    def _select(
        self, imagination: Imagination, futures: Futures, total: Tensor, noise: Tensor, most: int
    ) -> Tensor:
        """The futures kept in the beam, [B W] with W <= `most`."""
        rows, children = total.shape
        ids = imagination.state_ids(futures.state)
        looks = (futures.state.latent if ids is None else ids).view(rows, children, -1).numpy()
        hidden = futures.state.hidden.view(rows, children, -1).numpy()
        random, scores = noise.numpy(), total.round(decimals=6).numpy()
        lasting = (futures.survival > _MIN_SURVIVAL).numpy()
        chosen: list[list[int]] = []
        for row in range(rows):
            states: set[tuple[bytes, bytes]] = set()
            alike: dict[bytes, int] = {}
            ranks: list[tuple[float, int, int, int]] = []
            for rank, child in enumerate(np.lexsort((random[row], scores[row])).tolist()):
                look = looks[row, child].tobytes()
                state = (look, hidden[row, child].tobytes())
                if not lasting[row, child] or state in states:
                    continue
                states.add(state)
                alike[look] = alike.get(look, 0) + 1
                ranks.append((float(scores[row, child]), alike[look], rank, child))
            # Of equally cheap futures those that look different come first.
            chosen.append([child for *_, child in sorted(ranks)[:most]] or [0])
        width = max(map(len, chosen))
        # A row with fewer futures than its neighbours repeats one; repeats merge again later.
        return torch.tensor([row + row[:1] * (width - len(row)) for row in chosen])
