"""What learns gets better, and a run that was stopped goes on as if it never had been."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from agent import checkpoint
from agent.build import Assembly, assemble, known_kinds
from agent.commands.train import train
from agent.learn import Learner
from agent.live import live
from agent.loading import Request
from agent.training import Schedule, Training
from modules.messages import ConfigError

SMALL = {
    "world": {"id": "CartPole-v1"},
    "perception": {"kind": "vectors", "width": 32},
    "world_model": {"kind": "jepa", "width": 32, "blocks": 1, "ensemble": 2, "unroll_steps": 3},
    "cost": {"critic": {"kind": "actions", "width": 32}},
    "memory": {"capacity": 500, "priority_exponent": 0.5},
    "actor": {"policy": {"kind": "greedy", "epsilon": 0.2}},
    "configurator": {"kind": "fixed", "mode": 1},
    "learner": {"batch": 8, "warmup_steps": 20, "updates_per_step": 0.5},
}


def made(**learner: object) -> Assembly:
    tree = {**SMALL, "learner": {**SMALL["learner"], **learner}}
    return assemble(tree, known_kinds(), training=True)


def learner_of(assembly: Assembly) -> Learner:
    settings = assembly.config.settings.learner.model_dump()
    return Learner(assembly.agent.modules, seed=3, **settings)


def trained(folder: Path, steps: int, resume: checkpoint.Checkpoint | None = None) -> Training:
    folder.mkdir(exist_ok=True)
    assembly = made(reset_every=17, imagined_steps=2)
    training = Training(
        assembly.agent,
        assembly.world,
        learner_of(assembly),
        folder,
        Schedule(steps=steps, report_every=20, evaluate_every=0, checkpoint_every=50),
        evaluate=lambda: 0.0,
        seed=3,
    )
    for _ in training.run(resume):
        pass
    return training


def test_resumed_life_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole = trained(tmp_path / "whole", 150)
    for cut in (50, 100):
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(tmp_path / "whole" / "checkpoints" / str(cut), folder / "checkpoints/x")
        kept = checkpoint.load(folder / "checkpoints/x")
        assert kept.facts["steps"] == cut
        again = trained(folder, 150, kept)
        for mine, theirs in (
            (whole.learner.weights(), again.learner.weights()),
            (whole.learner.tensors(), again.learner.tensors()),
            (whole.agent.memory.tensors(), again.agent.memory.tensors()),
        ):
            assert mine.keys() == theirs.keys()
            assert all(mine[name].equal(theirs[name]) for name in mine)


def test_a_batch_seen_often_is_learned():
    assembly = made()
    for _ in live(assembly.agent, assembly.world, 200, 0):
        pass
    learner = learner_of(assembly)
    losses = [learner.update()["world_model/prediction"] for _ in range(150)]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_updates_are_what_was_asked_for():
    assembly = made()
    learner = learner_of(assembly)
    counts = []
    for number, _ in enumerate(live(assembly.agent, assembly.world, 40, 0), 1):
        counts.append(len(list(learner.learn(1, number))))
    assert sum(counts[:19]) == 0
    assert sum(counts) == 10  # half an update for each of the steps 20 to 40, 21 of them


def test_target_perception_follows():
    assembly = made()
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    settings = assembly.config.settings.learner.model_dump() | {"target_rate": 0.25}
    learner = Learner(assembly.agent.modules, seed=3, **settings)
    before = learner.tensors()["target/network.last.weight"].clone()
    learner.update()
    now = learner.weights()["perception/network.last.weight"]
    after = learner.tensors()["target/network.last.weight"]
    assert not now.equal(before)
    torch.testing.assert_close(after, before.lerp(now, 0.25))


def test_a_reset_goes_back_to_how_it_all_began_halfway_or_wholly():
    assembly = made(reset_every=5, reset_keep=0.25)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner = learner_of(assembly)
    began = {name: value.clone() for name, value in learner.weights().items()}
    for _ in range(4):
        learner.update()
    grown = {name: value.clone() for name, value in learner.weights().items()}
    learner.reset()
    now = learner.weights()
    name = "perception/network.last.weight"
    torch.testing.assert_close(now[name], began[name].lerp(grown[name], 0.25))
    assert not now[name].equal(began[name])
    for name, value in now.items():
        if name.startswith("cost/"):
            assert value.equal(began[name]), name
    assert not any(name.startswith("adam/") for name in learner.tensors())
    target = learner.tensors()["target/network.last.weight"]
    assert target.equal(now["perception/network.last.weight"])


def test_a_dream_goes_on_as_the_world_model_says_and_is_over_where_it_ends():
    assembly = made(imagined_steps=4)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    experience = assembly.agent.memory.sample(8, 4, key)
    states, _ = learner.encode(experience, key)
    assert learner.dreamer is not None
    dreamt, given, whole = learner.dreamer.dream(experience, states[0], key)
    assert len(given) == 4
    assert len(whole) == 5
    assert whole[0].latent.equal(states[0].latent.detach())
    model = assembly.agent.modules.world_model
    for t in range(4):
        after = model.step(whole[t], dreamt.actions[:, t])
        torch.testing.assert_close(after.latent, whole[t + 1].latent)
        torch.testing.assert_close(after.signals, dreamt.signals[:, t + 1])
    assert not any(state.latent.requires_grad for state in whole)
    ends = torch.stack([state.ended > 0.5 for state in whole], 1)
    for row in range(8):
        first = int(ends[row].long().argmax()) if ends[row].any() else 4
        assert dreamt.valid[row].tolist() == [t <= first for t in range(5)]
    assert "cost/imagined critic" in learner.update()


@pytest.mark.parametrize("worlds", [1, 3])
def test_train_command_leaves_a_run_that_can_be_evaluated_and_resumed(
    tmp_path, capsys, monkeypatch, worlds
):
    monkeypatch.chdir(tmp_path)
    small = (
        "learner.warmup_steps=20", "training.evaluate_every=60", "training.evaluate_episodes=2",
        "training.checkpoint_every=60", "training.report_every=30",
    )  # fmt: skip
    flags = {"seed": 1, "steps": 90, "worlds": worlds}
    request = Request(agent="CartPole-v1", overrides=small, flags=flags)
    train(request, run=Path("run"), resume=None, as_json=True)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["steps"] == 90
    assert said["resumed_at"] is None
    assert (tmp_path / "run/checkpoints/best/weights.safetensors").is_file()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines if "evaluation" in line] == [60, 90]

    train(Request(flags={"steps": 150}), run=None, resume=Path("run"), as_json=True)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["resumed_at"] == 90
    assert said["steps"] == 150


def test_resuming_what_has_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="checkpoint"):
        train(Request(), run=None, resume=tmp_path, as_json=False)
