"""An objective of several: a list of slots in settings, on the command line and in a saved run."""

from __future__ import annotations

import pytest
import torch
import yaml

from agent.assembly.build import KINDS, assemble
from agent.assembly.merge import dotted, merge
from agent.assembly.resolve import Kinds, ResolvedConfig, resolve
from agent.cli import run
from modules.messages import SIGNALS, ActionSpec, ConfigError, Frozen, WorldSpec
from modules.objectives.none import Unregularised

VECTOR = WorldSpec(
    id="CartPole-v1",
    pixels=None,
    vector=4,
    signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=2),
)
PATH = "world_model.objective"
SUM = f"{PATH}.kind=sum"


def resolved(*overrides: str, kinds: Kinds | None = None) -> ResolvedConfig:
    tree = merge({"world": {"id": VECTOR.id}}, dotted([SUM, *overrides]))
    return resolve(tree, VECTOR, kinds or Kinds(KINDS))


def parts(*overrides: str) -> list[dict[str, object]]:
    return resolved(*overrides).tree()["world_model"]["objective"]["parts"]


VICREG = {"kind": "vicreg", "std_coeff": 4.0, "cov_coeff": 1.0, "target_std": 1.0}


def test_parts_are_kinds_or_settings_in_their_order():
    listed = f"{PATH}.parts=[{{kind: vicreg, std_coeff: 16}}, smoothness]"
    assert parts(listed) == [{**VICREG, "std_coeff": 16}, {"kind": "smoothness", "weight": 1}]
    # Without any there is one part, the objective that such a world has by default.
    assert parts() == [{"kind": "none"}]


def test_a_number_reaches_one_part_and_the_next_number_adds_one():
    listed = f"{PATH}.parts=[vicreg, {{kind: barlow, weight: 3}}]"
    changed = parts(listed, f"{PATH}.parts.0.std_coeff=8", f"{PATH}.parts.1.redundancy_weight=2")
    assert changed == [
        {**VICREG, "std_coeff": 8},
        {"kind": "barlow", "weight": 3, "redundancy_weight": 2},
    ]
    # Another kind drops the settings of the former, as in any slot.
    for other in (f"{PATH}.parts.1.kind=smoothness", f"{PATH}.parts.1=smoothness"):
        assert parts(listed, other)[1] == {"kind": "smoothness", "weight": 1}
    more = parts(listed, f"{PATH}.parts.2.kind=infonce", f"{PATH}.parts.2.temperature=.5")
    assert more[2] == {"kind": "infonce", "weight": 1, "temperature": 0.5}
    assert parts(f"{PATH}.parts.1.kind=smoothness") == [
        {"kind": "none"}, {"kind": "smoothness", "weight": 1},
    ]  # fmt: skip
    written = parts(listed, f"{PATH}.parts={{1: {{weight: 2}}}}")
    assert written[1] == {"kind": "barlow", "weight": 2, "redundancy_weight": 0.0005}
    # A later list replaces the whole of an earlier one.
    assert parts(listed, f"{PATH}.parts=[none]") == [{"kind": "none"}]


def test_a_merge_by_number_leaves_its_base_as_it_was_and_other_lists_likewise():
    base = {"parts": [{"kind": "a", "x": 1}, "b"], "names": ["one", "two"]}
    merged = merge(base, {"parts": {"1": {"y": 2}, "0": {"x": 3}}, "names": {"1": "three"}})
    assert merged == {
        "parts": [{"kind": "a", "x": 3}, {"kind": "b", "y": 2}], "names": ["one", "three"],
    }  # fmt: skip
    assert base == {"parts": [{"kind": "a", "x": 1}, "b"], "names": ["one", "two"]}
    with pytest.raises(ConfigError, match=r"config a\.parts\.4: no such element.* 0 to 2$"):
        merge({"a": base}, {"a": {"parts": {"4": {"kind": "c"}}}})


def test_parts_within_a_part():
    nested = parts(f"{PATH}.parts=[{{kind: sum, parts: [vicreg, none]}}]")
    assert nested == [{"kind": "sum", "parts": [VICREG, {"kind": "none"}]}]
    deep = parts(f"{PATH}.parts.0.kind=sum", f"{PATH}.parts.0.parts.0.kind=vicreg")
    assert deep == [{"kind": "sum", "parts": [VICREG]}]


