"""The data of the page: series of a run as plain numbers, frames and moments on demand.

Of a damaged run it has what can be read, and a list of what cannot.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from agent.recording.episode_stats import returns_so_far
from agent.recording.plain_json import dumps
from agent.recording.trace import Keyframe, SalvagedTrace, Trace
from modules.messages import Message, Moment, TraceError

Floats = NDArray[np.float32]

SERIES = (
    "surprise",
    "observation.signals",
    "observation.first",
    "observation.truncated",
    "recollection.novelty",
    "energies.intrinsic",
    "energies.critic",
    "energies.disagreement",
    "directive.horizon_steps",
    "directive.u",
    "plan.mode",
    "plan.model_calls",
)
"""The fields that the page has of every step."""

_UNREADABLE = "(this step is damaged)"
_SHOWN = 4096
"""Of a tensor with more numbers only the first ones are sent."""


class Pack(NamedTuple):
    """Arrays and facts in the format that the page reads."""

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """A file of safetensors with the arrays, and the facts as JSON in its metadata."""
        # `save` writes the memory of an array, also where it is a view with gaps.
        whole = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        return save(whole, {"facts": dumps(self.facts)})


class Recording:
    """One recorded run, also while it is being written or damaged in places.

    Raises TraceError, one line, where nothing can be read or the format is newer. Thread-safe.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.trace = trace = Trace.open(path)
        self.path, self.file = path, trace.path
        self.world, self.config, self.rows = trace.world, trace.config, trace.rows
        self.drives, self.heads = trace.drives, trace.heads
        self.name = name or path.resolve().name
        self._lock = threading.RLock()
        self._columns: dict[str, Floats] = {}
        self._reasons: list[Sequence[str]] = []
        self.first, self.steps = 0, 0
        self._read()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self.trace.close()

    # -- reading ----------------------------------------------------------------------------

    def grow(self) -> int:
        """Reads what was written since the last call; the number of steps now."""
        with self._lock:
            # A damaged trace does not grow.
            if not self.missing and self.trace.steps != self.steps:
                self._read()
            return self.steps

    def _read(self) -> None:
        """Reads all series; NaN where they are damaged."""
        readable = self._readable = SalvagedTrace(self.trace)
        self.missing = [str(span) for span in readable.missing]
        if not len(readable):
            if self.missing:
                raise TraceError(f"trace {self.file}: no step of it can be read")
            return
        spans = [(span.first, span.last) for span in readable.missing if span.first >= 0]
        ends = np.array([*spans, (readable.steps[0], readable.steps[-1])])
        self.first = int(ends.min())
        self.steps = int(ends.max()) + 1 - self.first
        places = readable.steps - self.first
        for name in SERIES:
            with suppress(TraceError):
                values = readable.series(name)
                whole = np.full((self.steps, *values.shape[1:]), np.nan, np.float32)
                whole[places] = values
                self._columns[name] = whole
        self._reasons = [(_UNREADABLE,) * self.rows] * self.steps
        for place, lines in zip(places.tolist(), readable.reasons(), strict=True):
            self._reasons[place] = lines

    # -- what the page requests -------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """The description of the run, and its readable steps."""
        pixels = self.world.pixels
        return {
            "name": self.name,
            "world": self.world.id,
            "protocol": self.world.protocol,
            "seed": self.config.get("seed"),
            "kinds": {
                slot: str(settings["kind"])
                for slot in ("world_model", "configurator")
                if isinstance(settings := self.config.get(slot), dict) and "kind" in settings
            },
            "rows": self.rows,
            "first": self.first,
            "steps": self.steps,
            "drives": list(self.drives),
            "heads": list(self.heads),
            "pixels": None if pixels is None else list(pixels),
            "actions": list(self.world.actions.names),
            "missing": _few(self.missing),
        }

    def predicts_uncertainty(self) -> bool:
        """Whether the world model predicted an uncertainty other than 0, which `risk` weighs."""
        with self._lock:
            try:
                return bool(self.trace.series("expected.uncertainty").any())
            except TraceError:
                return True

    def series(self, row: int, start: int = 0) -> Pack:
        """All series of a row from index `start` on, with reasons as codes."""
        self.allows(row)
        with self._lock:
            end = self.steps
            part = {name: self._column(name)[start:end, row] for name in SERIES}
            signals = part["observation.signals"]
            lines = [r[row] if row < len(r) else _UNREADABLE for r in self._reasons[start:end]]
            table: dict[str, int] = {}
            codes = np.array([table.setdefault(line, len(table)) for line in lines], np.uint32)
            arrays: dict[str, NDArray[Any]] = {
                "mode": part["plan.mode"],
                "horizon": part["directive.horizon_steps"],
                "surprise": part["surprise"],
                "novelty": part["recollection.novelty"],
                "disagreement": part["energies.disagreement"],
                "calls": part["plan.model_calls"],
                "first": part["observation.first"],
                "over": _floats(self._over(row)[start:end]),
                "score": self._signal(signals, "reward"),
                "lost": self._signal(signals, "life_lost"),
                "lives": self._signal(signals, "lives"),
                "return": self._returns(row)[start:end],
                "reason": codes,
            }
            for prefix, path in (("u", "directive.u"), ("energy", "energies.intrinsic"),
                                 ("critic", "energies.critic")):  # fmt: skip
                for i in range(part[path].shape[1]):
                    arrays[f"{prefix}.{i}"] = part[path][:, i]
            return Pack({"start": start, "steps": end, "reasons": list(table)}, arrays)

    def _column(self, name: str) -> Floats:
        """One series, [steps B ...]; NaN where it was not recorded or cannot be read."""
        if name in self._columns:
            return self._columns[name]
        axis = {"observation.signals": "S", "energies.intrinsic": "K", "directive.u": "K",
                "energies.critic": "L"}.get(name)  # fmt: skip
        wide = () if axis is None else (len(self.trace.axis_names[axis]),)
        return np.full((self.steps, self.rows, *wide), np.nan, np.float32)

    def _signal(self, signals: Floats, name: str) -> Floats:
        if name not in self.world.signals:
            return np.zeros(len(signals), np.float32)
        return signals[:, self.world.signals.index(name)]

    def _returns(self, row: int) -> Floats:
        """The return of the running episode, [steps]; a missing step adds nothing."""
        rewards = self._signal(self._column("observation.signals")[:, row], "reward")
        return _floats(returns_so_far(rewards, self._over(row)))

    def _over(self, row: int) -> NDArray[np.bool_]:
        """Whether an episode ended at each step, [steps]."""
        end = self._signal(self._column("observation.signals")[:, row], "end")
        over: NDArray[np.bool_] = (end > 0) | (self._column("observation.truncated")[:, row] > 0)
        return over

    def allows(self, row: int) -> None:
        """Raises TraceError where the run has no such row."""
        if not 0 <= row < self.rows:
            raise TraceError(f"trace {self.file}: expected a row below {self.rows}, got {row}")

    def frame(self, step: int, row: int) -> NDArray[np.uint8] | None:
        """The frame of a row at a step, [H W C] uint8; None where there is none."""
        with self._lock:
            try:
                return as_bytes(self.trace.frame(step, row))
            except TraceError:
                return None

    def frames(self, row: int, steps: Iterable[int]) -> Pack:
        """The frames of some steps, [N H W C] uint8; a missing one is left out of `steps`."""
        frames = [(step, self.frame(step, row)) for step in steps]
        return pack_frames([(step, frame) for step, frame in frames if frame is not None])

    def moment(self, step: int) -> Moment:
        """The moment of a step, also without its pixels where those are damaged.

        Raises TraceError where it cannot be read.
        """
        with self._lock:
            return self._readable.moment(step)

    def actions(self, start: int, stop: int) -> dict[int, torch.Tensor]:
        """The encoded actions [B A] of the steps from `start` up to `stop` or the first damage."""
        done = {}
        for step in range(start, stop):
            try:
                done[step] = self.moment(step).plan.action
            except TraceError:
                break
        return done

    def latents(self, row: int) -> tuple[NDArray[np.int64], Floats]:
        """The steps whose latents can be read [N], and these latents [N D]."""
        with self._lock:
            mine = self._readable.series("state.latent")[:, row]
            there = np.isfinite(mine).all(-1)
            return self._readable.steps[there], mine[there]

    def keyframe(self, step: int) -> Keyframe | None:
        """The last undamaged keyframe at or before a step."""
        with self._lock:
            return next(self.trace.keyframes_until(step), None)

    # -- a moment in full -------------------------------------------------------------------

    def tree(self, step: int, row: int) -> dict[str, Any]:
        """Every message of a moment: its fields with axes, dtype and numbers of one row."""
        self.allows(row)
        try:
            moment = self.moment(step)
        except TraceError as error:
            return {"step": step, "readable": False, "why": str(error), "own": [], "parts": []}
        parts = []
        for name in moment._nested:
            message: Message = getattr(moment, name)
            fields = [
                self._field(name, field, shape.axes, getattr(message, field), row)
                for field, shape in message._tensors
            ]
            if name == "directive":
                fields.insert(0, {"name": "reason", "text": moment.directive.reason[row]})
            parts.append({"name": name, "fields": fields})
        own = [
            self._field("", name, shape.axes, getattr(moment, name), row)
            for name, shape in moment._tensors
        ]
        return {"step": step, "readable": True, "own": own, "parts": parts}

    def _field(
        self, part: str, name: str, axes: Sequence[str], value: torch.Tensor | None, row: int
    ) -> dict[str, Any]:
        if part in ("state", "expected") and name == "hidden":
            return {"name": name, "note": "not recorded"}
        if name == "pixels" and self.world.pixels is not None:
            return {"name": name, "note": "damaged" if value is None else "shown as the frame"}
        if value is None:
            return {"name": name, "note": "none"}
        mine = value[row].numpy()
        described: dict[str, Any] = {
            "name": name,
            "dtype": str(mine.dtype),
            "axes": [[axis, n] for axis, n in zip(axes[1:], mine.shape, strict=True)],
            "values": [plain(v) for v in mine.reshape(-1)[:_SHOWN].tolist()],
        }
        if mine.size > _SHOWN:
            described["more"] = int(mine.size - _SHOWN)
        if mine.ndim and (labels := self.trace.axis_names.get(axes[-1])):
            described["labels"] = list(labels)
        return described


