"""Interventions: each changes one thing, and has an identity where it changes nothing."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.cli import run
from agent.live import live
from agent.recording.episode_stats import EpisodeStats
from modules import chance
from modules.configurator import interventions
from modules.configurator.base_directive import DirectiveSettings
from modules.configurator.interventions import Clamp, Delay, Shuffle, Swap
from modules.field_path import Part, field_path
from modules.messages import ConfigError, Directive, Message, Moment, Situation

STEPS = 40
SURPRISE = {
    "kind": "surprise", "max_idle_steps": 5, "enter_std": 1.5, "exit_std": 0.5,
    "min_dwell_steps": 0, "warmup_steps": 2, "novelty_above": 1.0, "commit_steps": 2,
}  # fmt: skip


def made(configurator: dict[str, Any], *written: str, rows: int = 2) -> Assembly:
    """CartPole, with the smallest plans there are: what is decided matters here, not how well."""
    little = {"horizon_steps": 3, "model_calls": 8, "commit_steps": 2}
    shared = {n: v for n, v in configurator.items() if n in DirectiveSettings.model_fields}
    tree = {
        "world": {"id": "CartPole-v1", "num_envs": rows},
        "seed": 3,
        "world_model": {"kind": "persistence"},
        "memory": {"capacity": 1000},
        "configurator": {n: v for n, v in configurator.items() if n not in shared},
        "directive": {**little, **shared},
        "interventions": list(written),
    }
    return assemble(tree, known_kinds())


def part_of(path: str, directive: Directive) -> Part:
    names = {"K": ("score", "pain"), "L": ("score", "pain")}
    return field_path(path, "test").part(directive, names)


_RUNS: dict[str, tuple[list[Moment], str]] = {}


def lived(configurator: dict[str, Any], *written: str, rows: int = 2) -> tuple[list[Moment], str]:
    """A whole run of it, and the digest; the same one is lived once."""
    name = repr((configurator, written, rows))
    if name not in _RUNS:
        _RUNS[name] = anew(configurator, *written, rows=rows)
    return _RUNS[name]


def anew(configurator: dict[str, Any], *written: str, rows: int) -> tuple[list[Moment], str]:
    assembly = made(configurator, *written, rows=rows)
    keeper = EpisodeStats("", rows)
    try:
        moments = list(live(assembly.agent, assembly.world, STEPS * rows, 3))
    finally:
        assembly.world.close()
    for moment in moments:
        keeper.add(moment)
    return moments, keeper.summary(1.0).trace_digest


def fields(message: Message, but: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, tensor in message.tensors():
        if name.split(".")[-1] not in but or not name.startswith("directive"):
            yield name, tensor


def assert_same(
    one: tuple[list[Moment], str], other: tuple[list[Moment], str], state: bool = True
) -> None:
    """Every field of every moment but `reason` (and the carry, where what is kept differs)."""
    but = () if state else ("configurator_state",)
    for mine, theirs in zip(one[0], other[0], strict=True):
        for (name, a), (_, b) in zip(fields(mine, but), fields(theirs, but), strict=True):
            assert (a is None and b is None) or torch.equal(a, b), f"step {mine.step}: {name}"
    assert one[1] == other[1]


def series(run: tuple[list[Moment], str], name: str) -> torch.Tensor:
    return torch.stack([getattr(m.directive, name) for m in run[0]])


@pytest.fixture(scope="module")
def free() -> tuple[list[Moment], str]:
    """What the surprise configurator does on its own: now this mode, now that."""
    run = lived(SURPRISE)
    assert set(series(run, "mode").flatten().tolist()) == {1, 2}
    return run


def test_a_clamped_mode_is_fixed_mode_1_in_every_field_but_reason(free: Any) -> None:
    fixed = lived({"kind": "fixed", "mode": 1})
    assert_same(lived({"kind": "fixed", "mode": 2}, "clamp:mode=1"), fixed)
    assert_same(lived(SURPRISE, "clamp:mode=1"), fixed, state=False)
    assert fixed[1] != free[1]


def test_a_clamp_at_the_value_that_is_there_changes_nothing(free: Any) -> None:
    there = ("clamp:horizon_steps=3", "clamp:u.score=1", "clamp:tokens=0", "clamp:risk=0")
    assert_same(lived(SURPRISE, *there), free)


def test_a_clamp_holds_from_the_neutral_directive_on_and_says_so() -> None:
    assembly = made(SURPRISE, "clamp:u.pain=5", "clamp:model_calls=7")
    assembly.world.close()
    neutral = assembly.agent.modules.configurator.initial(2)
    assert neutral.u[:, 1].tolist() == [5, 5]
    assert neutral.u[:, 0].tolist() == [1, 1]
    assert neutral.reason[0].endswith("; u.pain clamped: 5, not 1; model_calls clamped: 7, not 8")
    moments, _ = lived(SURPRISE, "clamp:u.pain=5", "clamp:model_calls=7")
    assert all(m.directive.u[:, 1].tolist() == [5, 5] for m in moments)
    assert max(int(m.plan.model_calls.max()) for m in moments) in range(1, 8)


def test_an_ablated_field_is_that_of_the_base_directive(free: Any) -> None:
    block = {"u": {"pain": 0.0}, "risk": 0.5, "horizon_steps": 2}
    departs = {"from_step": 0, "mode": 1, "u": {"pain": 3.0}, "risk": 1.0, "horizon_steps": 1}
    asked = {"kind": "scheduled", "schedule": [departs], "period_steps": 0, **block}
    base = {"mode": 2, "u.pain": 0, "risk": 0.5, "horizon_steps": 2}
    written = [f"ablate:{path}" for path in base]
    once = lived(asked, *written)
    assert_same(lived(asked, *written, *written), once)
    for path, value in base.items():
        part = part_of(path, once[0][0].directive)
        assert {float(x) for m in once[0] for x in part.of(m.directive)} == {value}
    # Around `fixed` in Mode-2 there is nothing to ablate.
    fixed = {"kind": "fixed", "mode": 2, **block}
    assert_same(lived(fixed, *written), lived(fixed))
    # What was chosen moment by moment is not any more.
    steady = lived(SURPRISE, "ablate:mode", "clamp:commit_steps=2")
    assert_same(steady, lived({"kind": "fixed", "mode": 2}), state=False)


def test_a_delay_of_nothing_is_nothing_and_of_some_is_later(free: Any) -> None:
    assert_same(lived(SURPRISE, "delay:mode=0"), free)
    # As nobody listens to `risk`, what was meant is known from the run without the delay.
    schedule = {"kind": "scheduled", "schedule": [{"from_step": 4, "risk": 2.0}], "period_steps": 0}
    late = lived(schedule, "delay:risk=3", rows=1)
    ages = torch.stack([m.episode_step for m in late[0]])
    assert series(late, "risk").flatten().tolist() == [2.0 * (a >= 7) for a in ages.flatten()]
    twice = lived(schedule, "delay:risk=1", "delay:risk=2", rows=1)
    assert_same(twice, late, state=False)


def test_a_shuffle_keeps_how_often_and_loses_when() -> None:
    fixed = {"kind": "fixed", "mode": 2}
    assert_same(lived(fixed, "shuffle:mode"), lived(fixed), state=False)
    assembly = made(SURPRISE, rows=1)
    assembly.world.close()
    inner = assembly.agent.modules.configurator
    held = 4
    mode = part_of("mode", inner.initial(1))
    shuffle = Shuffle(inner, mode, held)
    own = shuffle.initial(1).configurator_state[:, :held]
    draw = torch.Generator().manual_seed(0)
    intended = torch.randint(1, 3, (200, 1), generator=draw).float()
    actual = []
    for step, value in enumerate(intended):
        shuffled, own = shuffle.change(value[None], own, chance.keys(0, 1, step))
        actual.append(float(shuffled))
    went_in = Counter([*intended.flatten().tolist(), *[2.0] * held])
    assert went_in == Counter([*actual, *own.flatten().tolist()])
    assert actual != intended.flatten().tolist()


def situation_of(moment: Moment, step: int) -> Any:
    return Situation(
        env_index=torch.arange(1), state=moment.state, recollection=moment.recollection,
        energies=moment.energies, surprise=moment.surprise,
        episode_model_calls=moment.episode_model_calls, episode_step=moment.episode_step,
        rng_key=chance.keys(0, 1, step), previous=moment,
    )  # fmt: skip


def test_a_swap_at_once_is_the_other_and_after_the_end_the_first(free: Any) -> None:
    settings = "{kind: fixed, mode: 1}"
    fixed = lived({"kind": "fixed", "mode": 1})
    assert_same(lived(SURPRISE, f"swap:0={settings}"), fixed, state=False)
    assert_same(lived(SURPRISE, f"swap:9999={settings}"), free, state=False)
    between = lived({"kind": "fixed", "mode": 2}, f"swap:5={settings}")
    ages = torch.stack([m.episode_step for m in between[0]])
    assert torch.equal(series(between, "mode"), torch.where(ages >= 5, 1, 2))


def test_all_that_wrappers_know_is_in_the_carry() -> None:
    """Another object of the same make goes on alike from the directive alone."""
    written = ("delay:mode=4", "shuffle:mode=3", "swap:7=random-rate", "clamp:u.pain=2")
    whole = lived(SURPRISE, *written, rows=1)
    for moment, after in zip(whole[0][20:28], whole[0][21:29], strict=True):
        if bool(after.observation.first[0]):
            continue
        other = made(SURPRISE, *written, rows=1)
        other.world.close()
        heard = situation_of(after, after.step).replace(
            rng_key=chance.keys(3, 1, after.step), previous=moment
        )
        said: Directive = other.agent.modules.configurator.configure(heard)
        assert said.to_bytes() == after.directive.to_bytes()


def test_rows_do_not_disturb_each_other() -> None:
    written = ("delay:mode=2", "shuffle:mode=3", "swap:7=random-rate")
    many, alone = lived(SURPRISE, *written, rows=3), lived(SURPRISE, *written, rows=1)
    for together, single in zip(many[0], alone[0], strict=True):
        assert torch.equal(together.directive.mode[:1], single.directive.mode)
        assert torch.allclose(
            together.directive.configurator_state[:1],
            single.directive.configurator_state,
            atol=1e-4,
        )


REFUSED = {
    "clmp:mode=1": "'clmp' is not one of clamp, ablate.*Did you mean 'clamp'",
    "clamp:mdoe=1": "'mdoe' is not one of mode.*Did you mean 'mode'",
    "clamp:mode=3": "mode: expected a whole number from 1 to 2, got 3",
    "clamp:mode=x": "mode: expected a whole number from 1 to 2, got 'x'",
    "clamp:mode=1.5": "mode: expected a whole number from 1 to 2, got 1.5",
    "clamp:risk=.nan": "risk: expected a number from -1000 to 1000, got nan",
    "clamp:u=[1, 2, 3]": "expected one number, or a list of shape",
    "clamp:plan.steps=3": "expected a field of the directive, got plan.steps",
    "clamp:configurator_state=1": "'configurator_state' is not one of mode",
    "clamp:mode": "expected a value, as in clamp:mode=1",
    "clamp": "expected clamp:mode=1",
    "clamp:u.scroe=1": "'scroe' is not one of score.*Did you mean 'score'",
    "clamp:mode.x=1": "at most 0 names or numbers behind directive.mode, got 1",
    "ablate:mode=2": "expected no value, as in ablate:u.score",
    "delay:mode": "expected a value, as in delay:mode=5",
    "delay:mode=-1": "steps: expected a whole number from 0 to 1000, got -1",
    "shuffle:mode=1": "steps: expected a whole number from 2 to 1000, got 1",
    "swap:5": "expected a value, as in swap:200=surprise",
    "swap:x=fixed": "steps: expected a whole number from 0 to 10000000, got 'x'",
    "swap:5=suprise": "'suprise' is not one of fixed.*Did you mean 'surprise'",
    "swap:5={kind: surprise, enter_sdt: 3}": "enter_sdt: no such setting.*Did you mean",
    "swap:5=[1]": "neither a kind nor settings",
}


@pytest.mark.parametrize("written", REFUSED)
def test_what_is_wrong_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[written]) as refused:
        made(SURPRISE, written).world.close()
    assert "\n" not in str(refused.value)


def test_the_command_line_intervenes(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    play = ["play", "CartPole-v1", "--steps", "12", "--no-live", "--run", "here",
            "--world_model.kind=persistence", "--configurator.kind=surprise",
            "--directive.model_calls=20"]  # fmt: skip
    assert run([*play, "--intervene", "clamp:mode=4"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "mode: expected a whole number from 1 to 2, got 4" in complaint
    assert list(tmp_path.iterdir()) == []
    assert run([*play, "--intervene", "clamp:mode=1", "--intervene", "clamp:u.pain=2"]) == 0
    assert "Mode-2    0% of steps" in capsys.readouterr().out
    recorded = (tmp_path / "here" / "config.yaml").read_text()
    assert "interventions:\n- clamp:mode=1\n- clamp:u.pain=2\n" in recorded


def test_fields_are_written_as_they_are_named() -> None:
    assert float(interventions.read("clamp:u.score=1e-3").value) == 0.001
    assert interventions.read("clamp:directive.mode=1").path.name == "mode"
    assert interventions.read("swap:200={kind: fixed, mode: 1}").other == {
        "kind": "fixed", "mode": 1,
    }  # fmt: skip
    for kind in (Clamp, Delay, Shuffle, Swap):
        assert "dentit" in (kind.__doc__ or "")
