"""Drives that are one signal: named, weighed, hashed, guarded, planned with."""

from contextlib import closing
from dataclasses import FrozenInstanceError

import pytest
import torch

from agent.api.train import train
from agent.assembly.load import RunRequest, prepared
from agent.cli import run
from agent.counterfactual.fork import fork
from agent.live import live
from agent.recording.drive_guard import drive_hashes, require_same
from agent.recording.trace import Trace
from agent.reporting.text import Words
from modules.cost import drives
from modules.cost.drives import IntrinsicCost, SignalDrive, probe_hash, register, signal_drive
from modules.messages import SIGNALS, ConfigError, State
from worlds.make import make_world

ROAD = "sextet/Road-state-v0"
DRIVES = "cost.drives=[score, signal:collision, signal:-progress]"
MODE_1 = ("configurator.kind=fixed", "configurator.mode=1")
FASTER = 5


def test_the_energy_is_the_signal_or_minus_it():
    assert signal_drive("signal:collision") == SignalDrive("collision", 1.0)
    assert signal_drive("signal:-progress") == SignalDrive("progress", -1.0)
    assert signal_drive("score") is None
    names = (*SIGNALS, "progress", "collision")
    signals = torch.randn(5, len(names)).requires_grad_()
    state = State(
        latent=torch.zeros(5, 2), hidden=torch.zeros(5, 0), signals=signals,
        ended=torch.zeros(5), uncertainty=torch.zeros(5),
    )  # fmt: skip
    chosen = {name: signal_drive(name) for name in ("signal:collision", "signal:-progress")}
    energies = IntrinsicCost(chosen, names).energies(state)
    assert torch.equal(energies, torch.stack([signals[:, 7], -signals[:, 6]], 1))
    energies.sum().backward()
    assert signals.grad.tolist() == [[0.0] * 6 + [-1.0, 1.0]] * 5


