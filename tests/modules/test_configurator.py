"""Configurators: what they tell the others, when, and why."""

import threading
from typing import Any

import pytest
import torch
from directed import directed
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.assembly.build import assemble, known_kinds
from agent.bench import memory as bench
from agent.live import live
from modules import chance
from modules.configurator.budgeted import Budgeted
from modules.configurator.fixed import Fixed
from modules.configurator.learned import Learned
from modules.configurator.manual import KEYS, Manual
from modules.configurator.random_rate import RandomRate
from modules.configurator.scheduled import Scheduled
from modules.configurator.surprise import Surprise
from modules.messages import ConfigError, Directive, Energy, Situation

FACTS: dict[str, Any] = {
    "drives": ("score", "pain", "effort", "novelty"),
    "heads": ("score", "pain", "effort", "novelty"),
    "token_shape": (2, 3),
    "horizon_max": 64,
}
KINDS: dict[str, Any] = {
    "fixed": Fixed, "scheduled": Scheduled, "surprise": Surprise, "budgeted": Budgeted,
    "learned": Learned, "random-rate": RandomRate, "manual": Manual,
}  # fmt: skip
COMMITS = ("budgeted", "learned", "random-rate")
"""Those that decide at each step how long a plan holds."""


def situation(
    directive: Directive,
    surprise: list[float],
    age: list[int],
    disagreement: list[float] | None = None,
    novelty: list[float] | None = None,
) -> Situation:
    rows = len(surprise)
    before = bench.moment(rows, 1).replace(directive=directive)
    zeros = torch.zeros(rows)
    return Situation(
        env_index=torch.arange(rows),
        state=before.state,
        recollection=before.recollection.replace(
            novelty=zeros if novelty is None else torch.tensor(novelty)
        ),
        energies=Energy(
            intrinsic=torch.zeros(rows, 4), critic=torch.zeros(rows, 4),
            disagreement=zeros if disagreement is None else torch.tensor(disagreement),
        ),
        surprise=torch.tensor(surprise),
        episode_model_calls=zeros.long(),
        episode_step=torch.tensor(age),
        rng_key=torch.arange(rows),
        previous=before,
    )  # fmt: skip


def lived(
    configurator: Surprise, surprises: list[float], directive: Directive | None = None, **words: Any
) -> list[Directive]:
    """The directives of one row whose steps surprise it so."""
    directives = [directive or configurator.initial(1)]
    for age, surprise in enumerate(surprises):
        heard = {name: [values[age]] for name, values in words.items()}
        directives.append(
            configurator.configure(situation(directives[-1], [surprise], [age], **heard))
        )
    return directives[1:]


def modes(directives: list[Directive]) -> list[int]:
    return [int(d.mode) for d in directives]


@pytest.mark.parametrize("kind", KINDS)
def test_every_configurator_says_its_settings(kind: str) -> None:
    given: dict[str, Any] = {
        "u": {"effort": 0.25, "score": 2.0}, "v": {"pain": 3.0}, "horizon_steps": 7,
        "model_calls": 90, "commit_steps": 2, "latent_temperature": 0.5, "risk": 1.5,
    }  # fmt: skip
    configurator = directed(KINDS[kind], **given, **FACTS)
    neutral = configurator.initial(3)
    said = configurator.configure(situation(neutral, [0.0, 0.1, 0.2], [0, 1, 2]))
    for directive in (neutral, said):
        directive.check({"B": 3, "K": 4, "L": 4, "T": 2, "E": 3})
        assert directive.u.tolist() == [[2.0, 1.0, 0.25, 0.0]] * 3
        assert directive.v.tolist() == [[2.0, 3.0, 0.25, 0.0]] * 3
        assert directive.horizon_steps.tolist() == [7] * 3
        assert directive.model_calls.tolist() == [90] * 3
        if kind not in COMMITS:
            assert directive.commit_steps.tolist() == [2] * 3
        assert directive.latent_temperature.tolist() == [0.5] * 3
        assert directive.risk.tolist() == [1.5] * 3
        assert not directive.tokens.any()
        assert len(directive.reason) == 3
        for mode, reason in zip(directive.mode.tolist(), directive.reason, strict=True):
            assert reason.startswith({1: "acts: ", 2: "thinks: "}[mode])
    assert said.configurator_state.shape == neutral.configurator_state.shape


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_settings_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"directive.u: 'scroe'.*Did you mean 'score'\?"):
        directed(KINDS[kind], u={"scroe": 1.0}, **FACTS)
    with pytest.raises(ConfigError, match=r"directive.v: 'goal' is not one of score"):
        directed(KINDS[kind], v={"goal": 1.0}, **FACTS)
    with pytest.raises(ConfigError, match="horizon_steps: expected at most 64, got 65"):
        directed(KINDS[kind], horizon_steps=65, **FACTS)
    with pytest.raises(ValidationError):
        KINDS[kind].Config.model_validate({"model_calls": 3})


