"""Beam search: many short looks ahead, the cheapest kept (LeCun 2022, §3.1.2 step 5, §5)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, one_hot, ranked, require
from modules.messages import State, WorldSpec
from modules.ports import Imagination

_OVER = 1e-3
"""A future this unlikely to last is not looked into further."""

_LISTED = 16
"""So many candidates are reported."""


class Beam:
    """Tries actions from each of the futures it holds, and holds on to the cheapest.

    All actions where the budget allows, else those the critic prefers.

    Its width follows from the budget: as many as can be afforded at every level, more where few
    were needed before. States that are the same are kept once. Where nothing yet tells futures
    apart (energies all alike) those that look different are kept, then chance decides, so that
    the beam spreads. The proposals (the rest of the last plan, the policy's) run beside it to
    the horizon and enter wherever they are cheap.

    What remains of the budget refines the best plan found: futures branch off at one decision
    after another, at random to the horizon or for a while and then back to the plan; one that is
    no dearer replaces it. A beam is wide where plans begin, branches repair where they end.

    Rows planned for together share width and what is left for each level, so beside others a row
    may plan a little otherwise than alone, never beyond its budget.
    """

    class Config(BaseModel):
        """Beam search for discrete actions.

        `action_repeat`: every decision lasts this many steps, so that a budget reaches further.
        `search_fraction`: how much of the budget the beam may use; 1 is a beam search and no more.
        `refine_samples`: how many futures branch off together. `branching_factor`: how many
        actions are tried from each future, those the critic prefers; 0: all.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["beam"] = "beam"
        action_repeat: int = Field(4, ge=1, le=32)
        search_fraction: float = Field(0.3, gt=0, le=1)
        refine_samples: int = Field(4, ge=1, le=64)
        branching_factor: int = Field(0, ge=0)

    def __init__(
        self,
        *,
        action_repeat: int,
        search_fraction: float,
        refine_samples: int,
        world: WorldSpec,
        branching_factor: int = 0,
    ) -> None:
        require("beam", world, discrete=True)
        self.action_repeat, self.search_fraction, self.refine_samples, self.branching_factor = (
            action_repeat,
            search_fraction,
            refine_samples,
            branching_factor,
        )
        self.choices = world.actions.size

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`. A budget too small costs branches, then actions tried, then the
        horizon; what goes on from the last plan is given up last.
        """
        horizon = max(1, min(proposals.shape[2], budget // 2))
        wanted = min(budget, max(int(self.search_fraction * budget), 2 * horizon))
        paths, totals, left = self._search(imagination, proposals[:, :, :horizon], key, wanted)
        # Of equals, chance decides which is first: no action may win by its number.
        shuffled = chance.uniform(key, "beam last", totals.shape[1]).argsort(-1)
        totals = totals.round(decimals=9).gather(1, shuffled)
        paths = paths.gather(1, shuffled.unsqueeze(-1).expand(-1, -1, horizon))
        best = ranked(paths.unsqueeze(-1), totals, _LISTED)
        left += budget - wanted
        refined = self._refine(imagination, best.candidates[:, 0, :, 0], key, left)
        if refined is not None:
            path, total = refined
            best = ranked(
                torch.cat([path[:, None, :, None], best.candidates], 1),
                torch.cat([total[:, None], best.energies], 1),
                _LISTED,
            )
        return Planned(one_hot(best.candidates.squeeze(-1), self.choices), best.energies.float())

    def _stride(
        self,
        imagination: Imagination,
        state: State,
        cost: Tensor,
        alive: Tensor,
        actions: Tensor,
        t: int,
    ) -> tuple[State, Tensor, Tensor]:
        """Some steps of several futures from step `t` on: `actions` [B N h] are carried out,
        their energies added to `cost` [B N], weighed by `alive` [B N].
        """
        for step in range(actions.shape[-1]):
            action = one_hot(actions[:, :, step].flatten(), self.choices)
            if t + step == 0:
                cost = cost + imagination.first(action).view(alive.shape)
            state = imagination.step(state, action)
            toll = imagination.toll(state, t + step).view(alive.shape)
            cost = cost + imagination.discount ** (t + step) * alive * toll
            alive = alive * (1 - state.ended.view(alive.shape))
        return state, cost, alive

    @staticmethod
    def _total(
        imagination: Imagination, state: State, cost: Tensor, alive: Tensor, t: int
    ) -> Tensor:
        """What futures cost if they end after `t` steps, [B N]."""
        rest = imagination.rest(state, t).view(alive.shape)
        return cost + imagination.discount**t * alive * rest

    def _search(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> tuple[Tensor, Tensor, int]:
        """The beam: paths [B N H] with their totals [B N] (inf: cut short), and calls left."""
        choices, (rows, _, horizon, _) = self.choices, proposals.shape
        branching_factor = max(
            1, min(self.branching_factor or choices, choices, budget // horizon - 1)
        )
        given = min(proposals.shape[1], budget // horizon - branching_factor)
        tracks = proposals[:, :given].argmax(-1)
        here = torch.arange(rows)
        state = imagination.start().select(here.repeat_interleave(1 + given))
        cost = torch.zeros(rows, 1 + given, dtype=torch.float64)
        alive = torch.ones(rows, 1 + given, dtype=torch.float64)
        path = torch.zeros(rows, 1 + given, 0, dtype=torch.int64)
        width, left, paths, totals = 1, budget, [], []
        for t in range(0, horizon, self.action_repeat):
            until = min(t + self.action_repeat, horizon)
            tried = self._tried(imagination, state, width, given, branching_factor, key, t)
            tried = tried.unsqueeze(-1).expand(-1, -1, until - t)
            order = torch.cat(
                [
                    torch.arange(width).repeat_interleave(branching_factor),
                    width + torch.arange(given),
                ]
            )
            several = len(order)
            state = state.select(((width + given) * here[:, None] + order).flatten())
            actions = torch.cat([tried, tracks[:, :, t:until]], 1)
            state, cost, alive = self._stride(
                imagination, state, cost[:, order], alive[:, order], actions, t
            )
            path = torch.cat([path[:, order], actions], -1)
            total = self._total(imagination, state, cost, alive, until)
            left -= several * (until - t)
            done = (alive <= _OVER) | (until == horizon)
            if bool(done.any()):
                paths.append(torch.nn.functional.pad(path, (0, horizon - until)))
                totals.append(total.masked_fill(~done, torch.inf))
            if bool(done.all()):
                break
            afford = max(1, (left // (horizon - until) - given) // branching_factor)
            noise = chance.uniform(key, f"beam {t}", several)
            kept = self._select(state, total, alive, noise, afford)
            width = kept.shape[1]
            keep = torch.cat([kept, (several - given + torch.arange(given)).expand(rows, -1)], 1)
            state = state.select((several * here[:, None] + keep).flatten())
            cost, alive = cost.gather(1, keep), alive.gather(1, keep)
            path = path.gather(1, keep.unsqueeze(-1).expand(-1, -1, until))
        return torch.cat(paths, 1), torch.cat(totals, 1), left

    def _tried(
        self,
        imagination: Imagination,
        state: State,
        width: int,
        given: int,
        branching_factor: int,
        key: Tensor,
        t: int,
    ) -> Tensor:
        """The actions tried at step `t` from each future held, [B width·fan]: all, or the
        `branching_factor` the critic expects least of; where it does not say, any by chance. A
        budget that goes to every action of a large set would look at one future only.
        """
        rows = len(key)
        if branching_factor == self.choices:
            return torch.arange(branching_factor).repeat(width).expand(rows, -1)
        order = chance.uniform(key, f"beam fan {t}", width, self.choices).argsort(-1)
        held = torch.arange(width) + (width + given) * torch.arange(rows)[:, None]
        expected = imagination.expected(state.select(held.flatten()))
        if expected is not None:
            # What the critic finds equal stays in the order chance gave it.
            wish = expected.view(rows, width, -1).gather(-1, order)
            order = order.gather(-1, wish.sort(stable=True, dim=-1).indices)
        return order[:, :, :branching_factor].flatten(1)

    def _refine(
        self, imagination: Imagination, path: Tensor, key: Tensor, budget: int
    ) -> tuple[Tensor, Tensor] | None:
        """A plan [B H] no dearer than `path` [B H] and its total [B]; None without budget."""
        rows, horizon = path.shape
        bends = list(range(0, horizon, self.action_repeat))
        if budget < horizon + self.refine_samples * (horizon - bends[-1]):
            return None
        budget -= horizon
        # The plan is imagined once more, its state kept at each decision.
        state, here = imagination.start(), torch.arange(rows)
        cost = torch.zeros(rows, 1, dtype=torch.float64)
        alive = torch.ones(rows, 1, dtype=torch.float64)
        kept = []
        for t in bends:
            kept.append((state, cost, alive))
            state, cost, alive = self._stride(
                imagination, state, cost, alive, path[:, None, t : t + self.action_repeat], t
            )
        best = self._total(imagination, state, cost, alive, horizon)[:, 0]
        turn = -1
        while True:
            turn += 1
            # Golden steps visit all decisions evenly, in an order no row's neighbours change.
            bend = int(len(bends) * (turn * 0.6180339887 % 1))
            if self.refine_samples * (horizon - bends[bend]) > budget:
                bend = next(
                    (
                        b
                        for b, t in enumerate(bends)
                        if self.refine_samples * (horizon - t) <= budget
                    ),
                    len(bends),
                )
                if bend == len(bends):
                    break
            actions = self._branch(path, key, turn, bends[bend])
            state, cost, alive = kept[bend]
            state = state.select(here.repeat_interleave(self.refine_samples))
            cost, alive = (
                cost.expand(-1, self.refine_samples),
                alive.expand(-1, self.refine_samples),
            )
            seen = []
            for t in bends[bend:]:
                seen.append((state, cost, alive))
                part = actions[:, :, t : t + self.action_repeat]
                state, cost, alive = self._stride(imagination, state, cost, alive, part, t)
                budget -= self.refine_samples * part.shape[-1]
                if bool((alive <= _OVER).all()):
                    # What lies behind the end is dead, whatever the plan before did there.
                    dead = (state, cost, torch.zeros_like(alive))
                    seen += [dead] * (len(bends) - bend - len(seen))
                    break
            total = self._total(imagination, state, cost, alive, horizon)
            found, which = total.min(-1)
            better = found <= best + 1e-9
            best = found.where(better, best)
            path = actions[here, which].where(better[:, None], path)
            chosen = self.refine_samples * here + which
            for later, (state, cost, alive) in enumerate(seen[1:], bend + 1):
                old = kept[later]
                kept[later] = (
                    state.select(chosen).where(better, old[0]),
                    cost.gather(1, which[:, None]).where(better[:, None], old[1]),
                    alive.gather(1, which[:, None]).where(better[:, None], old[2]),
                )
        return path, best

    def _branch(self, path: Tensor, key: Tensor, turn: int, bend: int) -> Tensor:
        """Futures that leave `path` [B H] at step `bend`, [B N H]; every second one returns."""
        horizon = path.shape[1]
        decisions = -(-(horizon - bend) // self.action_repeat)
        drawn = chance.integers(
            key, f"beam branch {turn}", self.choices, self.refine_samples, decisions
        )
        luck = chance.uniform(key, f"beam turn {turn}", self.refine_samples, decisions + 1)
        # A decision goes on as the one before with even odds: what is kept up reaches further.
        for d in range(1, decisions):
            drawn[:, :, d] = drawn[:, :, d - 1].where(luck[:, :, d] < 0.5, drawn[:, :, d])
        drawn = drawn.repeat_interleave(self.action_repeat, -1)[:, :, : horizon - bend]
        plan = path.unsqueeze(1).expand(-1, self.refine_samples, -1)
        away = (luck[:, :, :1] * (horizon - bend)).ceil().long()
        away[:, 1::2] = horizon
        gone = torch.arange(horizon - bend) < away
        return torch.cat([plan[:, :, :bend], drawn.where(gone, plan[:, :, bend:])], -1)

    def _select(
        self, state: State, total: Tensor, alive: Tensor, noise: Tensor, most: int
    ) -> Tensor:
        """Which children the beam holds on to, [B W] with W <= most."""
        rows, several = total.shape
        looks = state.latent.view(rows, several, -1).numpy()
        places = state.hidden.view(rows, several, -1).numpy()
        luck = noise.numpy()
        scores, lasting = total.round(decimals=6).numpy(), (alive > _OVER).numpy()
        chosen: list[list[int]] = []
        for row in range(rows):
            met: set[tuple[bytes, bytes]] = set()
            alike: dict[bytes, int] = {}
            ranks: list[tuple[float, int, int, int]] = []
            for turn, child in enumerate(np.lexsort((luck[row], scores[row])).tolist()):
                look = looks[row, child].tobytes()
                face = (look, places[row, child].tobytes())
                if not lasting[row, child] or face in met:
                    continue
                met.add(face)
                alike[look] = alike.get(look, 0) + 1
                ranks.append((float(scores[row, child]), alike[look], turn, child))
            # Of equally cheap futures those that look different come first.
            chosen.append([child for *_, child in sorted(ranks)[:most]] or [0])
        width = max(map(len, chosen))
        # A row with fewer futures than its neighbours repeats one; repeats merge again later.
        return torch.tensor([held + held[:1] * (width - len(held)) for held in chosen])
