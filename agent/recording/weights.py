"""The weights of an agent, named `port/parameter` as in checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn

from agent.modules import Modules
from modules.messages import ConfigError
from modules.tensor_file import difference


def parametric_modules(modules: Modules) -> dict[str, nn.Module]:
    """The modules with trainable parameters, by port: any of the six. Of a configurator or a memory
    under interventions, the module itself.
    """
    by_port = {field.name: getattr(modules, field.name) for field in dataclasses.fields(modules)}
    for port in ("configurator", "memory"):
        while hasattr(by_port[port], "wrapped"):
            by_port[port] = by_port[port].wrapped
    return {
        port: module
        for port, module in by_port.items()
        if isinstance(module, nn.Module) and any(p.requires_grad for p in module.parameters())
    }


def named_weights(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Each weight and buffer as `port/name`, without copying."""
    return {
        f"{port}/{name}": tensor
        for port, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def under(named: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named `prefix/name`, by `name`."""
    return {
        name.removeprefix(f"{prefix}/"): tensor
        for name, tensor in named.items()
        if name.startswith(f"{prefix}/")
    }


def load_weights(modules: Modules, weights: Mapping[str, Tensor], where: str) -> None:
    """Loads `weights`, named `port/parameter`, into the modules.

    Weights of a port without trainable parameters are ignored, so that a simulator can replace a
    learned world model. Raises ConfigError, naming `where`, if names, shapes or types differ.
    """
    require_weights(modules, weights, where)
    for port, module in parametric_modules(modules).items():
        module.load_state_dict(under(weights, port))


def require_weights(modules: Modules, weights: Mapping[str, Tensor], where: str) -> None:
    """Raises ConfigError, as `load_weights` does, before anything is loaded; forms suffice."""
    targets = parametric_modules(modules)
    own = {name: tensor for name, tensor in weights.items() if name.partition("/")[0] in targets}
    if differing := difference(named_weights(targets), own):
        raise ConfigError(
            f"checkpoint {where}: weights {differing}; use the kinds and sizes it was trained with"
        )