def test_fixed_never_changes() -> None:
    for mode in (1, 2):
        configurator = directed(Fixed, mode=mode, **FACTS)
        neutral = configurator.initial(2)
        assert configurator.configure(situation(neutral, [9.0, 0.0], [0, 50])) is neutral
        assert neutral.mode.tolist() == [mode, mode]


def test_scheduled_changes_by_the_age_of_each_row() -> None:
    configurator = directed(
        Scheduled,
        mode=1,
        schedule=[
            {"from_step": 2, "mode": 2, "u": {"effort": 0.5}},
            {"from_step": 5, "horizon_steps": 20, "risk": 2.0},
        ],
        period_steps=0,
        **FACTS,
    )
    ages = [0, 1, 2, 4, 5, 999]
    said = configurator.configure(situation(configurator.initial(6), [0.0] * 6, ages))
    assert said.mode.tolist() == [1, 1, 2, 2, 2, 2]
    assert said.u[:, 2].tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5]
    assert said.v[:, 2].tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5]
    assert said.horizon_steps.tolist() == [48, 48, 48, 48, 20, 20]
    assert said.risk.tolist() == [0, 0, 0, 0, 2, 2]
    assert said.reason[3] == "thinks: as scheduled from step 2"
    assert configurator.initial(1).mode.tolist() == [1]
    periodic = directed(Scheduled, period_steps=4, **FACTS)
    said = periodic.configure(situation(periodic.initial(9), [0.0] * 9, list(range(9))))
    assert said.mode.tolist() == [1, 1, 1, 2, 1, 1, 1, 2, 1]
    config = Scheduled.Config.model_validate({"schedule": [{"from_step": 1, "horizon_steps": 99}]})
    assert config.horizon_max == 99


def test_a_timetable_out_of_order_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected from_step to rise"):
        directed(Scheduled, schedule=[{"from_step": 5}, {"from_step": 5}], period_steps=0, **FACTS)
    with pytest.raises(ConfigError, match="step 5 is never reached"):
        directed(Scheduled, schedule=[{"from_step": 5}], period_steps=5, **FACTS)


ALONE: dict[str, Any] = {"max_idle_steps": 0, "warmup_steps": 4, "min_dwell_steps": 2, **FACTS}


def test_an_episode_begins_with_thought_then_the_usual_is_acted_on() -> None:
    configurator = directed(Surprise, **ALONE)
    said = lived(configurator, [0.0, *[0.1, 0.12, 0.11, 0.1] * 5])
    assert modes(said) == [2] * 5 + [1] * 16
    assert said[0].reason == ("thinks: too early to know what is usual",)
    assert said[-1].reason[0].startswith("acts: surprise 0.1 within 0.12")
    # What seemed odd when nothing was usual yet leaves no alertness behind.
    early = lived(configurator, [0.1] * 7, novelty=[0.9] * 5 + [0.0] * 2)
    assert modes(early) == [2] * 5 + [1] * 2


def test_what_is_usual_is_the_mean_and_deviation_of_the_steps_before() -> None:
    surprises = [0.0, 0.3, 0.1, 0.5, 0.2, 0.4, 0.25]
    said = lived(directed(Surprise, **ALONE), surprises)
    felt = torch.tensor(surprises[1:], dtype=torch.float64)
    configurator_state = said[-1].configurator_state[0].double()
    torch.testing.assert_close(configurator_state[0], felt.mean(), rtol=1e-5, atol=0)
    torch.testing.assert_close(configurator_state[1], felt.var(correction=0), rtol=1e-5, atol=0)
    assert configurator_state[4] == 6


def test_surprise_makes_it_think_and_stay_alert() -> None:
    said = lived(directed(Surprise, **ALONE), [0.0, *[0.1, 0.12] * 6, 0.9, *[0.1] * 5])
    assert modes(said) == [2] * 5 + [1] * 8 + [2] * 3 + [1] * 3
    reasons = [d.reason[0] for d in said[13:17]]
    assert reasons[0] == "thinks: surprise 0.9 over 0.13 usual"
    assert reasons[1:3] == ["thinks: alert for 2 more steps", "thinks: alert for 1 more step"]
    assert reasons[3].startswith("acts: ")


