import pytest
import torch
from analytic import directive, imagine, linear_quadratic, maze, situation, spec

from agent.imagination import Imagination, PlanCost
from modules.actor.actor import Actor
from modules.actor.beam import Beam
from modules.actor.gradient import Gradient
from modules.actor.policy import Categorical, Gaussian, Greedy
from modules.actor.rollout import Rollout
from modules.messages import ConfigError, Experience, Plan
from modules.ports import Batch, encoded_states

LEARNING_KEY = torch.tensor([7])

WORLD, FORCE = spec(True, 3), spec(False, 2)
SHAPE = {"latent_size": 1, "token_shape": (1, 1)}


def categorical(**settings):
    return Categorical(config=Categorical.Config(width=16, **settings), world=WORLD, **SHAPE)


def make(horizon_max=10, **settings):
    return Actor(
        config=Actor.Config(**settings),
        policy=categorical(),
        planner=beam(),
        world=WORLD,
        horizon_max=horizon_max,
    )


def beam():
    settings = Beam.Config(action_repeat=1, search_fraction=0.5, refine_samples=2)
    return Beam(config=settings, world=WORLD)


def greedy(**settings):
    return Greedy(config=Greedy.Config(**settings), world=WORLD)


def act(mind, rows, before=None, surprise=0.0, ended=None, seed=0, step=0, **orders):
    model, cost = maze(0)
    model.ended = None
    orders = directive(rows, **orders)
    latent = torch.arange(rows).float().unsqueeze(-1)
    moment = situation(
        latent,
        mind.initial(rows) if before is None else before,
        orders,
        seed=seed,
        step=step,
        surprise=surprise,
        ended=ended,
    )
    imagination = Imagination(
        model,
        cost,
        moment,
        orders,
        PlanCost(0.95),
    )
    return mind.act(moment, imagination, orders), model


def test_rows_in_both_modes_are_served_together_and_none_spends_too_much():
    mind = make()
    plan, model = act(
        mind, 5, mode=[1, 2, 2, 1, 2], horizon=[4, 4, 9, 9, 4], calls=[99, 50, 200, 0, 50]
    )
    assert plan.mode.tolist() == [1, 2, 2, 1, 2]
    assert plan.steps.tolist() == [1, 4, 9, 1, 4]
    assert plan.model_calls[[0, 3]].tolist() == [0, 0]
    assert bool((plan.model_calls <= torch.tensor([0, 50, 200, 0, 50])).all())
    assert bool((plan.model_calls[[1, 2, 4]] > 20).all())
    assert int(plan.model_calls.sum()) == model.calls
    for row, steps in enumerate(plan.steps.tolist()):
        assert bool((plan.actions[row, :steps].sum(-1) == 1).all())
        assert bool((plan.actions[row, steps:] == 0).all())
    assert plan.candidate_energies.isfinite().any(-1).tolist() == [False, True, True, False, True]


def shapes_of(plan: Plan) -> dict[str, torch.Size | None]:
    return {name: None if value is None else value.shape for name, value in plan.tensors()}


def test_every_plan_has_the_shapes_of_the_neutral_one():
    mind = make()
    shapes = shapes_of(mind.initial(3))
    for mode in ([1, 1, 1], [2, 1, 2], [2, 2, 2]):
        plan, _ = act(mind, 3, mode=mode, horizon=[2, 5, 30], calls=[1, 40, 300])
        assert shapes_of(plan) == shapes


def test_a_commitment_is_carried_out_without_thinking_and_ends():
    mind = make()
    first, _ = act(mind, 2, horizon=6, calls=120, commit=3)
    assert first.remaining_commit.tolist() == [2, 2]
    second, model = act(mind, 2, before=first, step=1, horizon=6, calls=120, commit=3)
    assert model.calls == 0
    assert second.model_calls.tolist() == [0, 0]
    assert second.mode.tolist() == [2, 2]
    assert second.remaining_commit.tolist() == [1, 1]
    assert second.steps.tolist() == [5, 5]
    torch.testing.assert_close(second.actions[:, :5], first.actions[:, 1:6])
    third, _ = act(mind, 2, before=second, step=2, horizon=6, calls=120, commit=3)
    assert third.remaining_commit.tolist() == [0, 0]
    fourth, model = act(mind, 2, before=third, step=3, horizon=6, calls=120, commit=3)
    assert model.calls > 0
    assert fourth.remaining_commit.tolist() == [2, 2]


