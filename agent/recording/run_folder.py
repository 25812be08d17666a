"""One run, one folder: `config.yaml`, `trace.sqlite`, `metrics.jsonl`, `checkpoints/`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from agent.recording.atomic import new_folder, write_text
from agent.recording.renames import current_settings
from modules.messages import ConfigError
from modules.plain_yaml import MOST_CHARACTERS, plain_yaml
from modules.strange_files import read_file


class RunFolder:
    """The folder of one run: a new one by `create`, an existing one by `open`.

    `config`: the resolved configuration; it and the seed reproduce the run. `trace`: the recorded
    moments. `world`: what the spaces of the world were taken for, and the memory of the replay.
    `metrics`: losses and scores of training, a JSON object a line. `training`: what a training was
    begun with beside its configuration. `checkpoints`: their folder. Each need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.trace = path / "trace.sqlite"
        self.world = path / "world.json"
        self.metrics = path / "metrics.jsonl"
        self.training = path / "training.json"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(
        cls,
        path: Path | str | None,
        name: str,
        write: Callable[[RunFolder], object] = lambda folder: None,
    ) -> RunFolder:
        """A new folder at `path`, or `runs/<name>-<n>` with the next free n.

        `write` puts in what the run begins with, while the folder has a hidden name: a run that is
        killed leaves a folder with all of that, or none. Raises ConfigError or WriteError, and
        creates nothing, where `path` exists or cannot be created.
        """
        while True:
            place = cls.free(name) if path is None else Path(path)
            if place.exists() or place.is_symlink():
                raise ConfigError(
                    f"run: expected a new folder, got '{place}', which exists; try another folder"
                )
            try:
                with new_folder(place) as partial:
                    write(cls(partial))
            except ConfigError:
                # Another process was first to take that number.
                if path is None and place.exists():
                    continue
                raise
            return cls(place)

    @staticmethod
    def free(name: str) -> Path:
        """`runs/<name>-<n>` with the next free n."""
        parent = Path("runs")
        plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "run"
        pattern = re.compile(re.escape(plain) + r"-(\d+)")
        numbers = [int(m[1]) for p in parent.glob("*") if (m := pattern.fullmatch(p.name))]
        return parent / f"{plain}-{max(numbers, default=0) + 1}"

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
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration. Raises ConfigError where it is unreadable, or where a file of
        the run is a link, through which it would read and write elsewhere.
        """
        for file in self.path.iterdir():
            if file.is_symlink():
                raise ConfigError(f"run {self.path}: expected a file or folder, got a link: {file}")
        try:
            text = read_file(self.config, 4 * MOST_CHARACTERS).decode("utf-8")
            config = plain_yaml(text)
        except (OSError, ValueError) as error:
            line = " ".join(str(error).split())
            raise ConfigError(f"config {self.config}: expected YAML, got {line}") from None
        if not isinstance(config, dict):
            raise ConfigError(f"config {self.config}: expected a mapping, got {config!r:.60}")
        return current_settings(config)
