"""Configurators put together as `agent.assembly.build` does it, from settings and facts by name."""

from typing import Any

from modules.configurator.base_directive import BaseDirective, Settings

FACTS = ("drives", "heads", "token_shape", "horizon_max")


def made(kind: type, **given: Any) -> Any:
    """A configurator of a `kind`: what belongs to `BaseDirective` is made one, the rest is its
    own.
    """
    usual = {name: getattr(kind.Config(), name) for name in Settings.model_fields}  # type: ignore[attr-defined]
    stands = {name: given.pop(name, default) for name, default in usual.items()}
    facts = {name: given.pop(name) for name in FACTS}
    return kind(standing=BaseDirective(**stands, **facts), **given)
