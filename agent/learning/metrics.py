"""Where the figures of a training go: a file of JSON lines, and TensorBoard where asked for."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from agent.recording.atomic import write_text
from modules.messages import ConfigError

AXES = ("steps", "frames")
"""What a figure is drawn over: agent steps, and emulated frames, in every line."""


class Metrics(Protocol):
    """Takes the figures of a report; each has `steps` and `frames`."""

    def write(self, figures: Mapping[str, Any]) -> None:
        """Keeps them."""

    def cut(self, steps: int) -> None:
        """Forgets what was measured after `steps`, the checkpoint that a run goes on from."""

    def close(self) -> None:
        """Nothing more comes."""


class JSONLines:
    """`metrics.jsonl`: one object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, figures: Mapping[str, Any]) -> None:
        """Adds a line."""
        with open(self.path, "a", encoding="utf-8") as out:
            out.write(json.dumps(figures) + "\n")

    def cut(self, steps: int) -> None:
        """Drops later lines, and a last one that was not finished."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [
            line for line in lines if line.endswith("\n") and json.loads(line)["steps"] <= steps
        ]
        write_text(self.path, "".join(kept))

    def close(self) -> None:
        """Nothing: every line is written at once."""


def require_tensorboard() -> None:
    """Raises ConfigError, one line, where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "train --tensorboard: expected the package tensorboard, got none; "
            "pip install 'sextet[tb]'"
        )


class TensorBoard:
    """Scalars for TensorBoard under `folder`, once over steps and once over frames."""

    def __init__(self, folder: Path) -> None:
        require_tensorboard()
        self.folder = folder
        self._open(None)

    def _open(self, purge: Mapping[str, int] | None) -> None:
        with warnings.catch_warnings():
            # What its dependencies deprecate concerns their authors.
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter

            self._writers = {
                axis: SummaryWriter(
                    str(self.folder / axis), purge_step=None if purge is None else purge[axis]
                )
                for axis in AXES
            }

    def write(self, figures: Mapping[str, Any]) -> None:
        """Adds each number under its name, at the step and at the frame."""
        for axis, writer in self._writers.items():
            for name, value in figures.items():
                if name not in AXES and isinstance(value, int | float):
                    writer.add_scalar(name, value, figures[axis])
            writer.flush()

    def cut(self, steps: int) -> None:
        """Nothing: what is written twice at a step, TensorBoard shows as it was written last."""

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
