"""Forks: the control is the recorded future, a change changes it, impossible ones are refused."""

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from agent.assembly.load import RunRequest, prepared
from agent.cli import run
from agent.counterfactual.fork import Replay, fork
from agent.live import live
from agent.recording import checkpoint
from agent.recording.drive_guard import SHIPPED, drive_hashes, guarded, require_same
from agent.recording.keyframe import ActingMemory
from agent.recording.run_folder import RunFolder
from agent.recording.trace import Trace
from agent.recording.weights import parametric_modules
from modules.cost import drives
from modules.messages import ConfigError, TraceError, WorldError
from worlds.make import make_world

PLANNING = (
    "configurator.kind=surprise", "directive.model_calls=6", "directive.horizon_steps=3",
    "directive.commit_steps=2", "configurator.max_idle_steps=6", "configurator.warmup_steps=2",
)  # fmt: skip
MODE_1 = ("configurator.kind=fixed", "configurator.mode=1")
SMALL = ("perception.latent_size=32",)
LIVES = {
    "cartpole": ("CartPole-v1", 2, PLANNING),
    "orchard": ("sextet/Orchard-v0", 1, (*PLANNING, *SMALL)),
    "breakout": ("ALE/Breakout-v5", 2, ("world_model.kind=fair", *PLANNING, *SMALL)),
    "pong": ("ALE/Pong-v5", 1, (*MODE_1, *SMALL)),
}


def recorded(folder: Path, name: str, turns: int, every: int = 20) -> Path:
    world, rows, settings = LIVES[name]
    flags = {"seed": 3, "num_envs": rows}
    assembly = prepared(RunRequest(agent=world, overrides=settings, flags=flags))
    place = RunFolder.create(folder / name, name)
    place.write_config(assembly.config.tree())
    with assembly.recorder(place) as recorder:
        recorder.trace.keyframe_every = every
        for moment in live(assembly.agent, assembly.world, turns * rows, 3):
            recorder.add(moment)
    assembly.world.close()
    return place.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    turns = {"cartpole": 90, "orchard": 130, "breakout": 50, "pong": 40}
    return {name: recorded(folder, name, count) for name, count in turns.items()}


@pytest.mark.parametrize(("name", "steps"), [("cartpole", 30), ("orchard", 20), ("breakout", 8),
                                              ("pong", 10)])  # fmt: skip