def test_the_usual_is_relative() -> None:
    """The same surprise is nothing to a row used to more; what is tiny is never too much."""
    calm = lived(directed(Surprise, **ALONE), [0.0, *[0.1, 0.12] * 6, 0.5])
    wild = lived(directed(Surprise, **ALONE), [0.0, *[0.2, 0.9] * 6, 0.5])
    tiny = lived(directed(Surprise, **ALONE), [0.0, *[0.0] * 12, 0.009])
    assert [modes(s)[-1] for s in (calm, wild, tiny)] == [2, 1, 1]


def test_disagreement_novelty_and_long_idleness_are_reasons_too() -> None:
    quiet = [0.1] * 14
    odd = [0.0] * 13
    by_critics = lived(directed(Surprise, **ALONE), quiet, disagreement=[*odd, 0.4])[-1]
    assert by_critics.reason == ("thinks: critics disagree by 0.4 over 0.01 usual",)
    by_novelty = lived(directed(Surprise, **ALONE), quiet, novelty=[*odd, 0.8])[-1]
    assert by_novelty.reason == ("thinks: novelty 0.8 over 0.5",)
    often = lived(directed(Surprise, **{**ALONE, "max_idle_steps": 3}), quiet)
    assert modes(often) == [2] * 5 + [1, 1, 2] * 3
    assert often[-1].reason == ("thinks: has not for 3 steps",)


def test_alertness_is_entered_at_one_level_and_left_at_a_lower_one() -> None:
    """Between the levels nothing changes, whichever way it is."""
    usual, between = [0.0, *[0.1, 0.12] * 6], 0.1275
    settings = {**ALONE, "enter_std": 2.0, "exit_std": 1.0, "min_dwell_steps": 0}
    calm = lived(directed(Surprise, **settings), [*usual, between, between, 0.1])
    assert modes(calm)[-3:] == [1, 1, 1]
    # The shock itself widens what is usual: 0.2 is then within two deviations, not within one.
    alert = lived(directed(Surprise, **settings), [*usual, 0.3, 0.2, 0.19, 0.1, 0.2])
    assert modes(alert)[-5:] == [2, 2, 2, 1, 1]
    assert alert[-4].reason[0].startswith("thinks: still alert, surprise 0.2")
    new = lived(
        directed(Surprise, **settings),
        [0.1] * 15,
        novelty=[*[0.0] * 10, 0.6, 0.45, 0.42, 0.3, 0.45],
    )
    assert modes(new)[-5:] == [2, 2, 2, 1, 1]
    with pytest.raises(ValidationError, match="alertness ends at the lower threshold"):
        Surprise.Config.model_validate({"exit_std": 3.0})


def test_alertness_makes_a_plan_under_way_anew() -> None:
    configurator = directed(Surprise, **{**ALONE, "min_dwell_steps": 0})
    before = lived(configurator, [0.0, *[0.1, 0.12] * 6])[-1]
    heard = situation(before, [0.9], [13])
    plan = heard.previous.plan.replace(remaining_commit=torch.tensor([5]))
    said = configurator.configure(heard.replace(previous=heard.previous.replace(plan=plan)))
    # An actor makes anew what promised more steps than this allows.
    assert said.commit_steps.tolist() == [5]
    assert said.mode.tolist() == [2]


def test_all_it_knows_is_in_the_directive() -> None:
    """A fork goes on alike in another configurator, and a new episode begins anew."""
    first = lived(directed(Surprise, **ALONE), [0.0, *[0.1, 0.12] * 6])
    on = [0.9, 0.1, 0.1, 0.3, 0.1]
    one = lived(directed(Surprise, **ALONE), [0.0, *[0.1, 0.12] * 6, *on])[-len(on) :]
    forked = directed(Surprise, **ALONE)
    before = first[-1]
    for age, (surprise, wanted) in enumerate(zip(on, one, strict=True)):
        before = forked.configure(situation(before, [surprise], [13 + age]))
        assert before.to_bytes() == wanted.to_bytes()
    again = forked.configure(situation(forked.initial(1), [0.0], [0]))
    assert again.to_bytes() == first[0].to_bytes()


