"""Tuning: its steps, its folder, and that an interrupted one continues with the same result."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.assembly.load import RunRequest, load, prepared
from agent.cli import run
from agent.recording import checkpoint
from agent.tuning.evolution import Outcome, Tuning, _Objective, _tunable, step_of, tune
from agent.tuning.from_traces import _fit, advantage
from modules.messages import ConfigError

SMALL = RunRequest(
    agent="CartPole-v1",
    overrides=("world_model.kind=persistence", "directive.horizon_steps=3",
               "directive.model_calls=8", "directive.commit_steps=2"),
)  # fmt: skip
TUNING = Tuning(price=1.0, generations=2, population=4, episodes=2, steps=12, seed=5)
DEARER = TUNING.model_copy(update={"price": 2.0})


def test_the_step_is_towards_better_candidates() -> None:
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # Along the first axis more is better, along the second less.
    moved = step_of(directions, torch.tensor([4.0, 1.0, 2.0, 3.0]))
    assert moved[0] > 0 > moved[1]
    assert torch.equal(step_of(directions, torch.full((4,), 7.0)), torch.zeros(2))
    # Ranks alone count: the size of the best value has no effect.
    assert torch.equal(moved, step_of(directions, torch.tensor([1e9, 1.0, 2.0, 3.0])))


def test_steps_lead_to_the_maximum_of_a_quadratic() -> None:
    draw = torch.Generator().manual_seed(0)
    top, here = torch.tensor([0.7, -1.2, 0.4]), torch.zeros(3)
    for _ in range(60):
        directions = torch.randn(8, 3, generator=draw)
        tried = torch.cat([directions, -directions])
        values = -((here + 0.3 * tried) - top).square().sum(-1)
        here = here + 0.6 * step_of(directions, values)
    assert (here - top).norm() < 0.2


def test_the_advantage_of_thinking_is_estimated_from_returns() -> None:
    """Thinking pays where the first feature is above 0; the network is fitted to it."""
    draw = torch.Generator().manual_seed(1)
    assembly = prepared(
        RunRequest(agent="CartPole-v1", overrides=("configurator.kind=learned",
                                                "world_model.kind=persistence"))
    )  # fmt: skip
    assembly.world.close()
    tunable = _tunable(assembly)
    size = tunable.weights["hidden.weight"].shape[1]
    features = torch.randn(800, size, generator=draw)
    thought = torch.rand(800, generator=draw) < 0.3
    net_return = (
        2 * features[:, 1] + thought * features[:, 0] + 0.3 * torch.randn(800, generator=draw)
    )
    gain = advantage(features, thought, net_return)
    assert torch.corrcoef(torch.stack([gain, features[:, 0]]))[0, 1] > 0.97
    _fit(tunable, features, gain)
    thinks = tunable.outputs(features)[:, 0] >= 0
    far = features[:, 0].abs() > 0.3
    assert (thinks == (features[:, 0] > 0))[far].float().mean() > 0.95


def stopped(*_: object) -> Outcome:
    raise KeyboardInterrupt


def test_a_tuning_with_a_high_price_and_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call costs more than an episode can earn; interrupted, the result is the same."""
    reports: list[object] = []
    place = tmp_path / "whole"
    best = tune(SMALL, place, TUNING, report=reports.append)
    assert best == place / "best"
    assert len(reports) == 2
    assert "held out" in str(reports[0])
    facts = checkpoint.load(best).facts
    assert facts["price"] == 1.0
    assert facts["judged"]["value"] >= facts["untaught"]["value"]
    notes = json.loads((place / "tuning.json").read_text())
    assert notes["asked"]["config"]["configurator"]["kind"] == "learned"
    assert len(notes["history"]) == 2
    # Interrupted before the first evaluation and after the first generation.
    parts = tmp_path / "parts"
    with monkeypatch.context() as within:
        within.setattr(_Objective, "held_out", stopped)
        with pytest.raises(KeyboardInterrupt):
            tune(SMALL, parts, TUNING, report=reports.append)
    with pytest.raises(ConfigError, match=r"was begun with price 1\.0"):
        tune(SMALL, parts, DEARER)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(SMALL, parts, TUNING, report=stop)
    resumed: list[object] = []
    tune(SMALL, parts, TUNING, report=resumed.append)
    assert [str(one) for one in resumed] == [str(reports[1])]
    one, other = (checkpoint.load(p / "best").tensors["weights"] for p in (place, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(
        ConfigError, match=r"was begun with price 1\.0; continue it as it was begun"
    ):
        tune(SMALL, place, DEARER)
    # An agent reads the weights from the folder; their shapes must fit.
    again = load("CartPole-v1", *SMALL.overrides, "configurator.kind=learned",
                 f"configurator.weights={place}")  # fmt: skip
    again.world.close()
    assert torch.equal(_tunable(again).weights["heads.bias"], one["heads.bias"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"heads.weight: expected \(4, 3\), got \(4, 8\)"):
        load("CartPole-v1", *SMALL.overrides, "configurator.kind=learned",
             f"configurator.weights={place}", "configurator.width=3")  # fmt: skip
    damaged = place / "best" / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ConfigError, match="is damaged"):
        load("CartPole-v1", *SMALL.overrides, "configurator.kind=learned",
             f"configurator.weights={place}")  # fmt: skip


def test_tuning_from_recorded_runs_and_runs_that_do_not_fit(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = [f"--{o}" for o in SMALL.overrides]
    recorded = tmp_path / "recorded"
    assert run(["play", "CartPole-v1", "--no-live", "--steps", "160", "--num-envs", "2", "--run",
                str(recorded), *little, "--configurator.kind=random-rate",
                "--configurator.rate=0.4", "--directive.commit_steps=1"]) == 0  # fmt: skip
    always = tmp_path / "always"
    assert run(["play", "CartPole-v1", "--no-live", "--steps", "40", "--run", str(always), *little,
                "--configurator.kind=fixed"]) == 0  # fmt: skip
    tuned = tmp_path / "tuned"
    words = ["tune", "CartPole-v1", *little, "--generations", "0", "--episodes", "2", "--steps",
             "10", "--price", "0.5", "--json"]  # fmt: skip
    capsys.readouterr()
    assert run([*words, "--run", str(tmp_path / "no"), "--from", str(always)]) == 2
    assert "record with configurator.kind=random-rate" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    with monkeypatch.context() as within:
        within.setattr(_Objective, "held_out", stopped)
        run([*words, "--run", str(tuned), "--from", str(recorded)])
    assert not (tuned / "generations").exists()
    assert run([*words, "--run", str(tuned), "--from", str(recorded)]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out.splitlines()[-1])
    assert figures["from_traces"] is not None
    assert "use it    --configurator.kind=learned" in out
    assert (tuned / "best" / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--population=3", "tune population: 3 is not a multiple of 2"),
        ("--steps=1", "tune steps: 1 is not greater than or equal to 2"),
        ("--price=-1", "tune price: -1.0 is not greater than or equal to 0"),
        ("--generations=0", "there is nothing to learn"),
    ],
)
def test_wrong_options_are_refused_before_a_folder_is_created(
    option: str, complaint: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["tune", "CartPole-v1", option]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*"))
