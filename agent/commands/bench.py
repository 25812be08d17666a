"""`sextet bench`: the cost of a part of the program on this machine."""

from __future__ import annotations

import importlib
from pathlib import Path

from agent.recording.plain_json import dumps
from modules.messages import ConfigError
from modules.suggest import not_one_of


def benches() -> tuple[str, ...]:
    """The names of the benchmarks: the modules of `agent.bench`."""
    import agent.bench

    folder = Path(agent.bench.__path__[0])
    return tuple(sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")))


def bench(what: str, as_json: bool) -> None:
    """Runs one and prints its figures, a line each, or as JSON in one line with `as_json`.

    Raises ConfigError where no benchmark has the name.
    """
    names = benches()
    if what not in names:
        raise ConfigError(f"bench: {not_one_of(what, names)}")
    figures = importlib.import_module(f"agent.bench.{what}").run()
    if as_json:
        print(dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<24} {value:.4g}" if isinstance(value, float) else f"{name:<24} {value}")
