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


class RunFolder:
    """The folder of one run: a new one by `create`, an existing one by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path | str | None, name: str) -> RunFolder:
        """A new folder at `path`, or `runs/<name>-<n>` with the next free n.

        Raises ConfigError, and creates nothing, where `path` exists or cannot be created.
        """
        if path is not None:
            return cls(_make(Path(path)))
        parent, plain = Path("runs"), re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
        plain = plain or "run"
        number = 1 + max(
            (
                int(match[1])
                for folder in (parent.iterdir() if parent.is_dir() else ())
                if (match := re.fullmatch(re.escape(plain) + r"-(\d+)", folder.name))
            ),
            default=0,
        )
        while True:
            place = parent / f"{plain}-{number}"
            # Another process may create the folder between this check and `mkdir`.
            if not place.exists():
                return cls(_make(place))
            number += 1

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """An existing run. Raises ConfigError where there is none."""
        place = Path(path)
        if not (place / "config.yaml").is_file():
            raise ConfigError(f"run: expected a run folder with config.yaml, got '{place}'")
        return cls(place)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def trace(self) -> Path:
        """The trace of the run."""
        return self.path / "trace.sqlite"

    @property
    def config(self) -> Path:
        """The resolved configuration; it and the seed reproduce the run."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """Losses and scores of training, a JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def picture(self) -> Path:
        """The picture of the run."""
        return self.path / "summary.png"

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
            config = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
    missing = [p for p in (place, *place.parents) if not p.exists()]
    created: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir()
            created.append(folder)
    except OSError as error:
        for folder in reversed(created):
            folder.rmdir()
        raise ConfigError(
            f"run: expected a writable place, got '{place}': {error.strerror or error}"
        ) from None
    return place