def test_rows_whose_budgets_allow_the_same_search_are_planned_for_together():
    """As under `learned` and `budgeted`, where hardly two rows have the same budget."""
    mind = make()
    mind.planner = Rollout(config=Rollout.Config(), world=WORLD)
    plan, searches = mind.planner.plan, []
    mind.planner.plan = lambda part, *rest: (
        searches.append(part.situation.batch),
        plan(part, *rest),
    )[1]
    budgets = [18, 19, 20, 25, 7, 12]  # 3 actions × 6 steps, then × 3 steps, 2 × 6 steps
    together, model = act(mind, 6, horizon=6, calls=budgets)
    assert searches == [4, 1, 1]
    assert together.model_calls.tolist() == [18, 18, 18, 18, 6, 12]
    assert model.calls == sum(together.model_calls.tolist())
    assert together.steps.tolist() == [6, 6, 6, 6, 3, 6]
    alone, _ = act(mind, 6, horizon=6, calls=18)
    assert together.actions[:4].equal(alone.actions[:4])
    assert together.energy[:4].equal(alone.energy[:4])


def test_surprise_ends_a_commitment():
    mind = make(replan_threshold=0.5)
    first, _ = act(mind, 2, horizon=6, calls=120, commit=3)
    calm, _ = act(mind, 2, before=first, step=1, surprise=0.5, horizon=6, calls=120, commit=3)
    shaken, _ = act(mind, 2, before=first, step=1, surprise=0.6, horizon=6, calls=120, commit=3)
    assert calm.model_calls.tolist() == [0, 0]
    assert bool((shaken.model_calls > 0).all())


def test_a_row_whose_episode_is_over_spends_nothing():
    plan, model = act(make(), 2, ended=torch.ones(2), horizon=6, calls=120)
    assert model.calls == 0
    assert plan.mode.tolist() == [1, 1]


def test_the_rest_of_the_last_plan_is_where_the_next_begins():
    mind = make()
    seen = []
    plan = mind.planner.plan

    def watch(imagination, proposals, key, budget):
        seen.append(proposals)
        return plan(imagination, proposals, key, budget)

    mind.planner.plan = watch
    first, _ = act(mind, 2, horizon=6, calls=120)
    act(mind, 2, before=first, step=1, horizon=8, calls=120)
    rest = seen[1][:, 0]
    torch.testing.assert_close(rest[:, :5], first.actions[:, 1:6])
    torch.testing.assert_close(rest[:, 5:], first.actions[:, 5:6].expand(-1, 3, -1))
    # With no plan before, both proposals are the policy's action, held.
    torch.testing.assert_close(seen[0][:, 0], seen[0][:, 1])


def test_the_same_key_gives_the_same_plan_and_another_another():
    mind = make()
    one, _ = act(mind, 3, horizon=8, calls=60, seed=3)
    two, _ = act(mind, 3, horizon=8, calls=60, seed=3)
    assert bool((one.actions == two.actions).all())
    kinds = {tuple(act(mind, 3, mode=1, seed=s)[0].action.argmax(-1).tolist()) for s in range(10)}
    assert len(kinds) > 3


def test_an_actor_plans_continuous_actions():
    model, cost = linear_quadratic()
    world = spec(False, 1)
    settings = Gaussian.Config(width=8, noise=0.1)
    policy = Gaussian(config=settings, world=world, latent_size=3, token_shape=(1, 1))
    planner = Gradient(config=Gradient.Config(num_restarts=2, iterations=20), world=world)
    mind = Actor(
        config=Actor.Config(num_logged_candidates=2),
        policy=policy,
        planner=planner,
        world=world,
        horizon_max=6,
    )
    moment, imagination, orders = imagine(
        model, cost, torch.tensor([[1.0, 0, 0]]), world, mind, horizon=6, calls=240
    )
    with torch.no_grad():  # as the loop does
        plan = mind.act(moment, imagination, orders)
    assert float(plan.action) < -0.8, "a mass to the right is pushed left"
    assert 200 < int(plan.model_calls) <= 240


# -- policies -------------------------------------------------------------------------------


def shares(policy, rows, **given):
    orders = directive(rows)
    mind = make()
    moment = situation(torch.zeros(rows, 1), mind.initial(rows), orders, **given)
    actions = policy.act(moment, orders)
    assert bool((actions.sum(-1) == 1).all())
    return actions.mean(0)


