"""What learns gets better, and a run that was stopped goes on as if it never had been."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from agent import load
from agent.api.train import train
from agent.api.training import training_config
from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.load import RunRequest
from agent.cli import run
from agent.learning.collapse_monitor import Health, effective_rank
from agent.learning.evaluation import Evaluation
from agent.learning.learner import Learner
from agent.learning.training import Progress, Schedule, Training
from agent.live import live
from agent.recording import checkpoint
from agent.view.progress import LiveProgress, PlainProgress, grouped, lasting
from modules.messages import ConfigError, MessageError
from modules.ports import Batch

LEARNING_KEY = torch.tensor([7])

SMALL = {
    "world": {"id": "CartPole-v1"},
    "perception": {"kind": "vectors", "width": 32},
    "world_model": {
        "kind": "jepa",
        "width": 32,
        "blocks": 1,
        "ensemble_size": 2,
        "unroll_steps": 3,
    },
    "cost": {"critic": {"kind": "actions", "width": 32}},
    "memory": {"capacity": 500, "priority_exponent": 0.5},
    "actor": {"policy": {"kind": "greedy", "epsilon": 0.2}},
    "configurator": {"kind": "fixed", "mode": 1},
    "learner": {"batch": 8, "warmup_steps": 20, "replay_ratio": 0.5},
}


def made(**learner: object) -> Assembly:
    tree = {**SMALL, "learner": {**SMALL["learner"], **learner}}
    return assemble(tree, known_kinds(), training=True)


def learner_of(assembly: Assembly, device: torch.device | None = None, **settings) -> Learner:
    config = assembly.config.settings.learner.model_copy(update=settings)
    return Learner(assembly.agent, config=config, seed=3, device=device)


def trained(folder: Path, steps: int, resume: checkpoint.Checkpoint | None = None) -> Training:
    folder.mkdir(exist_ok=True)
    assembly = made(reset_every=17, imagination_horizon=2)
    training = Training(
        assembly.agent,
        assembly.world,
        learner_of(assembly),
        folder,
        Schedule(steps=steps, report_every=20, evaluate_every=0, checkpoint_every=50),
        evaluate=lambda: [1.0, 2.0, 3.0],
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


def test_metrics_after_a_resume_are_those_of_the_uninterrupted_run(tmp_path):
    trained(tmp_path / "whole", 150)
    folder = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "50", folder / "checkpoints" / "50")
    shutil.copy(tmp_path / "whole" / "metrics.jsonl", folder / "metrics.jsonl")
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as out:
        out.write('{"steps": 1')  # killed while it wrote
    trained(folder, 150, checkpoint.load(folder / "checkpoints" / "50"))
    wall = {"steps_per_s"}
    lines = [
        [
            {name: value for name, value in json.loads(line).items() if name not in wall}
            for line in (at / "metrics.jsonl").read_text().splitlines()
        ]
        for at in (tmp_path / "whole", folder)
    ]
    assert lines[0] == lines[1]
    assert [line["steps"] for line in lines[0]] == [20, 40, 60, 80, 100, 120, 140, 150, 150]
    assert all(line["frames"] == line["steps"] for line in lines[0])


def test_stopped_anywhere_it_goes_on_to_the_same_end(tmp_path):
    whole = trained(tmp_path / "whole", 150)
    folder = tmp_path / "stopped"
    folder.mkdir()
    assembly = made(reset_every=17, imagination_horizon=2)
    schedule = Schedule(steps=150, report_every=20, evaluate_every=0, checkpoint_every=50)
    training = Training(
        assembly.agent, assembly.world, learner_of(assembly), folder, schedule,
        evaluate=lambda: [1.0], seed=3,
    )  # fmt: skip
    for progress in training.run():
        if progress.steps == 87:
            training.stopping = True
    found = checkpoint.newest(folder / "checkpoints")
    assert found is not None
    assert found[1].facts["steps"] == 88
    again = trained(folder, 150, found[1])
    assert all(whole.learner.weights()[n].equal(t) for n, t in again.learner.weights().items())
    mine, theirs = whole.agent.memory.tensors(), again.agent.memory.tensors()
    assert all(mine[name].equal(theirs[name]) for name in mine)


def test_an_evaluation_that_was_told_to_stop_is_made_up_for(tmp_path):
    def once(answers: Iterator[list[float] | None]) -> Training:
        assembly = made()
        return Training(
            assembly.agent, assembly.world, learner_of(assembly), tmp_path,
            Schedule(steps=40, report_every=0, evaluate_every=20, checkpoint_every=0),
            evaluate=lambda: next(answers), seed=3,
        )  # fmt: skip

    first = once(iter(()))

    def interrupted() -> None:
        first.stopping = True

    first.evaluate = interrupted
    list(first.run())
    assert first.progress.steps == 20
    assert first.progress.evaluation is None
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found is not None
    second = once(iter([[5.0], [7.0]]))
    list(second.run(found[1]))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = [(line["steps"], line["evaluation"]) for line in lines if "evaluation" in line]
    assert values == [(20, 5.0), (40, 7.0)]
    assert second.progress.best == 7.0


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


def weights_now(learner):
    """The weights that learn, not their averages."""
    return {
        f"{port}/{name}": value
        for port, module in learner.online_modules.items()
        for name, value in module.state_dict().items()
    }


def test_the_averages_follow_and_are_what_is_kept_to_play():
    assembly = made()
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner = learner_of(assembly, ema_rate=0.25)
    for rate in (1, 1 / 2, 1 / 3, 0.25, 0.25):
        began = {name: value.clone() for name, value in learner.weights().items()}
        learner.update()
        now, kept = learner.tensors(), learner.weights()
        for name in ("perception/network.last.weight", "cost/critic.members.0.last.weight"):
            assert not now[f"now/{name}"].equal(began[name])
            torch.testing.assert_close(kept[name], began[name].lerp(now[f"now/{name}"], rate))
    counts = "world_model/updates"
    assert kept[counts].equal(now[f"now/{counts}"])


def test_learning_apart_learns_the_same_and_the_agent_follows():
    """With a device of its own the learner has copies; here that device is the CPU as well."""
    found = []
    for device in (None, torch.device("cpu")):
        assembly = made()
        for _ in live(assembly.agent, assembly.world, 60, 0):
            pass
        learner = learner_of(assembly, device, replay_ratio=1)
        acting = assembly.agent.modules.perception.state_dict()
        began = {name: value.clone() for name, value in acting.items()}
        if device is not None:
            learner.update()
            assert all(value.equal(began[name]) for name, value in acting.items())
            list(learner.learn(2, 1000))
        else:
            list(learner.learn(3, 1000))
        assert not acting["network.last.weight"].equal(began["network.last.weight"])
        for name, value in acting.items():
            assert value.equal(weights_now(learner)[f"perception/{name}"])
        found.append(learner.weights())
    assert all(value.equal(found[1][name]) for name, value in found[0].items())


def test_the_first_step_has_another_view_as_its_target_and_later_ones_the_same():
    tree = {
        **SMALL,
        "world": {"id": "ALE/Pong-v5"},
        "perception": {"kind": "pixels-small", "latent_size": 16},
        "world_model": {"kind": "jepa", "unroll_steps": 2, "invariance_weight": 1},
        "learner": {"batch": 4, "online_steps": 3, "replay_ratio": 0},
    }
    assembly = assemble(tree, known_kinds(), training=True)
    for _ in live(assembly.agent, assembly.world, 40, 0):
        pass
    learner = learner_of(assembly)
    asked = []
    perception = assembly.agent.modules.perception
    encode = perception.encode_windows

    def listening(experience, tokens, key, wanted=None):
        asked.append((int(key), None if wanted is None else wanted.any(0).tolist()))
        return encode(experience, tokens, key, wanted)

    perception.encode_windows = listening
    key = torch.tensor([5])
    learner.encode(learner.modules.memory.sample(4, learner.window_steps(), key), key)
    online, later, first = asked
    assert online[0] == later[0] != first[0]
    assert later[1][:3] == [False, True, True]
    assert first[1] == [True]


def test_only_the_ports_named_learn():
    assembly = made(train_modules=("cost",))
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner = learner_of(assembly)
    began = {name: value.clone() for name, value in learner.weights().items()}
    losses = learner.update()
    assert [name for name in losses if "/" in name] == ["cost/critic"]
    changed = {
        n.split("/")[0] for n, value in learner.weights().items() if not value.equal(began[n])
    }
    assert changed == {"cost"}
    with pytest.raises(ConfigError, match=r"learner.train_modules: 'costs' is not one of .*'cost'"):
        learner_of(made(train_modules=("costs",)))


def test_what_stays_as_it_is_sees_what_it_sees_in_acting():
    tree = {
        **SMALL,
        "world": {"id": "ALE/Pong-v5"},
        "perception": {"kind": "pixels-small", "latent_size": 16},
        "learner": {**SMALL["learner"], "train_modules": ["cost"]},
    }
    assembly = assemble(tree, known_kinds(), training=True)
    for _ in live(assembly.agent, assembly.world, 40, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    experience = assembly.agent.memory.sample(4, learner.window_steps(), key)
    usual = learner.modules.perception.usual.centre.clone()
    (state,), targets = learner.encode(experience, key)
    plain = learner.modules.perception.encode_windows(experience, None, None)
    torch.testing.assert_close(state.latent, plain[:, 0])
    reach = learner.modules.cost.target_mask(experience, 1)
    seen = torch.stack([target.latent for target in targets], 1)
    torch.testing.assert_close(seen[reach], plain[reach])
    assert learner.modules.perception.usual.centre.equal(usual)


def test_a_loss_that_is_no_number_stops_learning_before_it_does_harm():
    assembly = made()
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, model = learner_of(assembly), assembly.agent.modules.world_model
    learner.update()
    parameters = [p for module in learner.online_modules.values() for p in module.parameters()]
    before, losses = [p.detach().clone() for p in parameters], model.losses

    def broken(*given):
        named, urgent = losses(*given)
        return named | {"signals": named["signals"] / 0}, urgent

    model.losses = broken
    with pytest.raises(MessageError) as stopped:
        learner.update()
    wanted = "module world_model: update 1: losses.signals: expected a finite number, got inf"
    assert str(stopped.value) == wanted
    assert all(now.equal(was) for now, was in zip(parameters, before, strict=True))


def test_averages_at_rate_1_are_the_modules_themselves():
    assembly = made()
    learner = learner_of(assembly, ema_rate=1.0)
    assert learner.ema is learner.online_modules
    assert not any(name.startswith("now/") for name in learner.tensors())


def test_a_reset_goes_back_to_how_it_all_began_halfway_or_wholly():
    assembly = made(reset_every=5, shrink_perturb_alpha=0.25)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner = learner_of(assembly)
    began = {name: value.clone() for name, value in weights_now(learner).items()}
    for _ in range(4):
        learner.update()
    grown = {name: value.clone() for name, value in weights_now(learner).items()}
    learner.reset()
    now = weights_now(learner)
    name = "perception/network.last.weight"
    torch.testing.assert_close(now[name], began[name].lerp(grown[name], 0.25))
    assert not now[name].equal(began[name])
    for name, value in now.items():
        if name.startswith("cost/"):
            assert value.equal(began[name]), name
    assert not any(name.startswith("adam/") for name in learner.tensors())
    assert all(value.equal(now[name]) for name, value in learner.weights().items())


def test_a_dream_goes_on_as_the_world_model_says_and_is_over_where_it_ends():
    assembly = made(imagination_horizon=4)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    experience = assembly.agent.memory.sample(8, 4, key)
    states, _ = learner.encode(experience, key)
    assert learner.imagined_experience is not None
    dreamt, given, whole = learner.imagined_experience.rollout(experience, states[0], key)
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
        assert dreamt.mask[row].tolist() == [t <= first for t in range(5)]
    assert "cost/imagined critic" in learner.update()


def test_what_is_foretold_is_judged_by_what_came_and_teaches_the_model_too():
    assembly = made(critic_unroll_steps=2)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    for _ in range(3):  # a fresh critic says 0 whatever it is shown
        assert "cost/unrolled critic" in learner.update()
    cost, model = assembly.agent.modules.cost, assembly.agent.modules.world_model
    stop = cost.window_steps()
    experience = assembly.agent.memory.sample(8, learner.window_steps(), key)
    states, targets = learner.encode(experience, key)
    loss = learner._unrolled_critic_loss(experience, states[0], targets, cost, key)
    latent, by_hand = states[0].latent, []
    for t in (1, 2):
        latent = model._predict_latent(latent, experience.actions[:, t - 1], None).latent
        there = states[0].replace(latent=latent)
        missed, _ = cost.losses(
            Batch(experience.slice_steps(t, stop), [there], targets[t:stop]), LEARNING_KEY
        )
        by_hand.append(missed["critic"])
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    loss.backward()
    assert float(model.change.weight.grad.abs().sum()) > 0
    assert all(member.last.weight.grad.abs().sum() > 0 for member in cost.critic.members)


def test_dreams_branch_by_any_first_action_and_go_on_as_mode_1():
    assembly = made(imagination_horizon=3, rollouts_per_state=16)
    assembly.agent.modules.actor.policy.epsilon = 0.0
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    for _ in range(3):
        learner.update()
    experience = assembly.agent.memory.sample(8, 4, key)
    states, _ = learner.encode(experience, key)
    assert learner.imagined_experience is not None
    dreamt, given, whole = learner.imagined_experience.rollout(experience, states[0], key)
    assert whole[0].latent.equal(states[0].latent.detach().repeat_interleave(16, 0))
    assert dreamt.indices.equal(experience.indices.repeat_interleave(16))
    first = dreamt.actions[:, 0].view(8, 16, -1)
    assert bool((first.sum(1) > 0).all()), "each action begins some branch of each state"
    for t in (1, 2):
        said = learner.imagined_experience.modules.cost.action_values(given[t], torch.ones(1, 4))
        assert said is not None
        assert dreamt.actions[:, t].argmax(-1).equal(said.argmin(-1))


@pytest.mark.parametrize("worlds", [1, 3])
def test_train_leaves_a_run_that_can_be_evaluated_and_resumed(
    tmp_path, capsys, monkeypatch, worlds
):
    monkeypatch.chdir(tmp_path)
    small = (
        "learner.warmup_steps=20", "training.evaluate_every=60", "training.evaluate_episodes=2",
        "training.checkpoint_every=60", "training.report_every=30",
    )  # fmt: skip
    result = train("CartPole-v1", *small, seed=1, steps=90, num_envs=worlds, run="run")
    assert (result.steps, result.resumed_at) == (90, None)
    assert (tmp_path / "run/checkpoints/best/weights.safetensors").is_file()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines if "evaluation" in line] == [60, 90]

    result = train(resume="run", steps=150)
    assert (result.steps, result.resumed_at) == (150, 90)
    written = json.loads(Path("run/result.json").read_text())
    assert json.loads(json.dumps(result.as_dict())) == written
    assert capsys.readouterr().out == ""


def test_going_on_for_longer_is_kept_where_the_next_looks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--steps", "40", "--learner.warmup_steps=20", "--training.evaluate_episodes=1",
             "--training.evaluate_every=0", "--no-live"]  # fmt: skip
    assert run(["train", "CartPole-v1", *short, "--run", "one"]) == 0
    assert run(["train", "CartPole-v1", *short, "--seeds", "0,1", "--run", "two"]) == 0
    assert run(["train", "--resume", "one", "--steps", "60", "--no-live"]) == 0
    assert run(["train", "--resume", "two", "--steps", "60", "--no-live"]) == 0
    for place in ("one", "two/seed-0", "two/seed-1"):
        assert yaml.safe_load(Path(place, "config.yaml").read_text())["training"]["steps"] == 60
        assert json.loads(Path(place, "result.json").read_text())["steps"] == 60
    # A stopped one of several, whose own configuration did not hear of it, goes on as far as all.
    assert json.loads(Path("two/seeds.json").read_text())["config"]["training"]["steps"] == 60
    capsys.readouterr()
    for place in ("one", "two"):
        assert run(["train", "--resume", place, "--steps", "50"]) == 2
        assert "expected at least the 60 that are done, got 50" in capsys.readouterr().err
    assert json.loads(Path("two/seeds.json").read_text())["config"]["training"]["steps"] == 60
    # One may go on by itself, and of what all are asked for then keeps what it has.
    assert run(["train", "--resume", "two/seed-0", "--steps", "80", "--no-live"]) == 0
    config = Path("two/seed-0/config.yaml")
    config.write_text(config.read_text().replace("steps: 80", "steps: 90"))
    Path("two/seed-0/result.json").unlink()  # stopped on the way to 90
    assert run(["train", "--resume", "two", "--no-live", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["steps"] for one in figures["results"]] == [90, 60]


def test_a_last_turn_of_several_worlds_may_lead_further(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--num-envs", "8", "--steps", "60", "--learner.warmup_steps=90", "--no-live",
             "--training.evaluate_episodes=1", "--training.evaluate_every=0"]  # fmt: skip
    assert run(["train", "CartPole-v1", *asked, "--run", "r"]) == 0
    assert json.loads(Path("r/result.json").read_text())["steps"] == 64
    assert run(["train", "--resume", "r", "--steps", "60", "--no-live"]) == 0


def test_stopped_in_its_last_evaluation_a_training_is_not_over(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--steps", "40", "--learner.warmup_steps=20", "--training.evaluate_episodes=1",
             "--no-live", "--json"]  # fmt: skip

    def interrupted(*_: object, stop: Callable[[], bool], **__: object) -> Evaluation:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        return Evaluation([], None, whole=False)  # type: ignore[arg-type]

    with monkeypatch.context() as within:
        within.setattr("agent.api.training.whole_episodes", interrupted)
        assert run(["train", "CartPole-v1", *asked, "--seeds", "0,1", "--run", "r"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(one["seed"], one["steps"], one["stopped"]) for one in figures["results"]] == [
        (0, 40, True)
    ]
    assert run(["train", "--resume", "r", "--no-live", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["stopped"] for one in figures["results"]] == [False, False]
    assert all(one["evaluation"] is not None for one in figures["results"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.steps=90"], "settings --training.steps=90"),
        (["--preset", "model-free"], "--preset model-free"),
        (["--seed", "0"], "--seed 0"),
        (["--num-envs", "2"], "--num-envs 2"),
        (["--intervene", "clamp:mode=1"], "--intervene clamp:mode=1"),
        (["--run", "other"], "--run other"),
    ],
)
def test_what_goes_on_takes_no_other_settings(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "--resume", "r", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"but for --steps, got {said};" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["CartPole-v1", "--learner.train_modules=[perception]"], "expected one that has losses"),
        (
            ["ALE/Pong-v5", "--world_model.kind=fair", "--learner.critic_unroll_steps=1"],
            "memory holds",
        ),
        (
            ["ALE/Pong-v5", "--world_model.kind=clairvoyant", "--learner.imagination_horizon=1"],
            "jepa",
        ),
        (["sextet/Orchard-v0", "--learner.imagination_horizon=1"], "a dream has no task"),
        (
            ["CartPole-v1", "--learner.train_modules=[perception]", "--seeds", "0,1"],
            "that has losses",
        ),
    ],
)
def test_what_cannot_learn_is_said_before_a_folder_is_made(
    tmp_path, capsys, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *words, "--run", "r"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())


def test_what_a_reset_goes_back_to_is_kept():
    """It may be what a trained agent gave, which nobody who goes on would know."""
    first = made(reset_every=5)
    with torch.no_grad():
        for module in learner_of(first).online_modules.values():
            for weight in module.parameters():
                weight.add_(1)
    for _ in live(first.agent, first.world, 40, 0):
        pass
    learner = learner_of(first)
    other = learner_of(made(reset_every=5))
    other.load(learner.weights(), learner.tensors())
    for given in (learner, other):
        given.reset()
    assert learner._initial_weights
    assert all(other.weights()[name].equal(value) for name, value in learner.weights().items())


def test_resuming_what_has_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="checkpoint"):
        train(resume=tmp_path)


# -- health ---------------------------------------------------------------------------------


def test_effective_rank_counts_directions():
    directions = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))[0][:, :5]
    flat = torch.randn(2000, 5, dtype=torch.float64) @ directions.T
    assert effective_rank(flat) == pytest.approx(5, abs=0.1)
    assert effective_rank(torch.ones(10, 3)) == 0
    line = torch.arange(10.0)[:, None] * torch.ones(1, 8)
    assert effective_rank(line) == pytest.approx(1)


def lived(steps: int = 60) -> tuple[Assembly, Health]:
    assembly = made()
    health = Health(assembly.agent, 0)
    for moment in live(assembly.agent, assembly.world, steps, 0):
        health.saw(moment.plan.action, moment.energies.intrinsic)
    return assembly, health


def test_a_sound_agent_is_not_warned_of():
    assembly, health = lived(400)
    learner = learner_of(assembly)
    for _ in range(120):
        learner.update()
    before = {name: value.clone() for name, value in learner.weights().items()}
    health.examine(120)
    assert health.warnings == []
    assert health.figures["health/effective_rank"] > 1.5
    assert all(before[name].equal(value) for name, value in learner.weights().items())


@pytest.mark.parametrize(("rank", "warned"), [(4, True), (40, False)])
def test_a_few_directions_of_many_are_a_collapse(rank, warned):
    """What kept Atari from being learned: 4.5 directions of 256."""
    _, health = lived()
    torch.manual_seed(0)
    health._perception(torch.randn(256, rank) @ torch.randn(rank, 256))
    assert any("effective rank" in said for said in health.warnings) is warned


def test_latents_that_are_no_numbers_are_said_by_name():
    assembly, health = lived()
    perception = assembly.agent.modules.perception
    assert isinstance(perception, nn.Module)
    with torch.no_grad():
        next(perception.parameters()).fill_(torch.nan)
    health.examine(100)
    assert "perception vectors: representation is not finite" in health.warnings


def test_sub_goals_are_looked_at_like_any_heads(tmp_path, capsys, monkeypatch):
    """There are more of them than drives."""
    monkeypatch.chdir(tmp_path)
    asked = ["--num-envs", "4", "--steps", "720", "--learner.warmup_steps=100", "--learner.batch=8",
             "--training.report_every=240", "--training.evaluate_episodes=1", "--no-live",
             "--training.evaluate_every=0", "--run", "r"]  # fmt: skip
    assert run(["train", "sextet/Orchard-v0", *asked]) == 0
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    looked = [line for line in lines if "health/critic_deviation" in line]
    assert looked[-1]["updates"] > 100
    assert not any("dead: the critic prefers" in said for said in looked[-1]["warnings"])


def test_collapse_is_said_by_name():
    assembly, health = lived()
    perception, cost = assembly.agent.modules.perception, assembly.agent.modules.cost
    health.examine(99)
    assert health.warnings == []  # too fresh to be judged
    assert isinstance(perception, nn.Module)
    with torch.no_grad():
        for weight in perception.parameters():
            weight.zero_()
        next(reversed(list(perception.parameters()))).fill_(1.0)
    health.examine(100)
    assert any(
        said.startswith("perception vectors: representation collapsed") for said in health.warnings
    )
    assert isinstance(cost, nn.Module)
    with torch.no_grad():
        for name, weight in cost.named_parameters():
            if "members" in name and name.endswith("last.bias"):
                weight.copy_(1e6 * torch.arange(1.0, 1 + len(weight)))
    health.examine(100)
    assert not any("dead" in said for said in health.warnings)  # it may yet come to something
    for action in range(2):
        for _ in range(300):
            health.saw(torch.eye(2)[[action]], torch.zeros(1, len(health.most)))
        health.examine(100)
        dead = [said for said in health.warnings if "the critic prefers action" in said]
        if dead:
            break
    assert dead
    said = "\n".join(health.warnings)
    assert "critic actions: collapsed" in said
    assert "critic actions: saturated" in said


def test_a_policy_that_does_one_thing_is_dead():
    _, health = lived()
    health.actions.zero_()
    health.steps = 0
    for _ in range(300):
        health.saw(torch.tensor([[0.0, 1.0]]), torch.zeros(1, len(health.most)))
    health.examine(100)
    assert "policy greedy: dead: action 1 in 100% of 300 steps" in health.warnings


# -- what is shown --------------------------------------------------------------------------

SHOWN = {"world_model/prediction": 0.31, "world_model/ended": 0.02, "cost/critic": 4.0, "total": 9}


def test_losses_are_shown_by_module():
    assert grouped(SHOWN) == {
        "world model": "prediction 0.31  ended 0.02", "cost": "critic 4", "learner": "total 9",
    }  # fmt: skip
    assert [lasting(s) for s in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]


def test_the_page_says_where_it_stands():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, color_system=None)
    progress = Progress(
        steps=500, of_steps=2000, frames=2000, steps_per_s=100, remaining_s=15, losses=SHOWN,
        warnings=["perception pixels-small: representation collapsed"], best=3.0,
    )  # fmt: skip
    progress.returns.extend([1.0, 2.0])
    with LiveProgress("Pong", console) as view:
        view.show(progress)
    shown = out.getvalue()
    for part in ("Pong", "25%", "500 of 2 000 steps", "2 000 frames", "100/s", "left 0:15",
                 "1.5 over the last 2", "prediction 0.31", "warning   perception"):  # fmt: skip
        assert part in shown


def test_plain_lines_say_a_warning_once(capsys):
    progress = Progress(steps=5, of_steps=10, warnings=["it sank"], fresh=True)
    with PlainProgress("Pong") as view:
        view.show(progress)
        view.show(progress)
        progress.fresh = False
        view.show(progress)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines.count("warning   it sank") == 1


# -- the command ----------------------------------------------------------------------------

QUICK = (
    "--learner.warmup_steps=20", "--learner.batch=8", "--training.evaluate_every=60",
    "--training.evaluate_episodes=2", "--training.checkpoint_every=30",
    "--training.report_every=30", "--no-live", "--json",
)  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict, str]:
    code = run(list(arguments))
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out.splitlines()[-1]), shown.out


def test_train_then_evaluate_load_and_resume_as_a_user_would(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures, shown = said(capsys, "train", "CartPole-v1", "--steps", "90", "--run", "r", *QUICK)
    for command in ("sextet eval r", "sextet play r", "sextet train --resume r --steps 180"):
        assert command in shown
    low, high = figures["interval"]
    assert low <= figures["evaluation"] <= high
    evaluated, _ = said(capsys, "eval", "r", "--episodes", "2", "--json")
    assert evaluated["episodes"] == 2

    player = load("r")
    observation = player.world.reset(seed=0)
    action = player.act(observation)
    assert action.shape == (1, 2)
    player.world.step(action)

    figures, _ = said(capsys, "train", "--resume", "r", "--steps", "120", "--json", "--no-live")
    assert (figures["resumed_at"], figures["steps"]) == (90, 120)


def test_seeds_are_trained_one_by_one_and_summed_up(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("train", "CartPole-v1", "--steps", "60", "--run", "all", *QUICK)
    figures, shown = said(capsys, *asked, "--seeds", "3,4")
    assert [r["seed"] for r in figures["results"]] == [3, 4]
    means = [r["evaluation"] for r in figures["results"]]
    assert figures["evaluation"] == pytest.approx(sum(means) / 2)
    assert figures["interval"] == pytest.approx([min(means), max(means)])
    assert "over 2 of 2 seeds" in shown
    alone, _ = said(capsys, *asked[:4], "--run", "alone", *QUICK, "--seed", "4")
    one, other = (
        Path(p, "checkpoints/60/weights.safetensors").read_bytes() for p in ("all/seed-4", "alone")
    )
    assert one == other

    # A seed that never got to a checkpoint, and one that must go further.
    shutil.rmtree("all/seed-3/checkpoints")
    Path("all/seed-3/result.json").unlink()
    figures, _ = said(capsys, "train", "--resume", "all", "--json", "--no-live")
    assert [r["resumed_at"] for r in figures["results"]] == [None, None]
    assert figures["results"][1] | {"run": ""} == alone | {
        "run": "", **{k: figures["results"][1][k] for k in ("seconds", "cpu_seconds")},
    }  # fmt: skip
    figures, _ = said(
        capsys, "train", "--resume", "all", "--steps", "90", "--jobs", "2", "--json", "--no-live"
    )
    assert [r["resumed_at"] for r in figures["results"]] == [60, 60]
    assert [r["steps"] for r in figures["results"]] == [90, 90]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["train", "CartPole-v1", "--seeds", "1,x"], "0,1,2"),
        (["train", "CartPole-v1", "--seeds", "1,1"], "different"),
        (["train", "CartPole-v1", "--seeds", "1,2", "--seed", "1"], "--seeds"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["train"], "WORLD"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    tmp_path, capsys, monkeypatch, arguments, wanted
):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert wanted in shown.err
    assert len(shown.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(capsys, "train", "CartPole-v1", "--steps", "60", "--run", "r", *QUICK)
    place = Path("r/checkpoints/60/learner.safetensors")
    place.write_bytes(place.read_bytes()[:-9])
    assert run(["train", "--resume", "r", "--json", "--no-live"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1])["resumed_at"] == 30
    assert "passed over" in shown.err
    assert "learner.safetensors" in shown.err


def test_ctrl_c_keeps_a_checkpoint_and_leaves_well(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "train", "CartPole-v1", "--steps", "100000", "--run",
         "r", *QUICK, "--training.checkpoint_every=0"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("60/"):
            break
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    rest = child.stdout.read().splitlines()
    assert child.wait() == 0
    child.stdout.close()
    figures = json.loads(rest[-1])
    assert figures["stopped"]
    assert figures["steps"] >= 60
    found = checkpoint.newest(tmp_path / "r" / "checkpoints")
    assert found is not None
    assert found[1].facts["steps"] == figures["steps"]
    assert "sextet train --resume r" in rest[-2]


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["train", "CartPole-v1", "--tensorboard", "--run", "r"]) == 2
    assert "pip install 'sextet[tb]'" in capsys.readouterr().err
    assert not Path("r").exists()


def test_tensorboard_gets_scalars_over_steps_and_frames(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from agent.learning.metrics import TensorBoard

    board = TensorBoard(tmp_path)
    board.write({"steps": 10, "frames": 40, "total": 2.5, "return": None, "warnings": []})
    board.close()
    for axis, at in (("steps", 10), ("frames", 40)):
        read = EventAccumulator(str(tmp_path / axis)).Reload()
        assert read.Tags()["scalars"] == ["total"]
        assert [(e.step, e.value) for e in read.Scalars("total")] == [(at, 2.5)]


@pytest.mark.parametrize(
    ("world", "more"),
    [
        ("CartPole-v1", ()),
        ("ALE/Breakout-v5", ("--num-envs", "2", "--perception.latent_size=16",
                             "--training.evaluation.actor.policy.epsilon=1.0")),
    ],
)  # fmt: skip
def test_model_free_learns_without_a_world_model(tmp_path, capsys, monkeypatch, world, more):
    monkeypatch.chdir(tmp_path)
    asked = ("--preset", "model-free", "--steps", "60", "--run", "r", *QUICK, *more)
    figures, _ = said(capsys, "train", world, *asked, "--training.evaluate_episodes=1")
    assert figures["updates"] > 5
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    assert "cost/critic" in names
    assert not any(name.startswith("world_model/") for name in names)
    before, after = (
        checkpoint.load(Path("r/checkpoints") / at, only=("weights",)).tensors["weights"]
        for at in ("30", "60")
    )
    assert any(n.startswith("perception/") and not before[n].equal(after[n]) for n in after)


@pytest.mark.parametrize("has", [True, False])
def test_what_a_processor_does_not_have_is_not_asked_of_it(monkeypatch, has):
    monkeypatch.setattr("agent.learning.learner._computes_in_bfloat16", lambda device: has)
    learner = learner_of(made(precision="bfloat16"))
    assert learner.autocast == has
    assert not learner_of(made()).autocast


def test_a_training_begins_with_a_trained_agent_and_mode_1_learns_what_mode_2_would_do(
    tmp_path, monkeypatch, capsys
):
    """§3.1.3: the policy of a trained agent comes to do what its planner does; all else stays."""
    monkeypatch.chdir(tmp_path)
    shape = ["--world_model.width=32", "--perception.width=32", "--cost.critic.width=32",
             "--memory.capacity=2000", "--learner.warmup_steps=100"]  # fmt: skip
    assert run(["train", "CartPole-v1", "--steps", "600", "--seed", "1", "--run", "first",
                "--training.evaluate_every=0", "--no-live", *shape]) == 0  # fmt: skip
    told = ["train", "first", "--preset", "distil", "--num-envs", "4", "--steps", "1200",
            "--training.evaluate_every=0", "--learner.warmup_steps=100", "--no-live"]  # fmt: skip
    capsys.readouterr()
    assert run([*told, "--run", "second", "--json"]) == 0
    assert "actor begins fresh" in capsys.readouterr().err
    old, new = (
        checkpoint.load(checkpoint.newest(tmp_path / place / "checkpoints")[0]).tensors["weights"]
        for place in ("first", "second")
    )
    assert set(old) < set(new)
    assert all(new[name].equal(value) for name, value in old.items())
    lines = [
        json.loads(line) for line in (tmp_path / "second/metrics.jsonl").read_text().splitlines()
    ]
    apart = [line["actor/distillation"] for line in lines if "actor/distillation" in line]
    assert apart[-1] < 0.8 * torch.log(torch.tensor(2.0)), apart
    assert run([*told, "--run", "third", "--learner.train_modules=[cost]"]) == 2
    assert "another actor, and that is not to learn" in capsys.readouterr().err
    assert run([*told, "--run", "third", "--training.init_from=firts"]) == 2
    assert "'firts' is neither a trained run" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_an_agent_that_was_never_trained_begins_fresh():
    assert training_config(RunRequest(agent="showpiece"))["training"]["init_from"] is None
    assert training_config(RunRequest(agent="krull"))["training"]["init_from"] == "krull"