def test_rows_are_judged_by_themselves() -> None:
    configurator = directed(Surprise, **ALONE)
    draw = torch.Generator().manual_seed(0)
    surprises = torch.rand(30, 3, generator=draw)
    together = [configurator.initial(3)]
    for age in range(30):
        together.append(
            configurator.configure(
                situation(together[-1], surprises[age].tolist(), [age, age, max(0, age - 10)])
            )
        )
    alone = lived(configurator, surprises[:, 1].tolist())
    assert len(set(modes(alone))) == 2
    for mine, theirs in zip(alone, together[1:], strict=True):
        assert mine.to_bytes() == theirs.select(torch.tensor([1])).to_bytes()


def spending(
    configurator: Any, surprises: torch.Tensor, share: torch.Tensor, stake: torch.Tensor
) -> tuple[list[Directive], list[int]]:
    """An episode of one row whose plans cost a share of what they may; directives and calls."""
    heard = situation(configurator.initial(1), [0.0], [0])
    said, costs, remaining_commit, spent = list[Directive](), list[int](), 0, 0
    for age in range(len(surprises)):
        directive = configurator.configure(
            heard.replace(
                surprise=surprises[age : age + 1], episode_step=torch.tensor([age]),
                episode_model_calls=torch.tensor([spent]), rng_key=torch.tensor([1000 + age]),
            )
        )  # fmt: skip
        mode, calls = int(directive.mode), int(directive.model_calls)
        holds = mode == 2 and 0 < remaining_commit < int(directive.commit_steps)
        thinks = mode == 2 and not holds and calls > 0
        cost = max(1, int(calls * share[age])) if thinks else 0
        remaining_commit = (
            remaining_commit - 1 if holds else int(directive.commit_steps) - 1 if thinks else 0
        )
        plan = heard.previous.plan.replace(
            remaining_commit=torch.tensor([remaining_commit]), model_calls=torch.tensor([cost]),
            mode=torch.tensor([mode]), energy=-stake[age : age + 1],
        )  # fmt: skip
        heard = heard.replace(previous=heard.previous.replace(directive=directive, plan=plan))
        said.append(directive)
        costs.append(cost)
        spent += cost
    return said, costs