def test_a_fresh_categorical_policy_is_uniform():
    policy = categorical()
    assert bool((policy.logits(torch.randn(5, 1)) == 0).all())
    torch.testing.assert_close(shares(policy, 3000), torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_a_categorical_policy_draws_from_its_softmax():
    policy = categorical()
    with torch.no_grad():
        policy.network.last.bias.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
    drawn = shares(policy, 3000)
    torch.testing.assert_close(drawn, torch.tensor([0.7, 0.2, 0.1]), atol=0.03, rtol=0)


def test_distillation_brings_policies_to_their_targets():
    torch.manual_seed(0)
    latent = torch.tensor([[-1.0], [1.0]])
    wide = Gaussian(config=Gaussian.Config(width=16, noise=0.1), world=FORCE, **SHAPE)
    for policy, target in (
        (categorical(), torch.eye(3)[:2]),
        (wide, torch.tensor([[0.5, -0.5], [-0.3, 0.9]])),
    ):
        assert policy.divergence(latent, target).shape == (2,)
        optimiser = torch.optim.Adam(policy.parameters(), 0.03)
        for _ in range(150):
            optimiser.zero_grad()
            policy.divergence(latent, target).sum().backward()
            optimiser.step()
        with torch.no_grad():
            assert float(policy.divergence(latent, target).max()) < 0.02
    torch.testing.assert_close(wide.mean(latent).detach(), target, atol=0.1, rtol=0)


def test_greedy_takes_the_least_energy_and_sometimes_any():
    heads = torch.tensor([[[0.5], [-1.0], [0.2]]]).expand(2000, -1, -1)
    drawn = shares(greedy(epsilon=0.0), 2000, critic_actions=heads)
    assert drawn.tolist() == [0, 1, 0]
    drawn = shares(greedy(epsilon=0.3), 2000, critic_actions=heads)
    torch.testing.assert_close(drawn, torch.tensor([0.1, 0.8, 0.1]), atol=0.03, rtol=0)
    fresh = shares(greedy(epsilon=0.0), 2000, critic_actions=heads * 0)
    torch.testing.assert_close(fresh, torch.full((3,), 1 / 3), atol=0.04, rtol=0)


def test_what_the_critic_does_not_tell_apart_goes_on():
    """A life of many rows: two equal actions last, a better one is taken at once."""
    rows, steps, persistence = 300, 200, 0.9
    policy = greedy(epsilon=0.0, repeat_prob=persistence)
    mind, orders = make(), directive(rows)

    def walk(critic_actions):
        plan, taken = mind.initial(rows), []
        for step in range(steps):
            now = situation(
                torch.zeros(rows, 1), plan, orders, step=step, critic_actions=critic_actions
            )
            action = policy.act(now, orders)
            plan = plan.replace(actions=action.unsqueeze(1).expand_as(plan.actions))
            taken.append(action.argmax(-1))
        return torch.stack(taken, 1)

    for heads, equals in (([0.5, -1.0, -1.0], 2), ([0.0, 0.0, 0.0], 3), ([0.5, -1.0, 0.2], 1)):
        taken = walk(torch.tensor(heads).view(1, 3, 1).expand(rows, -1, -1))
        assert len(taken.unique()) == equals
        again = float((taken[:, 1:] == taken[:, :-1]).float().mean())
        # Or chosen anew, and by chance the same.
        assert again == pytest.approx(persistence + (1 - persistence) / equals, abs=0.01)
        assert float((taken == 1).float().mean()) == pytest.approx(1 / equals, abs=0.04)
    assert len(walk(None)[:, 0].unique()) == 3  # an episode begins with any


def test_policies_refuse_actions_that_are_not_their_own():
    with pytest.raises(ConfigError, match="categorical"):
        Categorical(config=Categorical.Config(), world=FORCE, **SHAPE)
    with pytest.raises(ConfigError, match="gaussian"):
        Gaussian(config=Gaussian.Config(), world=WORLD, **SHAPE)
    with pytest.raises(ConfigError, match="greedy"):
        Greedy(config=Greedy.Config(), world=FORCE)


def lived(latents, actions, planned, tokens=None):
    """Experience of two steps a window: what was seen, done, and whether Mode-2 chose it."""
    rows = len(latents)
    no = torch.zeros(rows, 2, dtype=torch.bool)
    return Experience(
        frames=None,
        vectors=torch.stack([latents, latents], 1),
        actions=torch.stack([actions, actions], 1),
        signals=torch.zeros(rows, 2, 6),
        mode2_mask=torch.stack([planned, planned], 1),
        tokens=tokens,
        terminated=no,
        truncated=no,
        mask=~no,
        importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    )


def test_the_policy_comes_to_do_what_was_planned_and_nothing_else_teaches_it():
    torch.manual_seed(0)
    mind = make()
    latents = torch.linspace(-1, 1, 32).unsqueeze(-1).requires_grad_()
    # Mode-2 went left of 0 and right of it; Mode-1, half of the time, always took the third.
    best = torch.where(latents[:, 0] < 0, 0, 1)
    planned = torch.arange(32) % 2 == 0
    done = torch.nn.functional.one_hot(torch.where(planned, best, 2), 3).float()
    experience = lived(latents.detach(), done, planned)
    states = encoded_states(experience, latents.unsqueeze(1))
    descent = torch.optim.Adam(mind.parameters(), lr=0.05)
    for _ in range(200):
        descent.zero_grad()
        losses, priorities = mind.losses(Batch(experience, states, []), LEARNING_KEY)
        losses["distillation"].backward()
        descent.step()
    assert priorities is None
    assert latents.grad is None
    chosen = mind.policy.logits(latents).argmax(-1)
    assert torch.equal(chosen[planned], best[planned])
    assert int((chosen == best).sum()) >= 30
    by_hand = mind.policy.divergence(latents[planned], done[planned]).mean()
    torch.testing.assert_close(
        mind.losses(Batch(experience, states, []), LEARNING_KEY)[0]["distillation"], by_hand
    )
    never = lived(latents.detach(), done, torch.zeros(32, dtype=torch.bool))
    assert float(mind.losses(Batch(never, states, []), LEARNING_KEY)[0]["distillation"]) == 0


def walks(seed, rows=64, steps=6):
    """Random steps of ±1 or 0 in each of two directions: latents [B W 2] and actions [B W 2]."""
    draw = torch.Generator().manual_seed(seed)
    actions = torch.randint(-1, 2, (rows, steps, 2), generator=draw).float()
    start = torch.randint(-5, 6, (rows, 1, 2), generator=draw).float()
    return torch.cat([start, start + actions[:, :-1].cumsum(1)], 1), actions


def test_a_policy_that_reads_the_goal_goes_towards_it_by_hindsight():
    torch.manual_seed(0)
    world = FORCE.model_copy(update={"goal": 2})
    settings = Gaussian.Config(width=32, noise=0, hindsight_steps=4)
    policy = Gaussian(config=settings, world=world, latent_size=2, token_shape=(0, 0))
    mind = Actor(config=Actor.Config(), policy=policy, planner=None, world=world, horizon_max=10)
    descent = torch.optim.Adam(mind.parameters(), lr=0.01)
    for seed in range(150):
        latents, actions = walks(seed)
        no = torch.zeros(latents.shape[:2], dtype=torch.bool)
        experience = Experience(
            frames=None, goals=None, vectors=latents, actions=actions, tokens=None,
            signals=torch.zeros(*no.shape, 6), terminated=no, truncated=no, mask=~no,
            importance_weights=torch.ones(len(no)), indices=torch.arange(len(no)),
        )  # fmt: skip
        states = encoded_states(experience, latents)
        descent.zero_grad()
        mind.losses(Batch(experience, states, states), LEARNING_KEY)[0]["hindsight"].backward()
        descent.step()
    assert mind.window_steps() == 6
    places = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 3.0]])
    goals = torch.tensor([[2.0, 0.0], [0.0, -2.0], [3.0, 5.0]])
    towards = policy.mean(torch.cat([places, goals], 1)).detach()
    expected = (goals - places) / 2
    assert float((towards * expected).sum(1).min()) > 0.3
    assert float((towards * (1 - expected.abs())).abs().max()) < 0.3


