"""Checks that the intrinsic cost is immutable (LeCun 2022, §3.2).

The energies of each drive on a fixed set of states are hashed when an agent is built, stored with
its traces and checkpoints, and compared when those are used and at the end of a run. A drive that
has changed is refused by name. The drives of plugins are guarded like those of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from agent.agent import Agent
from modules import chance
from modules.cost.drives import DRIVES, SIGNAL, IntrinsicCost, SignalDrive, probe_hash
from modules.messages import ConfigError, State, WorldSpec

SHIPPED: Mapping[str, str] = {
    "score": "d8451204746dad3e25e2a0000d1e5af78b1e14a1752ebbb6c07d1d0b31833b4d",
    "pain": "9799dbad049b31992049865ba68375979c124b890293765bf9a870585c616a12",
    "effort": "9af64d15a68e491f9ef0f70daf0a494f8f39440a946bcaacbf704aa3f2bf776e",
    "novelty": "322d9f617ea3786d212ee1e2b9c229a85342816b9a942c904cf34781c4b19260",
    "goal": "c80e59eb1214ef092349e40fe4166de56d16193d48be3448f87176b161503592",
    "signal:reward": "ff1b43dbda41c83e191bfe0b1d70d7b89d6aa8030bb6c9453b803633a8a9800c",
    "signal:-reward": "29e484f21009c2a83d617aa2a960c3fcc630b10479207830730a2801316ccc0c",
}
"""The probe hash of every drive of this package; of the drives that are a signal, one of each
sign, which stands for all.
"""

_SIGNS = {
    "signal:reward": SignalDrive("reward", 1.0),
    "signal:-reward": SignalDrive("reward", -1.0),
}

PROBES, TOLERANCE = 64, 1e-4
"""States on which a cost is compared with its drives, and the largest difference."""


def drive_hashes(agent: Agent) -> dict[str, str]:
    """The probe hash of each drive of an agent's cost, by name.

    Where the cost's energies differ from those of its drive of that name, or no such drive is
    known, the hash is that of the cost's energies. Beside a drive that is a signal stand those that
    SHIPPED has for all of them.
    """
    cost = agent.modules.cost
    own: IntrinsicCost | None = getattr(cost, "intrinsic_cost", None)
    known = {name: cls() for name, cls in DRIVES.items()} | ({} if own is None else {**own.drives})
    probes = _probes(agent.modules.perception.latent_size, agent.world)
    with torch.no_grad():
        energies = cost.intrinsic(probes)
        signs = _SIGNS if any(name.startswith(SIGNAL) for name in cost.drives) else {}
        hashes = {name: probe_hash(name, drive) for name, drive in signs.items()}
        for column, name in enumerate(cost.drives):
            energy = energies[:, column].double()
            if name in known:
                alone = IntrinsicCost({name: known[name]}, agent.world.signals).energies(probes)
                if torch.allclose(energy, alone[:, 0].double(), 0, TOLERANCE):
                    hashes[name] = probe_hash(name, known[name])
                    continue
            rounded = (energy / TOLERANCE).round().to(torch.int64).tolist()
            hashes[name] = hashlib.sha256(f"{name}={rounded}".encode()).hexdigest()
    return hashes


def _probes(latent_size: int, world: WorldSpec) -> State:
    """States of a world's shape, the same on every machine."""
    signals, goal = len(world.signals), world.goal or latent_size * world.goal_pixels
    drawn = chance.uniform(torch.arange(PROBES), "guard", signals + goal + latent_size) * 8 - 4
    zeros = torch.zeros(PROBES)
    return State(
        latent=drawn[:, signals + goal :],
        hidden=torch.zeros(PROBES, 0),
        signals=drawn[:, :signals],
        ended=zeros,
        uncertainty=zeros,
        goal=drawn[:, signals : signals + goal] if goal else None,
    )


def require_same(before: Mapping[str, str], now: Mapping[str, str], where: str) -> None:
    """Raises ConfigError, naming the drive, where its hash differs from that `before`."""
    for name, expected in before.items():
        if name in now and now[name] != expected:
            raise ConfigError(
                f"{where}: drive {name!r} is not what it was: expected probe hash "
                f"{expected[:12]}…, got {now[name][:12]}…; drives are immutable, give a new one a "
                "name of its own"
            )


@contextmanager
def guarded(agent: Agent) -> Iterator[dict[str, str]]:
    """Yields the hashes of the drives, and compares those at the end of the block with them.

    Raises ConfigError, naming the drive, where one has changed.
    """
    before = drive_hashes(agent)
    yield before
    require_same(before, drive_hashes(agent), "end of the run")
