"""The intrinsic cost is immutable, and this is who sees to it (LeCun 2022, §3.2).

What each drive makes of a fixed set of states is hashed when an agent is made, kept with whatever
it leaves behind (traces, checkpoints), and compared where that is used again and where a run ends.
A drive that means something else than it did is refused by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from agent.agent import Agent
from modules import chance
from modules.cost import drives
from modules.messages import ConfigError, State, WorldSpec

SHIPPED: Mapping[str, str] = {
    "score": "d8451204746dad3e25e2a0000d1e5af78b1e14a1752ebbb6c07d1d0b31833b4d",
    "pain": "9799dbad049b31992049865ba68375979c124b890293765bf9a870585c616a12",
    "effort": "9af64d15a68e491f9ef0f70daf0a494f8f39440a946bcaacbf704aa3f2bf776e",
    "novelty": "322d9f617ea3786d212ee1e2b9c229a85342816b9a942c904cf34781c4b19260",
    "goal": "c80e59eb1214ef092349e40fe4166de56d16193d48be3448f87176b161503592",
}
"""The probe hash of every drive that comes with the package."""

_PROBES, _NEAR = 64, 1e-4


def drive_hashes(agent: Agent) -> dict[str, str]:
    """What each drive of an agent's cost means: its probe hash, by name.

    The cost itself is asked too: where it makes something else of states than the drive of that
    name does, or has a drive that only it knows, the hash is that of what it makes of them.
    """
    cost = agent.modules.cost
    shown = _probes(agent.modules.perception.latent_size, agent.world)
    with torch.no_grad():
        felt = cost.intrinsic(shown)
        hashes = dict[str, str]()
        for at, name in enumerate(cost.drives):
            drive, own = drives.DRIVES.get(name), felt[:, at].double()
            if drive is not None and torch.allclose(own, drive(shown).double(), 0, _NEAR):
                hashes[name] = drives.probe_hash((name,))
            else:
                rounded = (own / _NEAR).round().to(torch.int64).tolist()
                hashes[name] = hashlib.sha256(f"{name}={rounded}".encode()).hexdigest()
    return hashes


def _probes(latent_size: int, world: WorldSpec) -> State:
    """States of a world's shape, the same on every machine."""
    felt, goal = len(world.signals), world.goal or 0
    drawn = chance.uniform(torch.arange(_PROBES), "guard", felt + goal + latent_size) * 8 - 4
    zeros = torch.zeros(_PROBES)
    return State(
        latent=drawn[:, felt + goal :],
        hidden=torch.zeros(_PROBES, 0),
        signals=drawn[:, :felt],
        ended=zeros,
        uncertainty=zeros,
        goal=drawn[:, felt : felt + goal] if goal else None,
    )


def require_same(before: Mapping[str, str], now: Mapping[str, str], where: str) -> None:
    """Raises ConfigError, naming the drive, where one does not mean what it meant `before`."""
    for name, wanted in before.items():
        if name in now and now[name] != wanted:
            raise ConfigError(
                f"{where}: drive {name!r} is not what it was: expected probe hash {wanted[:12]}…, "
                f"got {now[name][:12]}…; drives are immutable, give a new one a name of its own"
            )


@contextmanager
def guarded(agent: Agent) -> Iterator[dict[str, str]]:
    """Around a run: gives the drives' hashes, and holds those at its end against them.

    Raises ConfigError, naming the drive, where one was changed meanwhile.
    """
    before = drive_hashes(agent)
    yield before
    require_same(before, drive_hashes(agent), "end of the run")