def _floats(values: NDArray[Any]) -> Floats:
    return values.astype(np.float32)


def _few(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return list(lines) if len(lines) <= 8 else [*lines[:7], f"and {len(lines) - 7} more"]


def pack_frames(frames: Sequence[tuple[int, NDArray[np.uint8]]]) -> Pack:
    """Frames with their steps; those of another shape than the first are left out."""
    alike = [(step, f) for step, f in frames if f.shape == frames[0][1].shape]
    if not alike:
        return Pack({"steps": []}, {"frames": np.zeros((0, 0, 0, 1), np.uint8)})
    return Pack({"steps": [step for step, _ in alike]}, {"frames": np.stack([f for _, f in alike])})


def as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels of any dtype as 0 to 255: numbers up to 1 times 255, else relative to the largest."""
    if pixels.dtype == np.uint8:
        return pixels
    numbers = np.nan_to_num(pixels.astype(np.float32))
    top = float(numbers.max(initial=0.0))
    scale = 255.0 if top <= 1.0 else 255.0 / top
    return (numbers.clip(0) * scale).round().clip(0, 255).astype(np.uint8)


def plain(value: float | bool) -> float | int | str | bool:
    """A number in four digits, as JSON allows."""
    if isinstance(value, bool | int):
        return value
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return float(f"{value:.4g}")
