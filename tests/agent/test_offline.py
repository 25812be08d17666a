"""What others lived can be learned from, by an agent that lives nothing."""

import json
from pathlib import Path

import pytest
import torch

from agent.agent import Agent
from agent.assembly.build import assemble, known_kinds
from agent.cli import gather_overrides, run
from agent.learning.offline_training import Sources
from agent.modules import initial_moment
from agent.recording.readers import Form, remember
from agent.recording.trace import Trace
from modules.messages import Moment, TraceError

SMALL = ("--perception.kind=vectors", "--perception.width=16", "--no-live", "--json")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recorded(name: str, *more: str) -> Path:
    asked = ["play", "CartPole-v1", "--preset", "reactive", "--steps", "90", "--run", name, *SMALL]
    assert run([*asked, *more]) == 0
    return Path(name)


def filled(*traces: Path) -> Agent:
    tree = {"world": {"id": "CartPole-v1"}, "memory": {"capacity": 400},
            "perception": {"kind": "vectors", "width": 32}}  # fmt: skip
    agent = assemble(tree, known_kinds(), training=True).agent
    agent.reset(1, 0)
    opened = Sources(traces).opened()
    remember(agent.memory, initial_moment(agent.modules, agent.world, 1), opened, Form(agent.world))
    return agent


def test_memory_holds_what_was_lived_row_after_row():
    thoughtful = ("--configurator.kind=scheduled", "--directive.model_calls=8")
    one = recorded("one", *thoughtful, "--directive.horizon_steps=2")
    two = recorded("two", "--num-envs", "3", "--seed", "5")
    assert sum(one.steps for one, _ in Sources((one, two)).opened()) == 180
    kept = filled(one, two).memory.tensors()
    wanted = []
    for path in (one, two):
        with Trace.open(path) as trace:
            wanted += [
                (
                    m.observation.vector[row],
                    m.plan.action[row].argmax(),
                    m.state.signals[row],
                    m.plan.mode[row] == 2,
                )
                for row in range(trace.rows)
                for m in trace
            ]
    assert len(kept["vectors"]) == 180
    assert 0 < int(kept["planned"].sum()) < 90  # what Mode-1 is to learn from
    for at, (vector, action, signals, planned) in enumerate(wanted):
        assert kept["vectors"][at].equal(vector)
        assert int(kept["actions"][at]) == int(action)
        assert kept["signals"][at].equal(signals)
        assert bool(kept["planned"][at]) == bool(planned)


def test_no_window_goes_from_one_stretch_to_the_next():
    agent = filled(recorded("one"), recorded("two", "--num-envs", "3", "--seed", "5"))
    began = agent.memory.tensors()["began"]
    assert set(began.tolist()) >= {0, 90, 120, 150}
    for key in range(20):
        seen = agent.memory.sample(32, 6, torch.tensor([key]))
        start = seen.indices
        for steps in range(6):
            real = seen.mask[:, steps]
            assert (began[(start + steps)[real]] <= start[real]).all()


def train(capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    small = ("--learner.warmup_steps=5", "--training.evaluate_episodes=2", "--no-live", "--json",
             "--training.checkpoint_every=30", "--training.report_every=30",
             "--training.evaluation.memory.capacity=1000")  # fmt: skip
    code = run(["train", *more, *small])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out.splitlines()[-1])


def test_the_command_learns_without_living_is_evaluated_and_resumed(capsys):
    recorded("one")
    recorded("two", "--seed", "1")
    asked = ("--from", "one", "two", "CartPole-v1", "--steps", "60", "--run", "off")
    said = train(capsys, *asked)
    assert said["updates"] == 28  # half an update a step, 55 of 60 behind the warm-up
    assert said["episodes"] == said["frames"] == 0
    assert said["evaluation"] > 0
    kept = json.loads(Path("off/checkpoints/60/facts.json").read_text())
    assert kept["recordings"] == ["one", "two"]
    line = json.loads(Path("off/metrics.jsonl").read_text().splitlines()[-1])
    assert "world_model/prediction" in line or "evaluation" in line

    code = run(["train", "--resume", "off", "--steps", "90", "--no-live", "--json"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    assert (said["resumed_at"], said["steps"], said["updates"]) == (60, 90, 43)
    # The same as if it had gone on at once.
    train(capsys, *asked[:3], "--steps", "90", "--run", "whole")
    for group in ("weights", "learner", "memory"):
        one, other = (
            (Path(name) / f"checkpoints/90/{group}.safetensors").read_bytes()
            for name in ("off", "whole")
        )
        assert one == other


def test_a_trace_of_another_world_is_refused_in_one_line(capsys):
    recorded("one")
    assert run(["train", "Acrobot-v1", "--from", "one", "--run", "off"]) == 2
    shown = capsys.readouterr().err
    assert "id: expected Acrobot-v1, got CartPole-v1" in shown
    assert not Path("off").exists()
    assert run(["train", "--from", "nothing"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_several_traces_are_named_after_one_flag():
    Path("a").mkdir()
    Path("b").mkdir()
    assert gather_overrides(["train", "--from", "a", "b", "W", "--seed", "1"]) == [
        "train", "--from", "a", "--from", "b", "W", "--seed", "1",
    ]  # fmt: skip
    assert gather_overrides(["train", "W", "--from", "a", "--x.y=1"]) == [
        "train", "W", "--from", "a", "--set", "x.y=1",
    ]  # fmt: skip


def test_a_recorded_run_with_numbers_that_are_not_finite_is_named(monkeypatch):
    """As a run of version 0.1 could write them."""
    trace, select = recorded("spoiled"), Moment.select

    def spoiled(moment, index):
        own = select(moment, index)
        if moment.step == 40:
            own.state.signals[0, 0] = torch.inf
        return own

    monkeypatch.setattr(Moment, "select", spoiled)
    with pytest.raises(TraceError) as refused:
        filled(trace)
    assert str(refused.value) == (
        f"recording {trace}: step 40: Moment.state.signals, row 0: expected finite numbers, got inf"
    )
