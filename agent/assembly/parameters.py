"""How many parameters an agent may have on this machine: refused before they are allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from modules.messages import ConfigError

COPIES = 6
"""Copies of a parameter in training: weight, average, gradient, two moments, and one to spare."""


@contextmanager
def bounded_parameters() -> Iterator[None]:
    """Refuses modules that are constructed in this block beyond what the machine's memory holds.

    Raises ConfigError. A parameter is counted when it is registered, before it is initialised: its
    memory is reserved then and not yet used.
    """
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // COPIES
    used = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal used
        if parameter is None:
            return
        used += parameter.nbytes
        if used > most:
            raise ConfigError(
                f"config: expected modules of at most {most / 2**30:.1f} GB of parameters on this "
                f"machine, got more with a {type(module).__name__} of {tuple(parameter.shape)}; "
                "set smaller widths"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise ConfigError(
            f"config: its modules do not fit into memory ({' '.join(str(error).split())[-120:]}); "
            "set smaller widths"
        ) from None
    finally:
        handle.remove()