def test_a_fork_without_a_change_is_the_recorded_future(runs, name, steps):
    with Replay(runs[name]) as replay:
        last = replay.trace.steps - steps
        if name == "cartpole":
            ended = replay.trace.series("observation.terminated")
            assert ended.any(0).all()  # episodes end within, in both rows
            assert set(replay.trace.series("mode").ravel()) == {1, 2}
        for at in range(0, last + 1, -(-last // 2)):
            result = replay.fork(at, steps=steps)
            assert result.identical, (at, result.first_difference)
            assert result.original.digest == result.fork.digest
            assert (result.diverged, result.compared) == (None, steps)
            assert result.original.score == result.fork.score
            assert result.replayed_from == (None if at == 0 else (at - 1) // 20 * 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["breakout", "orchard"])
def test_two_hundred_controls_of_a_hundred_steps(tmp_path, name):
    run = recorded(tmp_path, name, 600)
    drawn = torch.randint(0, 501, (200,), generator=torch.Generator().manual_seed(0))
    with Replay(run) as replay:
        for at in drawn.tolist():
            assert replay.fork(at, steps=100).identical, at


def test_a_change_acts_from_its_step_on_and_only_in_its_row(runs):
    done = Trace.open(runs["cartpole"]).moment(35).plan.action.argmax(-1)
    other = int(1 - done[1])
    result = fork(runs["cartpole"], 35, [f"plan.action={other}"], steps=20, row=1)
    assert not result.identical
    assert result.original.digest != result.fork.digest
    assert result.first_difference == result.diverged == 35
    for was, now in zip(result.original.moments, result.fork.moments, strict=True):
        mine, theirs = now.select(torch.tensor([0])), was.select(torch.tensor([0]))
        assert mine.observation.vector.equal(theirs.observation.vector)
    assert result.fork.moments[0].plan.action[1].argmax() == other
    assert result.fork.moments[0].observation.vector.equal(
        result.original.moments[0].observation.vector
    )


def test_a_directive_is_changed_while_it_is_held_and_its_reason_says_so(runs):
    result = fork(runs["pong"], 12, ["directive.mode=2", "directive.horizon_steps=2",
                                    "directive.model_calls=12"], steps=4, hold=2)  # fmt: skip
    assert result.original.digest != result.fork.digest
    assert [int(m.directive.mode[0]) for m in result.fork.moments] == [2, 2, 1, 1]
    assert result.fork.moments[0].plan.model_calls[0] > 0 == result.original.model_calls
    assert "a fork sets mode=2; else: acts" in result.fork.moments[1].directive.reason[0]
    weighed = fork(runs["pong"], 12, ["directive.u.score=0", "directive.u.pain=3"], 3, hold=0)
    at, names = [m.directive.u[0] for m in weighed.fork.moments], Trace.open(runs["pong"]).drives
    assert [float(u[names.index("score")]) for u in at] == [0, 0, 0]
    assert [float(u[names.index("pain")]) for u in at] == [3, 3, 3]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("state.latent.3=0.5", lambda m: float(m.state.latent[0, 3]) == 0.5),
        ("state.signals.reward=4", lambda m: float(m.energies.intrinsic[0, 0]) < -1),
        ("recollection.novelty=1", lambda m: float(m.state.signals[0, 5]) == 1),
        ("energies.disagreement=9", lambda m: float(m.energies.disagreement[0]) == 9),
        ("observation.signals.life_lost=1", lambda m: float(m.energies.intrinsic[0, 1]) == 1),
        ("expected.signals.reward=7", lambda m: float(m.expected.signals[0, 0]) == 7),
        ("directive.tokens=1.5", lambda m: bool((m.directive.tokens == 1.5).all())),
        ("plan.action=LEFT", lambda m: int(m.plan.action[0].argmax()) == 3),
        ("u.pain=1e-3", lambda m: abs(float(m.directive.u[0, 1]) - 0.001) < 1e-6),
    ],
)  # fmt: skip
def test_any_field_of_any_message(runs, change, seen):
    result = fork(runs["pong"], 21, [change], steps=1)
    assert seen(result.fork.moments[0])
    assert result.first_difference == 21


@pytest.mark.parametrize(
    ("change", "printed"),
    [
        ("directive.mood=2", "'mood' is not one of .*Did you mean 'mode'"),
        ("directiv.mode=2", "Did you mean 'directive'"),
        ("directive.mode", "expected a change like"),
        ("directive.mode=3", "from 1 to 2, got 3"),
        ("directive.mode=1.5", "a whole number"),
        ("directive.mode=much", "a whole number"),
        ("directive.horizon_steps=9999", "from 1 to "),
        ("directive.horizon_steps=0", "from 1 to "),
        ("directive.u.scroe=1", "'scroe' is not one of score.*Did you mean 'score'"),
        ("directive.u.score=NaN", "expected a number"),
        ("directive.u=[1,2]", "list of shape"),
        ("directive.u.score.0=1", "at most 1 names"),
        ("directive.reason=why", "is not one of"),
        ("plan.action=99", "not one of"),
        ("plan.action=JUMP", "not one of"),
        ("plan.action.0=1", "expected plan.action="),
        ("state.latent.32=1", "0 to 31"),
        ("state.hidden=0", "owner"),
        ("state.signals.novelty=1", "recollection.novelty"),
        ("observation.pixels=0", "frame"),
        ("observation.goal=0", "there is no"),
        ("observation.first=2", "true or false"),
        ("recollection.novelty=1.5", "from 0 to 1"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_in_one_line(runs, change, printed):
    with pytest.raises(ConfigError, match=printed) as refused:
        fork(runs["pong"], 1, [change], steps=1)
    assert "\n" not in str(refused.value)


def test_a_fork_beyond_the_end_of_the_recording_compares_fewer_steps(runs):
    result = fork(runs["pong"], 35, steps=9)
    assert (result.compared, result.identical, len(result.fork.moments)) == (5, True, 9)


def test_the_command(runs, capsys):
    code = run(["fork", str(runs["pong"]), "--at", "5", "--steps", "6", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert code == 0
    assert figures["identical"] is True
    assert figures["original_digest"] == figures["fork_digest"]
    assert (figures["at"], figures["steps"], figures["first_difference"]) == (5, 6, None)
    for name in ("score", "model_calls", "mode2_share"):
        assert figures[f"{name}_original"] == figures[f"{name}_fork"]
    code = run(["fork", str(runs["pong"]), "--at", "5", "--set", "directive.mode=2", "--steps", "6",
                "--set", "directive.model_calls=2", "--hold", "0"])  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0
    assert "directive.mode=2, directive.model_calls=2, for all of 6 steps" in printed


@pytest.mark.parametrize(
    "command",
    [
        ("--at", "40"), ("--at", "-1"), ("--at", "x"), (), ("--at", "1", "--steps", "0"),
        ("--at", "1", "--hold", "-1"), ("--at", "1", "--row", "1"),
        ("--at", "1", "--set", "directive.mood=1"), ("--at", "1", "--plugin", "nowhere_at_all"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line_and_exit_2(runs, capsys, command):
    assert run(["fork", str(runs["pong"]), *command, "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert run(["fork", str(tmp_path), "--at", "0"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_world_without_snapshots_is_replayed_from_its_beginning(tmp_path, monkeypatch):
    from worlds.gymnasium_rows import GymnasiumRows

    def refuse(world: object) -> bytes:
        raise WorldError("no snapshot")

    monkeypatch.setattr(GymnasiumRows, "snapshot", refuse)
    run = recorded(tmp_path, "cartpole", 45)
    result = fork(run, 30, steps=10)
    assert (result.replayed_from, result.identical) == (None, True)


def test_a_damaged_keyframe_is_skipped(runs, tmp_path):
    import shutil
    import sqlite3

    place = tmp_path / "run"
    shutil.copytree(runs["cartpole"], place)
    database = sqlite3.connect(place / "trace.sqlite")
    database.execute("UPDATE keyframes SET agent = x'789c00' WHERE step = 40")
    database.commit()
    database.close()
    result = fork(place, 50, steps=10)
    assert (result.replayed_from, result.identical) == (20, True)


def test_a_run_that_cannot_be_reproduced_is_not_forked(runs, tmp_path):
    import shutil
    import sqlite3

    place = tmp_path / "run"
    shutil.copytree(runs["pong"], place)
    database = sqlite3.connect(place / "trace.sqlite")
    config = json.loads(database.execute("SELECT value FROM meta WHERE key='config'").fetchone()[0])
    database.execute(
        "UPDATE meta SET value=? WHERE key='config'", (json.dumps(config | {"seed": 4}),)
    )
    database.execute("DELETE FROM keyframes")
    database.commit()
    database.close()
    with pytest.raises(TraceError, match=r"cannot be reproduced here, at step \d+"):
        fork(place, 20, steps=5)


def test_acting_needs_no_experience(runs):
    with Replay(runs["orchard"]) as replay:
        agent, observation, _ = replay.before(70)
        memory = agent.modules.memory
        assert isinstance(memory, ActingMemory)
        assert memory.steps < 40  # only the steps since the keyframe
        tensors = memory.acting_tensors()
        assert not set(tensors) & {"frames", "actions", "signals"}
        agent.step(observation)
        assert memory.sample(2, 3, torch.tensor([1])).mask.any()


# -- weights in the run -------------------------------------------------------------------------


def test_a_run_has_a_copy_of_its_weights(tmp_path):
    import shutil

    folder = tmp_path / "trained"
    folder.mkdir()
    assembly = prepared(RunRequest(agent="CartPole-v1", overrides=MODE_1))
    place = RunFolder(folder)
    place.write_config(assembly.config.tree())
    weights = {
        f"{port}/{name}": tensor + 0.25 if tensor.is_floating_point() else tensor
        for port, module in parametric_modules(assembly.agent.modules).items()
        for name, tensor in module.state_dict().items()
    }
    facts = {"drives": drive_hashes(assembly.agent)}
    checkpoint.save(place.checkpoints, "9", checkpoint.Checkpoint({"weights": weights}, {}, facts))
    played = tmp_path / "played"
    assert run(["play", str(folder), "--steps", "30", "--no-live", "--run", str(played)]) == 0
    shutil.rmtree(folder)
    assert fork(played, 20, steps=10).identical
    again = prepared(RunRequest(agent=str(played)))
    for port, module in parametric_modules(again.agent.modules).items():
        for name, tensor in module.state_dict().items():
            assert tensor.equal(weights[f"{port}/{name}"])


def test_a_moment_has_the_critic_of_the_action_best_under_its_own_v():
    """Not of the action best under equal weights: v gives effort no weight."""
    agent = prepared(RunRequest(agent="CartPole-v1", overrides=MODE_1)).agent
    with torch.no_grad():
        for member in agent.modules.cost.critic.members:
            member.last.weight.normal_(generator=torch.Generator().manual_seed(0))
    with closing(make_world("CartPole-v1")) as world:
        moments = list(live(agent, world, 40, 0))
    heads = torch.cat([moment.energies.critic_actions for moment in moments])
    v = torch.cat([moment.directive.v for moment in moments])
    best, equal = (heads * v[:, None]).sum(-1).argmin(-1), heads.sum(-1).argmin(-1)
    critic = torch.cat([moment.energies.critic for moment in moments])
    assert torch.equal(critic, heads[torch.arange(len(best)), best])
    assert not torch.equal(critic, heads[torch.arange(len(best)), equal])


def test_the_critic_of_the_best_action_cannot_be_set_alone(runs):
    with pytest.raises(ConfigError, match="follows from energies"):
        fork(runs["pong"], 5, ("energies.critic=0",), steps=2)


# -- the guard --------------------------------------------------------------------------------


def change_drive(monkeypatch, name: str) -> None:
    drive = drives.DRIVES[name]
    energy = drive.energy
    monkeypatch.setattr(drive, "energy", lambda self, *signals: energy(self, *signals) * 1.001)


def test_the_hashes_of_the_shipped_drives():
    hashes = {name: drives.probe_hash(name, drive()) for name, drive in drives.DRIVES.items()}
    for name in ("signal:reward", "signal:-reward"):
        hashes[name] = drives.probe_hash(name, drives.signal_drive(name))
    assert hashes == dict(SHIPPED)


UPRIGHT = Path(__file__).parents[2] / "examples"
ACROBOT = ("Acrobot-v1", "--no-live", "--plugin", "upright", "--preset", "reactive")


def test_a_drive_of_a_plugin_is_trained_hashed_and_guarded(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(UPRIGHT)
    place = tmp_path / "run"
    assert (
        run(["play", *ACROBOT, "--steps", "8", "--cost.drives=[upright]", "--run", str(place)]) == 0
    )
    trace = Trace.open(place / "trace.sqlite")
    assert trace.drives == ("upright",)
    assert trace.world.signals[6:] == tuple(f"observation_{entry}" for entry in range(4))
    for moment in trace:
        cos_1, sin_1, cos_2, sin_2 = moment.observation.vector[0, :4].tolist()
        height = -cos_1 - (cos_1 * cos_2 - sin_1 * sin_2)
        assert moment.energies.intrinsic.item() == pytest.approx((2 - height) / 4, abs=1e-5)
        assert moment.directive.u.item() == 1
    # The run remembers the plugin, its drive and the signals that it takes.
    assert fork(place, 3, steps=4, plugins=("upright",)).identical
    upright = sys.modules["upright"].Upright
    energy = upright.energy
    monkeypatch.setattr(upright, "energy", lambda self, *angles: 2 * energy(self, *angles))
    capsys.readouterr()
    for command in (
        ["fork", str(place), "--at", "3", "--plugin", "upright"],
        ["play", str(place), "--plugin", "upright"],
    ):
        assert run(command) == 2
        error = capsys.readouterr().err
        assert "drive 'upright' is not what it was" in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("signals = ('pole_angle',)\n    def energy(self, angle): return angle",
         "drive 'mine' expected the signal 'pole_angle', got a world, CartPole-v1, with reward"),
        ("signals = ('observation_4',)\n    def energy(self, angle): return angle",
         "observation_0 to observation_3"),
        ("signals = ('reward',)\n    def energy(self, reward): return reward.mean()",
         "energy: expected a tensor [64]"),
        ("signals = ('reward',)\n    def energy(self, reward): return reward.log()",
         "energy: expected finite numbers"),
        ("signals = 'reward'\n    def energy(self, reward): return reward",
         "signals: expected a tuple of names"),
        ("def energy(self, reward): return reward", "no attribute 'signals'"),
        ("def __init__(self):\n        super().__init__()\n        self.scale = nn.Linear(1, 1)\n"
         "    signals = ('reward',)\n    def energy(self, reward): return reward",
         "expected no parameters: drives are immutable"),
    ],
)  # fmt: skip
def test_what_is_no_drive_is_refused_in_one_line(tmp_path, capsys, monkeypatch, body, words):
    (tmp_path / "mine.py").write_text(
        f"from torch import nn\nclass Mine(nn.Module):\n    {body}\n"
        "MODULES = {'drive': {'mine': Mine}}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    # Each case has another `mine`, and no other test this one: undone, both remove the module.
    monkeypatch.setitem(sys.modules, "mine", None)
    monkeypatch.delitem(sys.modules, "mine")
    flags = ["--no-live", "--plugin", "mine", "--cost.drives=[mine, score]"]
    assert run(["play", "CartPole-v1", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_learning_does_not_change_a_drive(runs):
    agent = prepared(RunRequest(agent="CartPole-v1", overrides=MODE_1)).agent
    before = drive_hashes(agent)
    assert before == {name: SHIPPED[name] for name in agent.modules.cost.drives}
    with torch.no_grad():
        for module in parametric_modules(agent.modules).values():
            for parameter in module.parameters():
                parameter.add_(1.0)
    assert drive_hashes(agent) == before
    assert Trace.open(runs["pong"]).drive_hashes == before


@pytest.mark.parametrize("name", ["score", "pain", "effort", "novelty"])
def test_a_changed_drive_is_refused_by_name_at_load(runs, capsys, monkeypatch, name):
    change_drive(monkeypatch, name)
    for command in (("fork", str(runs["pong"]), "--at", "1"), ("play", str(runs["pong"])),
                  ("play", "CartPole-v1", "--no-live")):  # fmt: skip
        assert run(list(command)) == 2
        printed = capsys.readouterr().err
        assert f"drive '{name}'" in printed
        assert len(printed.splitlines()) == 1


def test_a_plugin_that_changes_a_drive_is_refused_by_name(tmp_path, capsys, monkeypatch):
    (tmp_path / "meddler.py").write_text(
        "from modules.cost import drives\n"
        "energy = drives.PainDrive.energy\n"
        "drives.PainDrive.energy = lambda self, life_lost: 2 * energy(self, life_lost)\n"
        "MODULES = {}\n"
    )
    monkeypatch.setattr(drives.PainDrive, "energy", drives.PainDrive.energy)  # put back afterwards
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["play", "CartPole-v1", "--no-live", "--plugin", "meddler"]) == 2
    printed = capsys.readouterr().err
    assert "drive 'pain' is not what it was" in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_drive_changed_while_running_fails_the_run_by_name(tmp_path, capsys, monkeypatch):
    def meddling(agent, world, steps, seed):
        yield from live(agent, world, steps, seed)
        change_drive(monkeypatch, "pain")

    monkeypatch.setattr("agent.api.play.live", meddling)
    command = ["play", "CartPole-v1", "--steps", "5", "--no-live", "--preset", "reactive"]
    assert run([*command, "--run", str(tmp_path / "run")]) == 1
    assert "drive 'pain'" in capsys.readouterr().err
    monkeypatch.undo()
    agent = prepared(RunRequest(agent="CartPole-v1")).agent
    with pytest.raises(ConfigError, match="end of the run: drive 'score'"), guarded(agent):
        change_drive(monkeypatch, "score")


def test_a_cost_with_other_energies_under_the_name_of_a_drive_is_refused(monkeypatch):
    agent = prepared(RunRequest(agent="CartPole-v1", overrides=MODE_1)).agent
    before, cost = drive_hashes(agent), type(agent.modules.cost)
    intrinsic = cost.intrinsic

    def other(self, state):
        energies = intrinsic(self, state).clone()
        energies[:, 1] += 0.5
        return energies

    monkeypatch.setattr(cost, "intrinsic", other)
    with pytest.raises(ConfigError, match="drive 'pain'"):
        require_same(before, drive_hashes(agent), "checkpoint")


def test_a_checkpoint_of_other_drives_is_refused_by_name(tmp_path):
    assembly = prepared(RunRequest(agent="CartPole-v1", overrides=MODE_1))
    place = RunFolder(tmp_path)
    place.write_config(assembly.config.tree())
    weights = {
        f"{port}/{name}": tensor
        for port, module in parametric_modules(assembly.agent.modules).items()
        for name, tensor in module.state_dict().items()
    }
    facts = {"drives": drive_hashes(assembly.agent) | {"effort": "0" * 64}}
    other = checkpoint.Checkpoint({"weights": weights}, {}, facts)
    checkpoint.save(place.checkpoints, "9", other)
    with pytest.raises(ConfigError, match=r"checkpoint .*: drive 'effort'"):
        prepared(RunRequest(agent=str(tmp_path)))