@given(
    budget=st.integers(0, 4000), calls=st.integers(0, 300), expected=st.integers(1, 150),
    longest=st.integers(1, 20), seed=st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_a_budget_is_never_overspent(
    budget: int, calls: int, expected: int, longest: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    configurator = directed(Budgeted,
        model_calls_per_episode=budget, episode_steps=expected, max_commit_steps=longest,
        model_calls=calls, **FACTS,
    )  # fmt: skip
    luck = torch.rand(3, 60, generator=draw)
    said, costs = spending(configurator, luck[0] ** 4 * 2, luck[1], luck[2] * 10)
    assert sum(costs) <= budget
    left = budget
    for directive, cost in zip(said, costs, strict=True):
        assert int(directive.model_calls) <= min(calls, left)
        left -= cost


def test_a_budget_is_paced_and_spent() -> None:
    still, whole = torch.full((200,), 0.1), torch.ones(200)
    for budget in (2_000, 10_000, 19_000):
        said, costs = spending(
            directed(Budgeted, model_calls_per_episode=budget, episode_steps=200, model_calls=100,
            **FACTS),
            still, whole, whole,
        )  # fmt: skip
        assert 0.9 * budget <= sum(costs) <= budget
        half = sum(costs[:100]) / sum(costs)
        assert 0.4 < half < 0.6
        # Plans last from one thought to the next, so that nothing is done without one.
        lasted = sum(int(d.mode) == 2 for d in said)
        assert lasted >= (190 if budget > 2_000 else 150)


def test_a_budget_goes_where_it_is_expected_to_gain() -> None:
    shocks = torch.full((200,), 0.1)
    shocks[60::20] = 1.5
    whole = torch.ones(200)
    spender = directed(
        Budgeted, model_calls_per_episode=2_500, episode_steps=200, model_calls=100, **FACTS
    )
    said, costs = spending(spender, shocks, whole, whole)
    near = sum(c > 0 for age, c in enumerate(costs) if age >= 60 and age % 20 in (0, 1))
    far = sum(c > 0 for age, c in enumerate(costs) if age >= 60 and age % 20 in (10, 11))
    assert near > far
    # In these words: version 0.1 recorded them, and a fork compares what was recorded.
    assert "(stake ×1, alarm ×5)" in said[60].reason[0]


def test_random_thoughts_come_at_the_rate_whatever_happens() -> None:
    luck, whole = torch.rand(800, generator=torch.Generator().manual_seed(0)), torch.ones(800)
    for rate in (0.05, 0.3):
        random = directed(RandomRate, rate=rate, commit_steps=4, model_calls=10, **FACTS)
        said, costs = spending(random, luck, whole, whole)
        thoughts = torch.tensor(costs) > 0
        assert abs(float(thoughts.float().mean()) - rate) < 0.04
        # A plan is carried out until the next thought, for 4 steps at most.
        gaps = thoughts.nonzero().flatten().diff()
        acting = sum(int(d.mode) == 1 for d in said[int(thoughts.nonzero()[0]) :])
        idle = (gaps - 4).clamp_min(0).sum() + max(0, 800 - int(thoughts.nonzero()[-1]) - 4)
        assert acting == int(idle)
    assert sum(spending(directed(RandomRate, rate=0.0, **FACTS), luck[:50], whole, whole)[1]) == 0
    always = directed(RandomRate, rate=1.0, model_calls=10, **FACTS)
    assert min(spending(always, luck[:50], whole, whole)[1]) > 0
    matched = directed(
        RandomRate, model_calls_per_episode=500, episode_steps=100, model_calls=50, **FACTS
    )
    assert matched.rate == 0.1


def test_a_thought_by_chance_is_as_likely_at_every_step_from_the_first_on() -> None:
    rate, rows = 0.125, 6000
    random = directed(RandomRate, rate=rate, **FACTS)
    directive, shares = random.initial(rows), []
    plan = bench.moment(1, 1).plan.select(torch.zeros(rows, dtype=torch.int64))
    heard = situation(directive, [0.0] * rows, [0] * rows)
    for age in range(6):
        heard = heard.replace(
            episode_step=torch.full((rows,), age), rng_key=chance.keys(0, rows, age),
            previous=heard.previous.replace(directive=directive, plan=plan),
        )  # fmt: skip
        directive = random.configure(heard)
        # Nothing is committed here, so a row thinks where a thought begins.
        shares.append(float((directive.mode == 2).float().mean()))
    assert shares == pytest.approx([rate] * 6, abs=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "learned", "commit_steps": 3, "horizon_steps": 12},
        # Its price is about 3 steps.
        {
            "kind": "budgeted",
            "horizon_steps": 12,
            "model_calls_per_episode": 3200,
            "episode_steps": 400,
        },
    ],
)
def test_a_plan_made_anew_by_a_surprise_lasts_as_any_other(settings: dict[str, Any]) -> None:
    """The actor makes it of itself: the configurator had a plan under way in mind."""
    own = settings.keys() & {"kind", "model_calls_per_episode", "episode_steps"}
    tree = {
        "world": {"id": "CartPole-v1"}, "world_model": {"kind": "persistence"},
        "memory": {"capacity": 1000}, "actor": {"replan_threshold": 0},
        "configurator": {name: settings[name] for name in own},
        "directive": {"model_calls": 24, **{n: v for n, v in settings.items() if n not in own}},
    }  # fmt: skip
    assembly = assemble(tree, known_kinds())
    moments = list(live(assembly.agent, assembly.world, 40, 3))
    assembly.world.close()
    own = [m for m in moments if int(m.plan.model_calls) and "under way" in m.directive.reason[0]]
    assert len(own) > 5
    assert all(0 < int(m.plan.remaining_commit) < 5 for m in own)


@pytest.mark.parametrize("kind", [Budgeted, Learned])
def test_a_plan_under_way_stands_where_it_is_not_made_anew(kind: Any) -> None:
    own = {"model_calls_per_episode": 1} if kind is Budgeted else {}
    configurator = directed(kind, **own, **FACTS)
    heard = situation(configurator.initial(3), [0.0] * 3, [5] * 3)
    left = torch.tensor([1, 7, 40])
    plan = heard.previous.plan.replace(remaining_commit=left)
    said = configurator.configure(heard.replace(previous=heard.previous.replace(plan=plan)))
    assert said.mode.tolist() == [2] * 3
    assert (said.commit_steps > left).all()


def test_the_pause_of_a_budget_begins_with_what_was_thought_not_with_what_was_bought() -> None:
    spender = directed(Budgeted, **FACTS)
    heard = situation(spender.initial(1), [0.0], [0])
    bought = spender.configure(heard)
    assert bought.reason[0].startswith("thinks: an episode begins")
    for calls, wanted in ((0, 2), (5, 1)):
        plan = heard.previous.plan.replace(model_calls=torch.tensor([calls]))
        after = heard.replace(
            episode_step=torch.tensor([1]),
            previous=heard.previous.replace(directive=bought, plan=plan),
        )
        # Whether by purchase or by surprise, or not at all: prevented by an intervention.
        assert spender.configure(after).configurator_state[0, 5] == wanted


