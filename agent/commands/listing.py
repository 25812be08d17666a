"""`sextet list`: the names of games, worlds, modules and so on, one first on each line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from agent.assembly.build import known_kinds
from agent.assembly.merge import read_yaml
from agent.assembly.resolve import BUNDLED, SLOT_NAMES, about, presets
from agent.studies.study import read_study, shipped
from modules.messages import ConfigError
from modules.suggest import not_one_of
from worlds.make import list_games, list_worlds


def listing(what: str, plugins: Sequence[str] = ()) -> None:
    """Prints one list. Raises ConfigError where no list has the name."""
    lists: dict[str, Callable[[], Sequence[str]]] = {
        "games": list_games,
        "worlds": list_worlds,
        "modules": lambda: _modules(plugins),
        "agents": _agents,
        "studies": lambda: [f"{name:<20} {read_study(name).question}" for name in shipped()],
        "presets": lambda: [f"{name:<16} {about(name)}" for name in presets()],
    }
    if what not in lists:
        raise ConfigError(f"list: {not_one_of(what, lists)}")
    print("\n".join(lists[what]()))


def _modules(plugins: Sequence[str]) -> list[str]:
    kinds = known_kinds(tuple(plugins))
    lines = []
    for slot in SLOT_NAMES:
        for kind in kinds.names(slot):
            origin, doc = kinds.origin(slot, kind), kinds.find(slot, kind).__doc__ or ""
            about = doc.strip().split("\n")[0] + (f" (from {origin})" if origin else "")
            lines.append(f"{kind:<20} {slot:<12} {about}".rstrip())
    return lines


def _agents() -> list[str]:
    """Each with its world; a trained one with its mean returns and the steps of its training.

    HNS: (return − random) / (human − random).
    """
    lines = []
    for path in sorted(BUNDLED.glob("*/config.yaml")):
        parts = [f"{path.parent.name:<16} {read_yaml(path)['world']['id']:<18}"]
        if (origin := path.with_name("provenance.json")).is_file():
            provenance = json.loads(origin.read_text(encoding="utf-8"))
            for played in provenance["evaluations"]:
                share = played["human_normalised"]
                human = "" if share is None else f" (HNS {share:.2f})"
                score = f"{played['mean_return']:.1f}{human}"
                parts.append(f"{played['protocol'] or 'score'} {score:<18}")
            parts.append(f"{provenance['steps']} steps")
        lines.append(" ".join(parts).rstrip())
    return lines
