"""Configurators built as `agent.assembly.build` builds them, from settings and facts by name."""

from typing import Any

from modules.configurator.base_directive import BaseDirective, DirectiveSettings

FACTS = ("drives", "heads", "token_shape", "horizon_max")
HAS_LATENT = True


def directed(kind: type, **values: Any) -> Any:
    """A configurator of a `kind`, from facts, fields of `DirectiveSettings`, fields of its `Config`
    and other arguments of its constructor, all by name.
    """
    facts = {name: values.pop(name) for name in FACTS}
    shared = {name: values.pop(name) for name in DirectiveSettings.model_fields if name in values}
    own = {name: values.pop(name) for name in kind.Config.model_fields if name in values}  # type: ignore[attr-defined]
    base = BaseDirective(DirectiveSettings(**shared), **facts, has_latent=HAS_LATENT)
    return kind(config=kind.Config.model_validate(own), base=base, **values)  # type: ignore[attr-defined]