def test_what_was_resolved_resolves_to_itself():
    once = resolved(f"{PATH}.parts=[vicreg, inverse-dynamics, {{kind: sum, parts: [barlow]}}]")
    again = resolve(yaml.safe_load(once.yaml()), VECTOR, Kinds(KINDS))
    assert again.tree() == once.tree()
    assert len(again.slots["world_model"].inner["objective"].lists["parts"]) == 3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("parts=[vicregg]", ["parts.0.kind: 'vicregg'", "mean 'vicreg'?"]),
        ("parts=[]", ["parts: expected a list of at least one", "got []; try"]),
        ("parts=vicreg", ["parts: expected a list of at least one", "got 'vicreg'; try"]),
        ("parts=3", ["parts: expected a list of at least one", "got 3; try"]),
        ("parts=[{weight: 1}]", ["parts.0.kind: is missing", "one of vicreg, sigreg"]),
        ("parts=[vicreg, 3]", ["parts.1: 3 is not a kind or a set of settings"]),
        ("parts=[none, {kind: smoothness, wieght: 1}]", ["parts.1.wieght", "mean 'weight'?"]),
        ("parts=[{kind: barlow, weight: -1}]", ["parts.0.weight: -1", "at least 0"]),
        ("parts=[{kind: infonce, temperature: 0}]", ["parts.0.temperature: 0", "at least 0.001"]),
        ("parts=[{kind: inverse-dynamics, width: 1}]", ["parts.0.width: 1", "at least 8"]),
        ("parts=[{kind: straightening, weight: yes}]", ["parts.0.weight: True is not a number"]),
        ("parts.3.kind=vicreg", ["parts.3: no such element", "0 to 1"]),
        ("parts.one.kind=vicreg", ["parts.one: no such element", "0 to 1"]),
        ("prats=[vicreg]", ["prats: no such setting; it is none of parts", "mean 'parts'?"]),
        ("parts=[{kind: sum, parts: [vicrge]}]", ["parts.0.parts.0.kind", "mean 'vicreg'?"]),
    ],
)
def test_a_wrong_part_is_one_line_that_names_its_place(override: str, expected: list[str]):
    with pytest.raises(ConfigError) as caught:
        resolved(f"{PATH}.{override}")
    text = str(caught.value)
    assert text.startswith(f"config {PATH}.")
    assert "\n" not in text
    for part in expected:
        assert part in text


def test_an_objective_that_is_no_sum_has_no_parts():
    with pytest.raises(ConfigError, match=r"objective\.parts: no such setting"):
        resolved(f"{PATH}.kind=vicreg", f"{PATH}.parts=[vicreg]")


class Mine(Unregularised):
    class Config(Frozen):
        size: int = 2


def test_a_plugin_in_a_part_is_remembered():
    kinds = Kinds(KINDS)
    kinds.add("theirs", {"objective": {"mine": Mine}})
    config = resolved(f"{PATH}.parts=[vicreg, {{kind: mine, size: 3}}]", kinds=kinds)
    assert config.tree()["world_model"]["objective"]["parts"][1] == {"kind": "mine", "size": 3}
    assert config.settings.plugins == ("theirs",)


def test_the_command_takes_and_prints_parts(capsys):
    words = [f"--{SUM}", f"--{PATH}.parts=[vicreg]", f"--{PATH}.parts.1.kind", "inverse-dynamics"]
    assert run(["config", "CartPole-v1", *words]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)["world_model"]["objective"]["parts"]
    assert printed == [VICREG, {"kind": "inverse-dynamics", "weight": 1, "width": 256}]
    assert run(["list", "modules"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {"sum", "barlow", "infonce", "straightening"} <= {
        line[0] for line in lines if line[1] == "objective"
    }
    assert run(["config", "CartPole-v1", f"--{SUM}", f"--{PATH}.parts.0.kind=vicregg"]) == 2
    assert "Did you mean 'vicreg'?" in capsys.readouterr().err


def test_weights_of_a_part_follow_from_its_place_and_change_no_others():
    def weights(listed: str) -> dict[str, torch.Tensor]:
        tree = merge({"world": {"id": VECTOR.id}}, dotted([SUM, f"{PATH}.parts={listed}"]))
        assembly = assemble(tree, Kinds(KINDS))
        assembly.world.close()
        return assembly.agent.modules.world_model.state_dict()

    without, one = weights("[vicreg]"), weights("[vicreg, inverse-dynamics]")
    two = weights("[vicreg, inverse-dynamics, inverse-dynamics]")
    assert all(one[name].equal(value) for name, value in without.items())
    assert all(two[name].equal(value) for name, value in one.items())
    first = "objective.networks.1.network.last.weight"
    assert one.keys() - without.keys() >= {first}
    assert not two[first].equal(two[first.replace("1", "2", 1)])
