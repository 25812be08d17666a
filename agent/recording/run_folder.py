"""One run, one folder: `config.yaml`, `trace.sqlite`, `metrics.jsonl`, `checkpoints/`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from agent.recording.atomic import write_text
from agent.recording.renames import current_settings
from modules.messages import ConfigError
from modules.plain_yaml import MOST_CHARACTERS, plain_yaml
from modules.strange_files import read_file


class RunFolder:
    """The folder of one run: a new one by `create`, an existing one by `open`.

    `config`: the resolved configuration; it and the seed reproduce the run. `trace`: the recorded
    moments. `metrics`: losses and scores of training, a JSON object a line. `checkpoints`: their
    folder. Each need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.trace = path / "trace.sqlite"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path | str | None, name: str) -> RunFolder:
        """A new folder at `path`, or `runs/<name>-<n>` with the next free n.

        Raises ConfigError, and creates nothing, where `path` exists or cannot be created.
        """
        if path is not None:
            return cls(_make(Path(path)))
        parent = Path("runs")
        plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "run"
        pattern = re.compile(re.escape(plain) + r"-(\d+)")
        numbers = [int(m[1]) for p in parent.glob("*") if (m := pattern.fullmatch(p.name))]
        return cls(_make(parent / f"{plain}-{max(numbers, default=0) + 1}"))

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """An existing run. Raises ConfigError where there is none."""
        folder = cls(Path(path))
        if not folder.config.is_file():
            raise ConfigError(f"run: expected a run folder with config.yaml, got '{folder.path}'")
        return folder

    def __fspath__(self) -> str:
        return str(self.path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes `config.yaml` whole or not at all."""
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        try:
            write_text(self.config, text)
        except OSError as error:
            raise ConfigError(f"run {self.path}: expected a writable folder, got {error}") from None

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration. Raises ConfigError where it is unreadable."""
        try:
            text = read_file(self.config, 4 * MOST_CHARACTERS).decode("utf-8")
            config = plain_yaml(text)
        except (OSError, ValueError) as error:
            line = " ".join(str(error).split())
            raise ConfigError(f"config {self.config}: expected YAML, got {line}") from None
        if not isinstance(config, dict):
            raise ConfigError(f"config {self.config}: expected a mapping, got {config!r:.60}")
        return current_settings(config)


def _make(place: Path) -> Path:
    if place.exists() or place.is_symlink():
        raise ConfigError(
            f"run: expected a new folder, got '{place}', which exists; try another folder"
        )
    created: list[Path] = []
    try:
        for folder in reversed((place, *place.parents)):
            if not folder.exists():
                folder.mkdir()
                created.append(folder)
    except OSError as error:
        for folder in reversed(created):
            folder.rmdir()
        raise ConfigError(
            f"run: expected a writable place, got '{place}': {error.strerror or error}"
        ) from None
    return place
