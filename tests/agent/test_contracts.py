"""Every built-in kind is held against the contract of its port; and the contract can be broken."""

from typing import Literal

import pytest
import torch

from agent.assembly.build import KINDS
from agent.assembly.resolve import SLOT_NAMES, Kinds
from agent.cli import run
from agent.contracts.check_module import check, check_slot
from modules.actor.policy import Categorical
from modules.configurator.fixed import Fixed
from modules.messages import ConfigError
from modules.perception.vectors import Vectors

EVERY = [(slot, kind) for slot in SLOT_NAMES for kind in KINDS[slot]]


@pytest.mark.parametrize(("slot", "kind"), EVERY)
def test_it_keeps_the_promises_of_its_port(slot: str, kind: str):
    found = check_slot(slot, kind, Kinds(KINDS))
    assert len(found) >= 3
    assert [str(one) for one in found if not one.kept] == []


class Nosy(Vectors):
    """Lets rows see each other."""

    class Config(Vectors.Config):
        kind: Literal["nosy"] = "nosy"

    def perceive(self, observation, before):
        state = super().perceive(observation, before)
        return state.replace(latent=state.latent - state.latent.mean(0, keepdim=True))


class Forgetful(Vectors):
    """Remembers how often it was asked."""

    class Config(Vectors.Config):
        kind: Literal["forgetful"] = "forgetful"

    asked = 0

    def perceive(self, observation, before):
        Forgetful.asked += 1
        state = super().perceive(observation, before)
        return state.replace(latent=state.latent + Forgetful.asked)


class Loud(Categorical):
    """Not one-hot."""

    class Config(Categorical.Config):
        kind: Literal["loud"] = "loud"

    def act(self, situation, directive):
        return super().act(situation, directive) * 2


class Spendthrift(Fixed):
    """Asks for a longer horizon than plans have."""

    class Config(Fixed.Config):
        kind: Literal["spendthrift"] = "spendthrift"

    def configure(self, situation):
        directive = super().configure(situation)
        return directive.replace(horizon_steps=directive.horizon_steps + 1000)


BROKEN = {
    "nosy": ("perception", Nosy, "a row alone is perceived as in the batch"),
    "forgetful": ("perception", Forgetful, "lives the same life again"),
    "loud": ("policy", Loud, "actions are one-hot"),
    "spendthrift": ("configurator", Spendthrift, "modes, horizons"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_promise_is_found(kind: str):
    slot, cls, promise = BROKEN[kind]
    kinds = Kinds(KINDS)
    kinds.add("here", {slot: {kind: cls}})
    broken = [str(one) for one in check(kind, kinds) if not one.kept]
    assert any(promise in line for line in broken), broken


def test_a_kind_that_is_not_there_is_suggested():
    with pytest.raises(ConfigError, match="Did you mean 'beam'"):
        check("baem", Kinds(KINDS))


def test_the_command_prints_a_line_a_promise(capsys: pytest.CaptureFixture[str]):
    assert run(["check-module", "vectors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 10
    assert all(line.startswith("ok") for line in lines)
    assert torch.is_grad_enabled()
