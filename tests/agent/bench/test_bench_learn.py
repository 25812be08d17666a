"""The learner and the same written by hand do the same, and the bench would see if they did not."""

import importlib

import pytest
import torch

from agent.bench import learn
from agent.commands.bench import benches


@pytest.fixture(scope="module")
def both():
    torch.set_num_threads(1)
    learner = learn._learner(learn.TREE, 120)
    return learner, learn.Handwritten(learner)


def test_each_bench_can_be_run():
    assert {"futures", "learn", "plan"} <= set(benches())
    for name in benches():
        assert callable(importlib.import_module(f"agent.bench.{name}").run)


def test_both_come_to_the_same_losses(both):
    learner, hand = both
    for _ in range(2):
        learn.agree(learner, hand)
    assert learner.updates == 0  # agreeing changes neither


def test_a_different_network_or_loss_is_found(both):
    learner, hand = both
    weight = hand.online.layers[0].weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
    with pytest.raises(RuntimeError, match="no longer do the same"):
        learn.agree(learner, hand)
    with torch.no_grad():
        weight.copy_(kept)
    learn.agree(learner, hand)


def test_both_update_and_their_losses_fall(both):
    learner, hand = both
    first = [update() for update in (learner.update, hand.update)]
    for _ in range(10):
        last = [update() for update in (learner.update, hand.update)]
    for before, after in zip(first, last, strict=True):
        assert after["world_model/ended"] < before["world_model/ended"] + 1
        assert after["total"] == pytest.approx(sum(
            value for name, value in after.items() if "/" in name
        ), rel=1e-4)  # fmt: skip


def test_figures(monkeypatch):
    figures = learn.run(steps=60, updates=2, turns=2)
    assert list(figures) == [
        "ratio", "update_ms", "by_hand_ms", "update_wall_ms", "share_env", "share_act",
        "share_sample", "share_update",
    ]  # fmt: skip
    shares = [value for name, value in figures.items() if name.startswith("share")]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
