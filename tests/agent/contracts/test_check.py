"""Every built-in kind keeps the contract of its port; and each kind of promise can be broken."""

import importlib.util
from typing import Literal

import pytest
import torch

from agent.assembly.build import KINDS
from agent.assembly.resolve import SLOT_NAMES, Kinds
from agent.cli import run
from agent.contracts import memory
from agent.contracts.check import check, check_slot
from agent.contracts.promises import ContractError
from agent.contracts.subject import running
from modules.actor.policy import Categorical
from modules.configurator.fixed import Fixed
from modules.memory.ring import Ring
from modules.messages import ConfigError
from modules.perception.vectors import Vectors
from modules.world_model.generative import Generative

EXTRA = {
    "hog": pytest.mark.skipif(
        importlib.util.find_spec("skimage") is None, reason="needs sextet[hog]"
    )
}
"""Kinds that need a package of an extra."""

EVERY = [
    pytest.param(slot, kind, marks=EXTRA.get(kind, ()))
    for slot in SLOT_NAMES
    for kind in KINDS[slot]
]


@pytest.mark.parametrize(("slot", "kind"), EVERY)
def test_it_keeps_the_promises_of_its_port(slot: str, kind: str):
    results = check_slot(slot, kind, Kinds(KINDS))
    assert len(results) >= 3
    assert [str(result) for result in results if not result.holds] == []


class Leaking(Vectors):
    """Lets rows see each other."""

    class Config(Vectors.Config):
        kind: Literal["leaking"] = "leaking"

    def perceive(self, observation, before):
        state = super().perceive(observation, before)
        return state.replace(latent=state.latent - state.latent.mean(0, keepdim=True))


class Counting(Vectors):
    """Has state of its own: the number of its calls."""

    class Config(Vectors.Config):
        kind: Literal["counting"] = "counting"

    calls = 0

    def perceive(self, observation, before):
        Counting.calls += 1
        state = super().perceive(observation, before)
        return state.replace(latent=state.latent + Counting.calls)


class Doubling(Categorical):
    """Not one-hot."""

    class Config(Categorical.Config):
        kind: Literal["doubling"] = "doubling"

    def act(self, situation, directive):
        return super().act(situation, directive) / 2


class TooLong(Fixed):
    """Directs a longer horizon than plans have."""

    class Config(Fixed.Config):
        kind: Literal["too-long"] = "too-long"

    def configure(self, situation):
        directive = super().configure(situation)
        return directive.replace(horizon_steps=directive.horizon_steps + 500)


class Enlarging(Generative):
    """Decodes more than the world shows."""

    class Config(Generative.Config):
        kind: Literal["enlarging"] = "enlarging"

    def decode(self, state):
        return torch.cat([super().decode(state)] * 2, -1)


BROKEN = {
    "enlarging": ("world_model", Enlarging, "What `decode` returns"),
    "leaking": ("perception", Leaking, "A row alone is encoded as in the batch"),
    "counting": ("perception", Counting, "The same seed gives the same run"),
    "doubling": ("policy", Doubling, "Actions are one-hot"),
    "too-long": ("configurator", TooLong, "Modes, horizons"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_promise_is_reported(kind: str):
    slot, cls, promise = BROKEN[kind]
    kinds = Kinds(KINDS)
    kinds.add("here", {slot: {kind: cls}})
    broken = [str(result) for result in check_slot(slot, kind, kinds) if not result.holds]
    assert any(promise in line for line in broken), broken


class Amnesic(Ring):
    """Forgets the last moment."""

    class Config(Ring.Config):
        kind: Literal["amnesic"] = "amnesic"

    def previous(self):
        previous = super().previous()
        latent = torch.zeros_like(previous.state.latent)
        return previous.replace(state=previous.state.replace(latent=latent))


@pytest.fixture(scope="module")
def kinds() -> Kinds:
    known = Kinds(KINDS)
    known.add("here", {"memory": {"amnesic": Amnesic}})
    return known


@pytest.mark.parametrize("promise", memory.PROMISES)
def test_a_plugin_author_runs_promises_under_pytest(promise, kinds):
    with running("memory", "ring", kinds=kinds) as subject:
        promise(subject)


def test_a_promise_raises_where_it_is_broken(kinds):
    with (
        running("memory", "amnesic", kinds=kinds) as subject,
        pytest.raises(ContractError, match="latent differs"),
    ):
        memory.returns_the_last_moment(subject)


def test_an_unknown_kind_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'beam'"):
        check("baem")


def test_the_command_prints_a_line_a_promise(capsys: pytest.CaptureFixture[str]):
    assert run(["check-module", "vectors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 10
    assert all(line.startswith("ok") for line in lines)
    assert torch.is_grad_enabled()