def test_a_policy_reads_only_goals_that_are_latents():
    settings = Gaussian.Config(hindsight_steps=4)
    with pytest.raises(ConfigError, match=r"a picture or has 1 numbers, .* has none; try 0"):
        Gaussian(config=settings, world=FORCE, **SHAPE)


def test_a_policy_follows_under_the_directive_it_acted_by():
    """Which primed the percept of the next step."""
    torch.manual_seed(0)
    mind, heard = make(), []
    divergence = mind.policy.divergence
    mind.policy.divergence = lambda latent, target, tokens: (
        heard.append(tokens),
        divergence(latent, target, tokens),
    )[1]
    tokens = torch.randn(6, 2, 1, 1)
    planned = torch.tensor([True, False, True, True, False, True])
    experience = lived(torch.randn(6, 1), torch.eye(3).repeat(2, 1), planned, tokens)
    over = experience.mask.clone()
    over[3, 1] = False  # what was planned for there is not known
    state = encoded_states(experience, experience.vectors[:, :1])
    mind.losses(Batch(experience.replace(mask=over), state, []), LEARNING_KEY)
    (said,) = heard
    assert said.equal(tokens[[0, 2, 5], 1])


def test_a_policy_with_nothing_to_learn_has_no_loss():
    mind = Actor(config=Actor.Config(), policy=greedy(), planner=beam(), world=WORLD, horizon_max=4)
    one = lived(torch.zeros(1, 1), torch.eye(3)[:1], torch.ones(1, dtype=torch.bool))
    assert mind.losses(Batch(one, encoded_states(one, torch.zeros(1, 1, 1)), []), LEARNING_KEY) == (
        {},
        None,
    )
