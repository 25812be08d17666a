"""Merging, kinds and every class of mistake, without a world: the spec is written by hand."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from agent.assembly.build import KINDS, assemble, describe
from agent.assembly.load import RunRequest, configure
from agent.assembly.merge import dotted, merge, read_yaml
from agent.assembly.resolve import Kinds, default_kind, preset, presets, resolve, settings_of
from agent.learning.learner import Learner
from agent.recording.renames import current_settings
from modules.messages import SIGNALS, ActionSpec, ConfigError, WorldSpec

PIXELS = WorldSpec(
    id="ALE/Pong-v5",
    pixels=(84, 84, 1),
    vector=None,
    signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=6),
)
PUSH = WorldSpec(
    id="Pendulum-v1",
    pixels=None,
    vector=3,
    signals=SIGNALS,
    actions=ActionSpec(discrete=False, size=1, low=(-2.0,), high=(2.0,)),
)


def resolved(*overrides: str, world: WorldSpec = PIXELS):
    return resolve(merge({"world": {"id": world.id}}, dotted(overrides)), world, Kinds(KINDS))


def refusal(*overrides: str, world: WorldSpec = PIXELS) -> str:
    with pytest.raises(ConfigError) as caught:
        resolved(*overrides, world=world)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_later_layers_win_and_others_stay():
    low = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merge(low, {"b": {"c": 5}}) == {"a": 1, "b": {"c": 5, "d": 3}}
    assert low == {"a": 1, "b": {"c": 2, "d": 3}}


def test_another_kind_drops_the_settings_of_the_former():
    low = {"actor": {"kind": "actor", "planner": {"kind": "beam", "action_repeat": 2}}}
    same = merge(low, {"actor": {"planner": {"kind": "beam", "refine_samples": 3}}})
    assert same["actor"]["planner"] == {"kind": "beam", "action_repeat": 2, "refine_samples": 3}
    for value in ({"kind": "cem"}, "cem"):
        other = merge(low, {"actor": {"planner": value}})
        assert other["actor"]["planner"] == {"kind": "cem"}
        assert other["actor"]["kind"] == "actor"


def test_another_configurator_keeps_the_directive_block():
    base = dotted(["configurator.kind=random-rate", "configurator.rate=0.5",
                   "directive.horizon_steps=3", "directive.u={pain: 0}"])  # fmt: skip
    tree = merge({"world": {"id": PIXELS.id}} | base, dotted(["configurator=surprise"]))
    tree = merge(tree, dotted(["configurator.kind=fixed", "directive.u={effort: 2}"]))
    settings = resolve(tree, PIXELS, Kinds(KINDS)).tree()
    assert settings["configurator"] == {"kind": "fixed", "mode": 2}
    assert settings["directive"]["horizon_steps"] == 3
    assert settings["directive"]["u"] == {"pain": 0, "effort": 2}


def test_layers_are_laid_one_after_the_other(tmp_path):
    """A kind named by two layers, with another between, begins anew."""
    file = tmp_path / "surprise.yaml"
    file.write_text("configurator: surprise")
    request = RunRequest("pong", preset="reactive", config=file)
    assert configure(request)[0]["configurator"] == {"kind": "surprise"}
    fixed = replace(request, overrides=("configurator.kind=fixed",))
    assert configure(fixed)[0]["configurator"] == {"kind": "fixed"}


def test_a_configurator_swapped_in_keeps_the_directive_but_for_what_it_changes():
    tree = {"world": {"id": "CartPole-v1"}, "configurator": {"kind": "fixed"},
            "directive": {"u": {"pain": 0}, "commit_steps": 3}}  # fmt: skip
    for text, commit in (
        ("swap:9=surprise", 3),
        ("swap:9={kind: surprise, directive: {commit_steps: 1}}", 1),
    ):
        slot, directive = describe(tree | {"interventions": [text]}, Kinds(KINDS)).others[text]
        assert slot.kind == "surprise"
        assert (directive.u, directive.commit_steps) == ({"pain": 0}, commit)


OLD = {
    "world": {"id": "CartPole-v1", "rows": 2},
    "interventions": ["clamp:u.pain=0", "swap:9={kind: surprise, deviations: 3, commit_steps: 1}"],
    "training": {"evaluation": {"configurator": {"mode": 1, "u": {"pain": 1.0}}}},
    "configurator": {"kind": "fixed", "u": {"pain": 0.0}, "v": {}, "horizon_steps": 5, "mode": 2},
}
"""A configuration as version 0.1 wrote it."""


def test_a_configuration_of_0_1_has_its_directive_block():
    current = current_settings(OLD)
    assert current["configurator"] == {"kind": "fixed", "mode": 2}
    assert current["directive"] == {"u": {"pain": 0.0}, "v": {}, "horizon_steps": 5}
    assert current["training"]["evaluation"] == {
        "configurator": {"mode": 1}, "directive": {"u": {"pain": 1.0}},
    }  # fmt: skip
    swap = "swap:9={kind: surprise, enter_std: 3, directive: {commit_steps: 1}}"
    assert current["interventions"] == ["clamp:u.pain=0", swap]
    config = describe(current, Kinds(KINDS))
    assert config.others[swap][1].horizon_steps == 5
    # What this version writes is read as it is, whatever a plugin's settings are called.
    plugged = {"directive": {}, "configurator": {"kind": "mine", "commit_steps": 4}}
    assert current_settings(plugged) == plugged
    assert current_settings(config.tree()) == config.tree()


SCALAR = "cost.critic.kind=scalar-categorical"
GREEDY = "actor.policy.kind=greedy"


@pytest.mark.parametrize(
    ("world", "overrides", "wanted"),
    [
        ("CartPole-v1", (GREEDY, SCALAR), "critic that knows actions, got 'scalar-categorical'"),
        ("CartPole-v1", (GREEDY,), None),
        ("CartPole-v1", (SCALAR,), None),
        ("sextet/Orchard-v0", (), None),
        (
            "sextet/Orchard-v0",
            ("configurator.kind=fixed",),
            "config configurator.kind: expected 'task'",
        ),
        ("sextet/Orchard-v0", ("interventions=['swap:9=surprise']",), "interventions 'swap:9=sur"),
        ("sextet/Orchard-v0", ("configurator.kind=fixed", "directive.v={subgoal 1: 1}"), None),
        (
            "sextet/Orchard-v0",
            (
                "configurator.kind=scheduled",
                "configurator.period_steps=0",
                "configurator.schedule=[{from_step: 5, v: {subgoal 1: 1}}]",
            ),
            None,
        ),
    ],
)
def test_what_learns_for_nobody_is_refused(
    world: str, overrides: tuple[str, ...], wanted: str | None
):
    """A critic whose word no policy hears, or none of whose sub-goals a configurator sets."""
    low = preset("learn-tasks") if "Orchard" in world else {}
    tree = merge(merge(low, {"world": {"id": world, "num_envs": 1}}), dotted(overrides))
    tree = merge(tree, {"memory": {"capacity": 1000}})
    if wanted is None:
        assemble(tree, Kinds(KINDS)).world.close()
        return
    with pytest.raises(ConfigError) as caught:
        assemble(tree, Kinds(KINDS))
    assert wanted in str(caught.value)
    assert "; try " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dream_is_refused_where_no_sub_goal_counts_whatever_else_does():
    world = {"world": {"id": "sextet/Orchard-v0", "num_envs": 1}, "memory": {"capacity": 1000}}
    for override, refused in (("cost.drives=[score, pain]", True), ("configurator.task=1", False)):
        tree = merge(merge(preset("learn-tasks"), world), dotted([override]))
        assembly = assemble(tree, Kinds(KINDS))
        assembly.world.close()
        assert bool(assembly.agent.modules.configurator.initial(1).v.any())
        settings = assembly.config.settings.learner.model_copy(update={"imagination_horizon": 1})
        if not refused:
            assert Learner(assembly.agent, config=settings, seed=0).imagined_experience
            continue
        with pytest.raises(ConfigError, match="imagined rollouts have no task"):
            Learner(assembly.agent, config=settings, seed=0)


def test_what_an_evaluation_sets_otherwise_is_a_layer_like_any():
    told = {"actor": {"policy": {"epsilon": 0.01, "repeat_prob": 0}}, "configurator": {"mode": 1}}
    low = {"actor": {"policy": {"kind": "greedy"}}, "training": {"evaluation": told}}
    overrides = [f"training.evaluation.actor.policy.{said}" for said in ("epsilon=0", "more=1")]
    merged = merge(low, dotted(overrides))["training"]["evaluation"]
    assert merged["actor"]["policy"] == {"epsilon": 0, "repeat_prob": 0, "more": 1}
    assert merged["configurator"] == {"mode": 1}
    # What suited another policy is gone with it, all else stays.
    other = {"actor": {"policy": {"kind": "categorical"}}}
    left = merge(low, other)["training"]["evaluation"]
    assert left == {"actor": {}, "configurator": {"mode": 1}}
    given = {"training": {"evaluation": {"actor": {"policy": {"temperature": 0}}}}}
    both = merge(low, other | given)["training"]["evaluation"]
    assert both["actor"] == {"policy": {"temperature": 0}}
    assert merge(low, dotted(["training.evaluation={}"]))["training"]["evaluation"] == {}
    assert low["training"]["evaluation"] is told


def test_a_default_kind_that_is_replaced_leaves_nothing_behind():
    # `refine_samples` was meant for the default planner, beam.
    tree = {"world": {"id": PIXELS.id}, "actor": {"planner": {"kind": "beam", "refine_samples": 3}}}
    config = resolve(
        merge(tree, dotted(["actor.planner.kind=cem-categorical"])), PIXELS, Kinds(KINDS)
    )
    assert "refine_samples" not in config.tree()["actor"]["planner"]


def test_overrides_are_read_as_yaml_and_the_last_wins():
    assert dotted(["a.b=1", "a.c=[x, 2]", "a.b=2", "d=text", "e=null"]) == {
        "a": {"b": 2, "c": ["x", 2]},
        "d": "text",
        "e": None,
    }


@pytest.mark.parametrize("override", ["a.b", "=3", "a..b=3", ".a=3"])
def test_an_override_without_name_or_value_is_refused(override: str):
    with pytest.raises(ConfigError, match="expected an override like"):
        dotted([override])


def test_defaults_follow_the_world():
    pong, push = resolved().tree(), resolved(world=PUSH).tree()
    assert (pong["perception"]["kind"], push["perception"]["kind"]) == ("pixels-small", "vectors")
    assert (pong["actor"]["planner"]["kind"], push["actor"]["planner"]["kind"]) == ("beam", "cem")
    assert (pong["cost"]["critic"]["kind"], push["cost"]["critic"]["kind"]) == ("actions", "scalar")


def test_every_default_is_a_kind():
    for world in (PIXELS, PUSH):
        for slot in {*KINDS} - {"drive"}:
            assert default_kind(slot, world) in KINDS[slot]


def test_every_kind_is_a_class_with_settings_that_have_defaults():
    kinds = Kinds(KINDS)
    for slot in {*KINDS} - {"drive"}:
        for kind in kinds.names(slot):
            assert kinds.find(slot, kind).Config().model_config["extra"] == "forbid"


@pytest.mark.parametrize("world", [PIXELS, PUSH])
def test_resolving_what_was_resolved_changes_nothing(world: WorldSpec):
    once = resolved("actor.replan_threshold=0.25", "seed=4", world=world)
    again = resolve(yaml.safe_load(once.yaml()), world, Kinds(KINDS))
    assert again.tree() == once.tree()
    assert again.tree()["actor"]["replan_threshold"] == 0.25


def test_a_module_without_a_slot_refuses_settings_for_it():
    assert resolved("world_model.kind=fair").tree()["world_model"] == {"kind": "fair"}
    text = refusal("world_model.kind=fair", "world_model.objective.kind=vicreg")
    assert text.startswith("config world_model.objective: no such setting")


def test_a_bare_name_is_short_for_a_kind():
    assert resolved("world_model=fair").tree()["world_model"] == {"kind": "fair"}


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("world_model.kind=jpea", ["world_model.kind", "'jpea'", "clairvoyant", "mean 'jepa'"]),
        ("actor.planner.kind=baem", ["actor.planner.kind", "mean 'beam'"]),
        (
            "actor.planner.action_repeet=3",
            ["actor.planner.action_repeet", "none of action_repeat", "mean 'action_repeat'"],
        ),
        (
            "actor.planner.action_repeat=0",
            ["actor.planner.action_repeat", "0 is not", "at least 1", "at most 32"],
        ),
        (
            "actor.planner.action_repeat=much",
            ["actor.planner.action_repeat", "'much' is not a valid integer"],
        ),
        ("actor.planer.kind=beam", ["actor.planer", "mean 'planner'"]),
        ("actr.kind=actor", ["config actr", "mean 'actor'"]),
        ("seed=-1", ["config seed", "-1 is not", "at least 0"]),
        ("world.num_envs=0", ["config world.num_envs", "0 is not", "at least 1"]),
        ("world.num_env=2", ["config world.num_env:", "mean 'num_envs'"]),
        ("discount=1.5", ["config discount", "1.5 is not", "at most 1"]),
        ("tokens.width=x", ["config tokens.width", "'x' is not a valid integer"]),
        ("configurator.u={pain: 0}", ["config configurator.u: is called directive.u now"]),
        ("configurator.horizon_steps=3", ["is called directive.horizon_steps now"]),
        ("configurator.think_every=3", ["is called configurator.max_idle_steps now"]),
        ("directive.modle_calls=3", ["config directive.modle_calls", "mean 'model_calls'"]),
        ("directive.risk=5000", ["config directive.risk", "5000 is not", "at most 1000"]),
        ("perception=3", ["config perception", "3 is not a kind"]),
        ("perception.kind=[1]", ["config perception.kind", "[1] is not one of"]),
        ("perception.kind=", ["config perception.kind", "None is not one of"]),
        ("world=Pong", ["config world", "'Pong' is not"]),
        (
            "cost.critic.hat_functions={count: 4, low: 3, high: 2.4}",
            ["config cost.critic.hat_functions: expected low below high, got 3 and 2.4"],
        ),
        (
            "cost.critic.hat_functions={count: 1, low: 0, high: 1}",
            ["config cost.critic.hat_functions.count: 1 is not", "at least 2"],
        ),
        ("cost.critic.hat_functions={high: 2.4}", ["cost.critic.hat_functions.count: is missing"]),
    ],
)
def test_a_mistake_is_one_line_saying_where_what_and_what_else(override: str, wanted: list[str]):
    text = refusal(override)
    for part in wanted:
        assert part in text


def test_a_world_must_be_named():
    with pytest.raises(ConfigError, match="config world: is missing"):
        settings_of({})


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a: [1, 2", "expected YAML, got line 1: "),
        (b"a: 1\n\tb: 2", "expected YAML, got line 2: "),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"- 1\n- 2", "got list"),
        (b"just text", "got str"),
        (b"1: 2", "expected settings"),
        (b"a: !!python/object/apply:os.getcwd []", "expected YAML, got line 1: "),
    ],
)
def test_an_unreadable_file_is_one_line(tmp_path: Path, content: bytes, wanted: str):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "c.yaml")
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="got a folder"):
        read_yaml(tmp_path)


def test_an_empty_file_says_nothing(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "c.yaml") == {}


@pytest.mark.parametrize("name", presets())
def test_every_preset_resolves_everywhere(name: str):
    for world in (PIXELS, PUSH):
        tree = merge({"world": {"id": world.id}}, preset(name))
        assert resolve(tree, world, Kinds(KINDS)).settings.world.id == world.id


def test_a_preset_that_is_not_there_is_suggested():
    with pytest.raises(ConfigError, match="Did you mean 'reactive'"):
        preset("reactiv")


class Mine:
    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["mine"] = "mine"
        size: int = Field(2, ge=1)


def test_a_plugin_adds_a_kind_and_is_remembered():
    kinds = Kinds(KINDS)
    kinds.add("theirs", {"memory": {"mine": Mine}})
    config = resolve({"world": {"id": PIXELS.id}, "memory": "mine"}, PIXELS, kinds)
    assert config.tree()["memory"] == {"kind": "mine", "size": 2}
    assert config.settings.plugins == ("theirs",)


@pytest.mark.parametrize(
    ("offered", "wanted"),
    [
        (ModuleType("empty"), "has no MODULES"),
        ({"memori": {"mine": Mine}}, "mean 'memory'"),
        ({"memory": {"ring": Mine}}, "exists already"),
        ({"memory": {"mine": int}}, "nested pydantic Config"),
        ({"memory": {"mine": "os:system"}}, "nested pydantic Config"),
    ],
)
def test_a_plugin_that_offers_nonsense_is_refused(offered, wanted: str):
    with pytest.raises(ConfigError, match=wanted):
        Kinds(KINDS).add("theirs", offered)


def test_a_package_that_cannot_be_imported_is_refused():
    with pytest.raises(ConfigError, match="'no_such_package' cannot be imported"):
        Kinds(KINDS).plug("no_such_package")


def test_a_limit_of_ones_own_stands_beside_another_and_above_that_of_the_agent(tmp_path):
    file = tmp_path / "short.yaml"
    file.write_text("steps: 500")
    tree, _ = configure(RunRequest("pong", config=file, flags={"episodes": 3}))
    assert (tree["steps"], tree["episodes"]) == (500, 3)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{world: {id: CartPole-v1}, steps: 60}")
    run = str(tmp_path / "run")
    for flags, limits in (
        ({}, (60, None)),
        ({"episodes": 3}, (None, 3)),
        ({"steps": 9}, (9, None)),
    ):
        tree, _ = configure(RunRequest(run, flags=flags))
        assert (tree["steps"], tree.get("episodes")) == limits


def test_a_name_that_is_an_agent_and_a_folder_is_asked_about(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pong").mkdir()
    configure(RunRequest("pong"))  # that one is no agent
    (tmp_path / "pong" / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match=r"'pong' is a bundled agent, and the folder .*\./pong"):
        configure(RunRequest("pong"))