def test_an_untaught_network_does_what_fixed_does() -> None:
    luck, whole = torch.rand(60, generator=torch.Generator().manual_seed(0)), torch.ones(60)
    said, costs = spending(
        directed(Learned, model_calls=30, commit_steps=5, **FACTS), luck, whole, luck
    )
    _, fixed = spending(
        directed(Fixed, mode=2, model_calls=30, commit_steps=5, **FACTS), luck, whole, luck
    )
    assert costs == fixed
    assert said[0].reason == ("thinks: probability 0.88, 5 steps of it, 30 calls at most",)
    taught = directed(Learned, model_calls=30, commit_steps=5, **FACTS)
    taught.weights["heads.bias"][0] = -9.0
    said, costs = spending(taught, luck, whole, luck)
    assert sum(costs) == 0
    assert said[0].reason[0].startswith("acts: probability of thinking 0.00")
    taught.weights["heads.bias"][:] = torch.tensor([0.0, 9.0, 9.0, -9.0])
    said, costs = spending(taught, luck, whole, luck)
    assert min(costs) == 8  # anew at every step, with a quarter of the calls
    vector = taught.vector
    taught.vector = vector
    assert torch.equal(taught.vector, vector)


def test_a_hand_steers_and_every_change_is_told() -> None:
    manual = directed(Manual, mode=2, **FACTS)
    heard = situation(manual.initial(2), [0.0, 0.0], [3, 4])
    calm = manual.configure(heard)
    assert calm.reason == ("thinks: always, as set",) * 2
    assert manual.set(mode=1, u={"pain": 3.0}) == "mode 2 → 1, u.pain 1 → 3"
    told = manual.configure(heard)
    assert told.reason[0] == "acts: by hand, mode 2 → 1, u.pain 1 → 3"
    assert told.mode.tolist() == [1, 1]
    assert told.u[:, 1].tolist() == [3, 3]
    after = manual.configure(heard.replace(previous=heard.previous.replace(directive=told)))
    assert after.reason == ("acts: as set by hand",) * 2
    # Two changes within one step are both told.
    manual.press("2")
    manual.press(">")
    both = manual.configure(heard.replace(previous=heard.previous.replace(directive=after)))
    assert both.reason[0] == "thinks: by hand, mode 1 → 2 (key 2); u.score 1 → 2 (key >)"
    manual.set(mode=1, u={"score": 1.0})
    told = manual.configure(heard)
    for wrong, complaint in (
        ({"mode": 3}, "mode: 3 is not"), ({"mdoe": 1}, "Did you mean 'mode'"),
        ({"u": {"scroe": 1.0}}, "Did you mean 'score'"), ({"horizon_steps": 65}, "at most 64"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=complaint):
            manual.set(**wrong)
    assert manual.configure(heard).to_bytes() == told.to_bytes()


def test_keys_change_mode_weights_and_horizon() -> None:
    manual = directed(Manual, mode=2, **FACTS)
    pressed = {"1": "mode 2 → 1", "m": "mode 1 → 2", "+": "horizon steps 48 → 64",
               "-": "horizon steps 64 → 32", ">": "u.score 1 → 2", "<": "u.score 2 → 1",
               "c": "commit steps 8 → 16", "x": "commit steps 16 → 8"}  # fmt: skip
    for key, told in pressed.items():
        assert manual.press(key) == told
    assert manual.press("u") == "picked pain"
    assert manual.press(">") == "u.pain 1 → 2"
    assert manual.press("r") == "u.pain 2 → 1, horizon steps 32 → 48"
    assert manual.press("r") == "nothing changed"
    assert manual.press("?") is None
    assert manual.status == "Mode-2, 48 ahead, 8 at a time, pain ×1"
    for key in KEYS:
        assert manual.press(key)


def test_a_hand_may_come_from_any_thread() -> None:
    manual = directed(Manual, mode=2, **FACTS)
    heard = situation(manual.initial(1), [0.0], [3])
    threads = [
        threading.Thread(target=lambda: [manual.press(k) for k in "m><+-" * 20]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        said = manual.configure(heard)
        assert said.reason[0].startswith({1: "acts", 2: "thinks"}[int(said.mode)])
    for thread in threads:
        thread.join()
    # Nothing was lost: so many presses of `m` came back to where it began.
    assert manual.configure(heard).mode.tolist() == [2]