def test_it_is_immutable_and_its_hash_says_name_signal_and_sign():
    with pytest.raises(FrozenInstanceError):
        signal_drive("signal:collision").sign = -1.0
    names = ("signal:a", "signal:-a", "signal:b", "signal:reward", "signal:-reward")
    assert len({probe_hash(name, signal_drive(name)) for name in names}) == len(names)
    assert probe_hash("signal:a", SignalDrive("a", -1.0)) != probe_hash(
        "signal:a", SignalDrive("a", 1.0)
    )
    with pytest.raises(ConfigError, match="expected a name that does not begin with signal:"):
        register("signal:collision", drives.PainDrive)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("signal:colision", "drive 'signal:colision' expected the signal 'colision', got a world, "
         f"{ROAD}, with {', '.join(SIGNALS)}, progress, collision, observation_0 to observation_15;"
         " leave it out. Did you mean 'collision'?"),
        ("signal:observation_16", "expected the signal 'observation_16'"),
        ('"signal:"', "expected the signal ''"),
        ("collision", "signal:progress, signal:collision. Did you mean 'signal:collision'?"),
    ],
)  # fmt: skip
def test_an_unknown_signal_is_refused_in_one_line(tmp_path, capsys, monkeypatch, named, words):
    monkeypatch.chdir(tmp_path)
    assert run(["play", ROAD, "--no-live", f"--cost.drives=[score, {named}]"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("sextet: config cost.drives: ")
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_weighs_records_forks_and_guards_it(tmp_path, capsys, monkeypatch):
    place = tmp_path / "run"
    play = ["play", ROAD, "--no-live", "--steps", "40", "--seed", "0", "--run", str(place)]
    weigh = "--directive.u={signal:collision: 5, signal:observation_1: .5}"
    more = DRIVES.replace("]", ", signal:observation_1]")
    assert run([*play, f"--{more}", weigh, *(f"--{one}" for one in MODE_1)]) == 0
    trace = Trace.open(place / "trace.sqlite")
    assert trace.world.signals == (*SIGNALS, "progress", "collision", "observation_1")
    assert trace.drives[1:] == ("signal:collision", "signal:-progress", "signal:observation_1")
    moments = list(trace)
    for moment in moments:
        progress, collision, speed = moment.observation.signals[0, 6:].tolist()
        assert moment.energies.intrinsic[0, 1:].tolist() == [collision, -progress, speed]
        assert moment.directive.u[0, 1:].tolist() == [5, 1, 0.5]
    assert trace.series("collision").sum() > 0
    words = Words(trace.world, trace.drives, trace.heads)
    hit = next(m for m in moments if m.observation.signals[0, 7] > 0)
    assert "collision +1" in words.perception(hit, 0)[0]
    assert "signal:collision 1" in words.cost(hit, 0)[0]
    assert fork(place, 3, steps=4).identical
    # A drive of this package that computes another thing is refused by name.
    energy = SignalDrive.energy
    monkeypatch.setattr(SignalDrive, "energy", lambda self, value: 2 * energy(self, value))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    again = ["play", ROAD, "--no-live", "--steps", "1", f"--{DRIVES}"]
    for command in (["fork", str(place), "--at", "3"], again):
        assert run(command) == 2
        error = capsys.readouterr().err
        assert "drive 'signal:" in error
        assert "is not what it was" in error
        assert len(error.splitlines()) == 1


def test_a_drive_that_is_exchanged_while_running_is_refused_by_name():
    assembly = prepared(RunRequest(agent=ROAD, overrides=(DRIVES, *MODE_1)))
    with closing(assembly.world):
        before, cost = drive_hashes(assembly.agent), assembly.agent.modules.cost
        cost.intrinsic_cost.drives["signal:collision"] = SignalDrive("collision", -1.0)
        with pytest.raises(ConfigError, match="end of the run: drive 'signal:collision' is not"):
            require_same(before, drive_hashes(assembly.agent), "end of the run")


def test_a_learned_model_predicts_the_signals_and_a_critic_has_a_head_for_each(tmp_path):
    quick = ("learner.warmup_steps=30", "learner.batch=8", "training.evaluate_every=0", DRIVES)
    trained = train(ROAD, *quick, steps=40, seed=0, run=tmp_path / "run")
    assembly = prepared(RunRequest(agent=str(trained.folder)))
    with closing(assembly.world):
        assert assembly.agent.modules.cost.heads == (
            "score", "signal:collision", "signal:-progress",
        )  # fmt: skip
        *_, moment = live(assembly.agent, assembly.world, 3, 0)
    assert moment.expected.signals.shape == (1, 8)
    assert bool((moment.expected.signals[:, 6] != 0).all())
    assert moment.energies.critic_actions.shape == (1, 9, 3)


def signals_of(observations):
    """Collisions in all, and mean progress."""
    signals = torch.stack([observation.signals[0] for observation in observations])
    return float(signals[:, 7].sum()), float(signals[:, 6].mean())


def planned(*settings, steps=60):
    """Collisions and progress of an agent that plans in the world itself."""
    planner = (
        "world_model.kind=clairvoyant", "configurator.kind=fixed", "configurator.mode=2",
        "directive.model_calls=36", "directive.horizon_steps=5", "directive.commit_steps=1",
    )  # fmt: skip
    assembly = prepared(RunRequest(agent=ROAD, overrides=(*planner, *settings), flags={"seed": 0}))
    with closing(assembly.world):
        moments = live(assembly.agent, assembly.world, steps, 0)
        return signals_of(moment.observation for moment in moments)


def test_who_plans_by_collision_and_progress_drives_fast_and_hits_nothing():
    world = make_world(ROAD)
    constant = [world.reset(0), *(world.step(torch.eye(9)[[FASTER]]) for _ in range(59))]
    collisions, progress = signals_of(constant)
    assert collisions >= 2
    assert progress > 0.9
    both = "cost.drives=[signal:collision, signal:-progress]"
    collisions, progress = planned(both, "directive.u={signal:collision: 10}")
    assert collisions == 0
    assert progress > 0.8
    # It is the weight of collisions that avoids them, and the sign that makes progress good.
    assert planned(both, "directive.u={signal:collision: 0}")[0] >= 1
    assert planned("cost.drives=[signal:progress]", steps=12)[1] < 0.4
