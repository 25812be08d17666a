"""The messages of a moment in words, a few lines for each module."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modules.messages import SIGNALS, Moment, State, WorldSpec

MODULES = ("perception", "world model", "cost", "memory", "actor", "configurator")
"""The six modules, in the order of the loop."""

_REPORTED = ("reward", "life_lost", "end", "effort")
_LIVES, _END = SIGNALS.index("lives"), SIGNALS.index("end")


def number(value: float) -> str:
    """A number in few characters, with a true minus sign."""
    size = abs(value)
    text = f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    text = "0" if size < 0.005 else text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def signed(value: float) -> str:
    """The same with its sign, except for 0."""
    text = number(value)
    return text if value < 0 or text == "0" else f"+{text}"


def percent(share: float) -> str:
    """A share of 1 as a percentage."""
    return f"{100 * share:.0f} %"


def counted(count: int, what: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class Words:
    """Describes moments of one row of a world: a few short lines for each module.

    The most important line comes first, so that a small screen can cut the rest.
    """

    def __init__(self, world: WorldSpec, drives: Sequence[str], heads: Sequence[str]) -> None:
        self.world, self.drives, self.heads = world, tuple(drives), tuple(heads)

    def lines(self, moment: Moment, before: Moment | None, row: int = 0) -> dict[str, list[str]]:
        """The lines of each of `MODULES`; `before` is the moment before this one, if known."""
        return {
            "perception": self.perception(moment, row),
            "world model": self.world_model(moment, before, row),
            "cost": self.cost(moment, row),
            "memory": self.memory(moment, row),
            "actor": self.actor(moment, row),
            "configurator": self.configurator(moment, row),
        }

    def _signals(self, values: Sequence[float]) -> str:
        """Signals that are not 0, by name."""
        names = self.world.signals
        parts = [
            f"{names[i].replace('_', ' ')} {signed(values[i])}"
            for i in range(len(names))
            if (names[i] in _REPORTED or i >= len(SIGNALS)) and abs(values[i]) >= 0.005
        ]
        return ", ".join(parts) or "nothing"

    def perception(self, moment: Moment, row: int) -> list[str]:
        """Signals, the observation and the latent."""
        observation, signals = moment.observation, moment.observation.signals[row].tolist()
        first = f"signals: {self._signals(signals)}"
        if signals[_LIVES]:
            first += f", {number(signals[_LIVES])} " + ("life" if signals[_LIVES] == 1 else "lives")
        if bool(observation.first[row]):
            first = "a new episode; " + first
        elif bool(observation.ended[row]):
            first = "the episode is over; " + first
        if observation.pixels is not None:
            height, width, channels = observation.pixels.shape[1:]
            seen = f"{height}×{width} pixels" + (f"×{channels}" if channels > 1 else "")
        elif observation.vector is not None:
            seen = counted(observation.vector.shape[1], "number")
        else:
            seen = "nothing"
        latent = moment.state.latent[row]
        return [
            first,
            f"sees {seen}, latent of {len(latent)}, norm {number(float(latent.norm()))}",
        ]

    def world_model(self, moment: Moment, before: Moment | None, row: int) -> list[str]:
        """The last prediction against the observation, and the next prediction."""
        if bool(moment.observation.first[row]) or before is None:
            compared = "no prediction yet"
        else:
            predicted = self._predicted(before.expected, row)
            observed = self._signals(moment.observation.signals[row].tolist())
            surprise = number(float(moment.surprise[row]))
            compared = f"predicted {predicted}, observed {observed}; surprise {surprise}"
        expected = moment.expected
        end = percent(float(expected.ended[row]))
        coming = f"predicts {self._predicted(expected, row)}, end {end}"
        if float(expected.uncertainty[row]) > 0:
            coming += f", uncertainty {number(float(expected.uncertainty[row]))}"
        return [compared, coming]

    def _predicted(self, state: State, row: int) -> str:
        values = state.signals[row].tolist()
        # The end has a probability of its own, and effort follows from the action.
        values[_END] = values[SIGNALS.index("effort")] = 0.0
        return self._signals(values)

    def cost(self, moment: Moment, row: int) -> list[str]:
        """The energy of each drive and critic head, and the total."""
        energy, directive = moment.energies, moment.directive
        now = _named(self.drives, energy.intrinsic[row].tolist())
        assert energy.critic is not None  # every moment has it
        critic = _named(self.heads, energy.critic[row].tolist())
        total = float(energy.total(directive)[row])
        lines = [f"drives {now}", f"critic {critic}; total {number(total)}"]
        if (spread := float(energy.disagreement[row])) > 0:
            lines.append(f"disagreement of critics {number(spread)}")
        return lines

    def memory(self, moment: Moment, row: int) -> list[str]:
        """Similarity to remembered states, novelty, and the age of the most similar ones."""
        recollection = moment.recollection
        weights = recollection.weights[row].tolist()
        ages = recollection.ages[row].tolist()
        pairs = [(w, a) for w, a in zip(weights, ages, strict=True) if w >= 0.005]
        familiar = f"familiarity {percent(min(sum(weights), 1.0))}"
        lines = [f"{familiar}, novelty {percent(float(recollection.novelty[row]))}"]
        if pairs:
            recent = ", ".join(f"{age:.0f}" for _, age in sorted(pairs, reverse=True)[:4])
            lines.append(f"similar: {recent} steps ago")
        else:
            lines.append("similar: none")
        return lines

    def action(self, encoded: Sequence[float]) -> str:
        """An encoded action by name, or as numbers."""
        spec = self.world.actions
        if spec.discrete:
            best = max(range(len(encoded)), key=lambda i: encoded[i])
            return spec.names[best] if best < len(spec.names) else str(best)
        return "(" + " ".join(number(v) for v in encoded[:4]) + (" …)" if spec.size > 4 else ")")

    def actor(self, moment: Moment, row: int) -> list[str]:
        """The action, and the other candidates of a plan."""
        plan = moment.plan
        if int(plan.mode[row]) != 2:
            doing = f"{self.action(plan.action[row].tolist())}, by the policy"
            return [doing, "no planning in Mode-1"]
        count = max(int(plan.steps[row]), 1)
        names = [self.action(a) for a in plan.actions[row, :count].tolist()]
        lines = [
            f"plan {_repeats(names)}",
            f"energy {number(float(plan.energy[row]))},"
            f" {counted(int(plan.model_calls[row]), 'imagined step')}",
        ]
        if plan.subgoals is not None:
            lines += self._subgoals(moment, plan.subgoals[row].tolist(), row)
        others = [
            (self.action(candidate[0]), energy)
            for candidate, energy in zip(
                plan.candidates[row].tolist(), plan.candidate_energies[row].tolist(), strict=True
            )
            if energy < float("inf") and candidate
        ]
        if len(others) > 1:
            plans = (f"{name} {number(energy)}" for name, energy in others[1:4])
            lines.append(f"other plans {', '.join(plans)}")
        return lines

    def _subgoals(self, moment: Moment, subgoals: list[list[float]], row: int) -> list[str]:
        """How far each sub-goal is from the present latent, and what chose the first."""
        here, goal, chosen = moment.state.latent[row], moment.state.goal, moment.directive.subgoal
        if not math.isfinite(subgoals[0][0]):
            return ["to the goal itself"]
        by = "planned"
        if chosen is not None and math.isfinite(float(chosen[row, 0])):
            by = "set by the configurator"
        ways = [float((here - here.new_tensor(one)).norm()) for one in subgoals]
        words = " and ".join(map(number, ways))
        whole = "" if goal is None else f", to the goal {number(float((here - goal[row]).norm()))}"
        return [f"to a sub-goal {by}: distance {words}{whole}"]

    def configurator(self, moment: Moment, row: int) -> list[str]:
        """The reason, mode, horizon, budget and drive weights."""
        directive = moment.directive
        lines = [directive.reason[row]]
        if int(directive.mode[row]) == 2:
            lines.append(
                f"Mode-2, {counted(int(directive.horizon_steps[row]), 'step')} ahead,"
                f" at most {counted(int(directive.model_calls[row]), 'model call')}"
            )
        else:
            lines.append("Mode-1, the policy acts")
        lines.append(f"weights {_named(self.drives, directive.u[row].tolist())}")
        return lines


def _named(names: Sequence[str], values: Sequence[float]) -> str:
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in pairs)


def _repeats(names: Sequence[str]) -> str:
    """`LEFT LEFT LEFT FIRE` as `LEFT×3 FIRE`; two stay two."""
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return " ".join(" ".join([n] * c) if c < 3 else f"{n}×{c}" for n, c in runs)
