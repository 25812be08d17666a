"""Storage of the figures of a training: a file of JSON lines, and TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.recording.atomic import write_text, writing
from agent.recording.plain_json import dumps
from modules.messages import ConfigError
from modules.strange_files import LINES_BYTES, read_file

AXES = ("steps", "frames")
"""The horizontal axes of curves: agent steps, and emulated frames; in every line."""


class Metrics:
    """Stores the figures of reports, each with `steps` and `frames`; this base stores none."""

    def write(self, figures: Mapping[str, Any]) -> None:
        """Stores one report."""

    def cut(self, steps: int) -> None:
        """Removes reports after `steps`, those of the checkpoint that a run continues from.

        TensorBoard needs no removal: of two reports at one step it shows the later.
        """

    def close(self) -> None:
        """Closes open files."""


class JSONLines(Metrics):
    """`metrics.jsonl`: one object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, figures: Mapping[str, Any]) -> None:
        """Adds a line."""
        with writing(self.path), open(self.path, "a", encoding="utf-8") as out:
            out.write(dumps(figures) + "\n")

    def cut(self, steps: int) -> None:
        """Removes later lines, and a last line that was not finished."""
        if not self.path.exists():
            return
        text = read_file(self.path, LINES_BYTES).decode("utf-8")
        lines = text.splitlines(keepends=True)
        write_text(
            self.path,
            "".join(
                line for line in lines if line.endswith("\n") and json.loads(line)["steps"] <= steps
            ),
        )


def require_tensorboard() -> None:
    """Raises ConfigError, one line, where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "train --tensorboard: expected the package tensorboard, got none; "
            "pip install 'sextet[tb]'"
        )


class TensorBoard(Metrics):
    """Scalars for TensorBoard under `folder`, once over steps and once over frames."""

    def __init__(self, folder: Path) -> None:
        require_tensorboard()
        with warnings.catch_warnings():
            # Deprecations in its dependencies address their authors.
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter

            self._folder = folder
            with writing(folder):
                self._writers = {axis: SummaryWriter(str(folder / axis)) for axis in AXES}

    def write(self, figures: Mapping[str, Any]) -> None:
        """Adds each number under its name, at the step and at the frame."""
        with writing(self._folder):
            for axis, writer in self._writers.items():
                for name, value in figures.items():
                    if name not in AXES and isinstance(value, int | float):
                        writer.add_scalar(name, value, figures[axis])
                writer.flush()

    def close(self) -> None:
        """Closes the files."""
        with writing(self._folder):
            for writer in self._writers.values():
                writer.close()
