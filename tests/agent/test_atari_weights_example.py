"""`examples/atari_weights.py`: what a play costs, its bars, and plays that are not repeated."""

import json
import math
import sys

import pytest
import torch

import atari_weights
from agent import load
from modules.messages import SIGNALS

GAINS = {"random": 0.0, atari_weights.TRAINED: 1.0, atari_weights.REACTS: 4.0}


def rows(plans: tuple[float, ...] = (10.0, 11.0, 12.0), **of_task: tuple[float, ...]):
    """Costs of three seeds of each arm; `of_task`: those of Mode-2 in the games of an agent."""
    figures = {}
    for name, task in atari_weights.TASKS.items():
        for arm in atari_weights.ARMS:
            gains = of_task.get(task.agent, plans) if arm == atari_weights.PLANS else ()
            costs = [5 - gain for gain in gains or [GAINS[arm]] * 3]
            figures[f"{name}: {arm}"] = [{"cost": cost} for cost in costs]
    return figures


def test_a_cost_is_the_weighted_sum_of_the_drives():
    signals = torch.zeros(2, 2, len(SIGNALS))
    signals[0, :, SIGNALS.index("reward")] = torch.tensor([1.0, -3.0])
    signals[1, :, SIGNALS.index("life_lost")] = 1
    signals[:, 0, SIGNALS.index("effort")] = 0.5
    cost = atari_weights.cost_of(signals, {"score": 2, "pain": 1, "effort": 10})
    assert cost == pytest.approx((2 * (math.log(4) - math.log(2)) + 2 + 10) / 2)


@pytest.mark.parametrize("task", atari_weights.TASKS.values())
def test_a_task_weighs_otherwise_than_the_training_and_its_heads_are_the_critics(task):
    player = load(task.agent)
    player.world.close()
    heads = player.agent.modules.cost.heads
    v = player.agent.modules.configurator.initial(1).v[0]
    before = dict(zip(heads, v.tolist(), strict=True))
    assert heads == atari_weights.HEADS
    assert before == {"score": 1, "pain": 0}
    assert dict(task.weights) != before


def test_each_bar_can_be_missed():
    assert all(atari_weights.bars_of(rows()).values())
    for name, task in atari_weights.TASKS.items():
        met = atari_weights.bars_of(rows(**{task.agent: (9.0, 10.0, 0.0)}))
        assert [bar for bar, good in met.items() if not good] == [next(b for b in met if name in b)]
    met = atari_weights.bars_of(rows(plans=(7.0, 7.5, 8.0)))
    assert [good for good in met.values() if not good] == [False]


def test_random_that_is_better_is_no_gain_of_a_reaction():
    worse = rows()
    for name in atari_weights.TASKS:
        worse[f"{name}: {atari_weights.REACTS}"] = [{"cost": 6.0}] * 3
    assert atari_weights.compared(worse).count("no gain of Mode-1") == len(atari_weights.TASKS)


@pytest.mark.slow
def test_the_command_plays_once(tmp_path, monkeypatch, capsys):
    words = ["atari_weights.py", "--quick", "--json", "--seeds", "1", "--runs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    atari_weights.main()
    printed = capsys.readouterr().out
    figures = json.loads(printed.splitlines()[-1])["rows"]
    tasks, arms = atari_weights.TASKS, atari_weights.ARMS
    assert set(figures) == {f"{task}: {arm}" for task in tasks for arm in arms}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == len(tasks) * len(arms)
    atari_weights.main()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert capsys.readouterr().out == printed
