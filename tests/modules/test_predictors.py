"""Predictors: what each computes, what it carries, and that each learns a real world."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from test_jepa import (
    ACTION,
    LATENT,
    LEARNING_KEY,
    TOKENS,
    WORLD,
    cart_pole,
    state,
    states_of,
    windows,
)
from torch import Tensor, nn

from agent.assembly.build import assemble, known_kinds
from agent.bench.memory import moment
from agent.live import live
from modules.messages import (
    SIGNALS,
    ActionSpec,
    ConfigError,
    Experience,
    MessageError,
    Moment,
    State,
)
from modules.nets.mlp import ResidualMLP
from modules.objectives.none import Unregularised
from modules.perception.vectors import Vectors
from modules.ports import Batch
from modules.world_model.jepa import JEPA
from modules.world_model.predictors.conv import ConvPredictor
from modules.world_model.predictors.gru import GRUPredictor
from modules.world_model.predictors.linear import LinearPredictor
from modules.world_model.predictors.mlp import MLPPredictor
from modules.world_model.predictors.predictor import Predictor, PredictorSize
from modules.world_model.predictors.transformer import TransformerPredictor

STATE_SIZE = 7
PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "mlp": MLPPredictor,
    "gru": lambda: GRUPredictor(config=GRUPredictor.Config(state_size=STATE_SIZE)),
    "conv": lambda: ConvPredictor(config=ConvPredictor.Config(grid_height=2, grid_width=2)),
    "transformer": lambda: TransformerPredictor(
        config=TransformerPredictor.Config(patch_size=5, attention_heads=2)
    ),
    "linear": LinearPredictor,
}
SIZE = PredictorSize(latent=LATENT, action=ACTION, width=16, blocks=2, token_shape=TOKENS)

every_predictor = pytest.mark.parametrize("kind", PREDICTORS)


def jepa(kind: str, ensemble_size: int = 1, fresh: bool = False) -> JEPA:
    """A model; unless `fresh`, its weights and statistics are random."""
    torch.manual_seed(0)
    model = JEPA(
        config=JEPA.Config(width=16, ensemble_size=ensemble_size),
        world=WORLD,
        latent_size=LATENT,
        token_shape=TOKENS,
        objective=Unregularised(),
        predictor=PREDICTORS[kind](),
    )
    if not fresh:
        shaken(model)
        model.latent_stats.update(torch.randn(50, LATENT) * 2 + 1)
        model.delta_stats.update(torch.randn(50, LATENT) * 0.3)
        model.signal_stats.update(torch.randn(50, len(SIGNALS)))
    return model


def shaken(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)


def network(kind: str, **sizes: int) -> nn.Module:
    """The network of a predictor, with random weights."""
    torch.manual_seed(0)
    built = PREDICTORS[kind]().network(SIZE._replace(**sizes))
    assert isinstance(built, nn.Module)
    shaken(built)
    return built


def begun(kind: str, rows: int) -> State:
    """States as `start` returns them, with random tokens and a random recurrent state."""
    carried = STATE_SIZE if kind == "gru" else 0
    return state(rows, torch.randn(rows, TOKENS[0] * TOKENS[1] + carried))


# -- what all promise -------------------------------------------------------------------------


@every_predictor
@pytest.mark.parametrize("ensemble", [1, 3])
def test_a_fresh_predictor_expects_no_change(kind: str, ensemble: int) -> None:
    model, before = jepa(kind, ensemble, fresh=True), begun(kind, 5)
    after = model.step(before, torch.randn(5, ACTION))
    torch.testing.assert_close(after.latent, before.latent, rtol=0, atol=1e-5)
    assert bool((after.uncertainty > 0).all()) == (ensemble > 1)


@every_predictor
def test_gradients_reach_every_action_latent_and_token(kind: str) -> None:
    model, before = jepa(kind, 3), begun(kind, 4)
    actions = torch.zeros(5, 4, ACTION, requires_grad=True)  # a gradient planner may begin at 0
    latent = before.latent.requires_grad_()
    hidden = before.hidden.requires_grad_()
    now = State.unchecked(**{**before.__dict__, "latent": latent, "hidden": hidden})
    for action in actions:
        now = model.step(now, action)
    (now.latent.sum() + now.uncertainty.sum()).backward()  # type: ignore[no-untyped-call]
    for value in (actions, latent, hidden):
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()
        assert (value.grad.flatten(1).abs().amax(-1) > 0).all()


@every_predictor
def test_candidates_share_the_tokens_and_the_recurrent_state_of_their_row(kind: str) -> None:
    """M = B·N rows of latents and actions under B rows of tokens and recurrent states."""
    net, rows, candidates = network(kind), 3, 4
    latent, action = torch.randn(12, LATENT), torch.randn(12, ACTION)
    tokens, hidden = torch.randn(rows, *TOKENS), torch.randn(rows, net.hidden_size)
    index = torch.arange(rows).repeat_interleave(candidates)
    shared, carried = net(latent, action, tokens, hidden)
    alone, carried_alone = net(latent, action, tokens[index].flatten(1), hidden[index])
    torch.testing.assert_close(shared, alone)
    torch.testing.assert_close(carried, carried_alone)
    assert carried.shape == (12, net.hidden_size)


@every_predictor
def test_tokens_are_read_and_none_are_tokens_of_zero(kind: str) -> None:
    net = network(kind)
    latent, action = torch.randn(4, LATENT), torch.randn(4, ACTION)
    hidden = torch.zeros(4, net.hidden_size)
    without, _ = net(latent, action, None, hidden)
    zero, _ = net(latent, action, torch.zeros(4, *TOKENS), hidden)
    primed, _ = net(latent, action, torch.randn(4, *TOKENS), hidden)
    torch.testing.assert_close(without, zero)
    assert ((primed - zero).abs().amax(1) > 1e-3).all()


@every_predictor
def test_a_network_without_tokens_is_possible(kind: str) -> None:
    net = network(kind, token_shape=(0, 0))
    features, _ = net(
        torch.randn(2, LATENT), torch.randn(2, ACTION), None, torch.zeros(2, net.hidden_size)
    )
    assert torch.isfinite(net.readout(3)(features)).all()
    assert net.readout(3)(features).shape == (2, 3 * LATENT)


@every_predictor
def test_a_head_reads_its_own_rows_of_the_readout(kind: str) -> None:
    """Weights ordered by head, changes ordered by head: the noise of one head moves it alone."""
    net = network(kind)
    readout, rest = net.readout(3), torch.zeros(2, net.hidden_size)
    nn.init.zeros_(readout.weight)
    nn.init.zeros_(readout.bias)
    with torch.no_grad():
        readout.weight.view(3, -1, readout.in_features)[1] = 1
    features, _ = net(torch.randn(2, LATENT), torch.randn(2, ACTION), None, rest)
    moved = readout(features).view(2, 3, LATENT).abs().amax(-1) > 0
    assert moved.tolist() == [[False, True, False]] * 2


@every_predictor
def test_the_loss_is_that_of_a_rollout_from_a_recurrent_state_of_zero(kind: str) -> None:
    model, experience, latents = jepa(kind), windows(3, 6), torch.randn(3, 6, LATENT)
    terminated, mask = experience.terminated.clone(), experience.mask.clone()
    terminated[0, 2] = True
    mask[0, 3:] = False
    tokens = torch.randn(3, 6, *TOKENS)
    experience = experience.replace(terminated=terminated, mask=mask, tokens=tokens)
    losses, _ = model.losses(
        Batch(experience, states_of(latents), states_of(latents + 0.1)), LEARNING_KEY
    )
    unit = torch.maximum(
        (model.latent_stats.deviation() * model.delta_stats.magnitude()).sqrt(),
        model.error_stats.magnitude(),
    )
    errors = []
    for row, steps in enumerate([2, 5, 5]):
        now, carried = states_of(latents)[0].select(torch.tensor([row])), torch.zeros(1, 0)
        if kind == "gru":
            carried = torch.zeros(1, STATE_SIZE)
        for t in range(steps):
            primed = tokens[row, t + 1].flatten()[None]
            now = model.step(
                now.replace(hidden=torch.cat([primed, carried], 1)),
                experience.actions[row, t][None],
            )
            carried = now.hidden[:, primed.shape[1] :]
            errors.append(((now.latent[0] - latents[row, t + 1] - 0.1) / unit).square().mean())
    assert len(errors) == 12
    assert losses["prediction"].item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)


# -- mlp --------------------------------------------------------------------------------------


def test_the_mlp_is_the_residual_network_bit_for_bit() -> None:
    model = jepa("mlp", 3, fresh=True)
    torch.manual_seed(0)
    trunk, change = ResidualMLP(LATENT + ACTION, 16, 2, TOKENS), nn.Linear(16, 3 * LATENT)
    weights = model.state_dict()
    assert {n for n in weights if n.startswith("trunk.")} == {
        f"trunk.{name}" for name in trunk.state_dict()
    }
    for name, value in trunk.state_dict().items():
        assert value.equal(weights[f"trunk.{name}"])
    model = jepa("mlp", 3)
    for name, layer in (("trunk", trunk), ("change", change)):
        layer.load_state_dict(getattr(model, name).state_dict())
    before, action = begun("mlp", 4), torch.randn(4, ACTION)
    standard = (before.latent - model.latent_stats.centre) / model.latent_stats.deviation()
    features = trunk(torch.cat([standard, action], -1), before.hidden)
    mean = change(features).view(4, 3, LATENT).mean(1)
    after = model.step(before, action)
    assert after.latent.equal(before.latent + model.delta_stats.magnitude() * mean)
    assert after.hidden is before.hidden


def test_the_losses_of_the_mlp_are_those_of_before_there_were_predictors() -> None:
    """Numbers recorded before predictors were a choice (PyTorch 2, CPU)."""
    from test_jepa import jepa as recorded

    model = recorded(3)
    torch.manual_seed(6)
    experience, latents = windows(5, 6), torch.randn(5, 6, LATENT)
    losses, _ = model.losses(
        Batch(experience, states_of(latents), states_of(latents + 0.1)), LEARNING_KEY
    )
    for name, number in (("prediction", "1.06fdb8p+1"), ("signals", "1.26f762p-1"),
                         ("ended", "1.849b94p-1")):  # fmt: skip
        assert losses[name].item() == pytest.approx(float.fromhex(number), rel=1e-6)


# -- gru --------------------------------------------------------------------------------------


def carried_by(model: JEPA, now: Moment, hidden: Tensor) -> Tensor:
    """The recurrent state after a moment, from the one before, by the cell alone."""
    standard = (now.state.latent - model.latent_stats.centre) / model._latent_std()
    inputs = torch.cat([standard, model.with_factors(now.plan.action)], -1)
    after: Tensor = model.trunk.cell(inputs, hidden)  # type: ignore[attr-defined]
    return after


@pytest.fixture
def recurrent_run() -> Iterator[tuple[JEPA, list[Moment]]]:
    tree = {
        "world": {"id": "CartPole-v1", "num_envs": 3},
        "world_model": {"width": 16, "predictor": {"kind": "gru", "state_size": STATE_SIZE}},
        "configurator": {"kind": "fixed", "mode": 1},
    }
    assembly = assemble(tree, known_kinds())
    yield assembly.agent.modules.world_model, list(live(assembly.agent, assembly.world, 360, 0))
    assembly.world.close()


def test_the_recurrent_state_lasts_for_an_episode(
    recurrent_run: tuple[JEPA, list[Moment]],
) -> None:
    """Property of a run: after each step it is that of the cell, from 0 where an episode begins."""
    model, moments = recurrent_run
    hidden = torch.zeros(3, STATE_SIZE)
    firsts = torch.zeros(3)
    with torch.no_grad():
        for now in moments:
            first = now.observation.first
            firsts += first
            hidden = carried_by(model, now, torch.where(first[:, None], 0, hidden))
            torch.testing.assert_close(now.expected.hidden, hidden)
            # What follows an end is no step of an episode.
            hidden = torch.where(now.observation.ended[:, None], 0, hidden)
    assert (firsts >= 3).all()
    assert moments[5].expected.hidden.abs().max() > 1e-3


def test_a_start_takes_the_recurrent_state_of_the_step_before_and_a_step_hands_it_on() -> None:
    model, rows = jepa("gru"), 3
    blank = moment(rows, 0)
    hidden = torch.randn(rows, STATE_SIZE)
    before = blank.replace(expected=blank.expected.replace(hidden=hidden))
    situation = blank.situation(before, torch.arange(rows)).replace(state=state(rows))
    directive = blank.directive.model_copy(update={"tokens": torch.randn(rows, *TOKENS)})
    begin, action = model.start(situation, directive), torch.randn(rows, ACTION)
    assert begin.hidden.equal(torch.cat([directive.tokens.flatten(1), hidden], 1))
    once = model.step(begin, action)
    assert model.predict(situation, action, directive).hidden.equal(once.hidden[:, 6:])
    assert once.hidden[:, :6].equal(begin.hidden[:, :6])
    again = model.step(once.replace(latent=begin.latent), action)
    assert (again.latent - once.latent).abs().max() > 1e-3
    with pytest.raises(MessageError, match=r"expected\.hidden.*\[B 7\]"):
        model.start(blank.situation(blank, torch.arange(rows)), directive)


# -- conv -------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_cell_changes_by_its_neighbourhood_alone(blocks: int) -> None:
    side, channels = 7, 3
    size = SIZE._replace(latent=channels * side * side, blocks=blocks)
    predictor = ConvPredictor(config=ConvPredictor.Config(grid_height=side, grid_width=side))
    net = predictor.network(size)
    readout = net.readout(2)
    assert isinstance(net, nn.Module)
    for module in (net, readout):
        shaken(module)
    latent, action = torch.randn(1, size.latent), torch.randn(1, ACTION)
    tokens, none = torch.randn(1, *TOKENS), torch.zeros(1, 0)

    def change(latent: Tensor) -> Tensor:
        return readout(net(latent, action, tokens, none)[0]).view(2, channels, side, side)

    other = latent.clone()
    other.view(channels, side, side)[:, 3, 2] += 1
    differs = (change(other) - change(latent)).abs().amax((0, 1)) > 1e-6
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    near = (row - 3).abs().maximum((column - 2).abs()) <= blocks
    assert differs.equal(near)


def test_a_latent_that_is_no_grid_is_refused() -> None:
    predictor = ConvPredictor(config=ConvPredictor.Config())
    with pytest.raises(ConfigError, match=r"C·h·w numbers, 4x4 cells of C, got 20") as refusal:
        predictor.network(SIZE._replace(latent=20))
    assert "\n" not in str(refusal.value)


# -- transformer ------------------------------------------------------------------------------


def test_patches_attend_to_action_and_tokens_and_to_each_other() -> None:
    net = network("transformer")
    latent, action, tokens = torch.randn(1, LATENT), torch.randn(1, ACTION), torch.randn(1, *TOKENS)
    none = torch.zeros(1, 0)

    def patches(latent: Tensor, action: Tensor, tokens: Tensor) -> Tensor:
        features: Tensor = net(latent, action, tokens, none)[0].view(3, -1)
        return features

    base = patches(latent, action, tokens)
    elsewhere = latent.clone()
    elsewhere[0, -1] += 1  # in the last patch, which is padded
    second = tokens.clone()
    second[0, 1] += 1
    for changed in (
        patches(elsewhere, action, tokens),
        patches(latent, action + 1, tokens),
        patches(latent, action, second),
    ):
        assert ((changed - base).abs().amax(1) > 1e-4).all()


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    predictor = TransformerPredictor(config=TransformerPredictor.Config(attention_heads=3))
    with pytest.raises(ConfigError, match=r"a divisor of world_model\.width, 16, got 3; try 1"):
        predictor.network(SIZE)


# -- a real world -----------------------------------------------------------------------------


@every_predictor
def test_each_predicts_a_step_of_cart_pole_better_than_persistence(kind: str) -> None:
    torch.manual_seed(0)
    world = WORLD.model_copy(update={"actions": ActionSpec(discrete=True, size=2)})
    perception = Vectors(
        config=Vectors.Config(width=32, features=12), world=world, token_shape=TOKENS
    )
    model = JEPA(
        config=JEPA.Config(width=32, ensemble_size=1),
        world=world,
        latent_size=perception.latent_size,
        token_shape=TOKENS,
        objective=Unregularised(),
        predictor=PREDICTORS[kind](),
    )
    vectors, actions, ends = cart_pole(episodes=60, seed=0)

    def batch(rows: Tensor) -> Experience:
        blank = windows(len(rows), 6)
        return blank.replace(
            vectors=vectors[rows],
            actions=actions[rows],
            signals=torch.zeros(len(rows), 6, len(SIGNALS)),
            terminated=ends[rows],
            indices=rows,
        )

    descent = torch.optim.Adam([*perception.parameters(), *model.parameters()], lr=3e-3)
    for _ in range(150):
        experience = batch(torch.randint(len(vectors), (32,)))
        latents = perception.encode_windows(experience)
        descent.zero_grad()
        losses, _ = model.losses(
            Batch(experience, states_of(latents), states_of(latents.detach())), LEARNING_KEY
        )
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        descent.step()

    vectors, actions, ends = cart_pole(episodes=20, seed=10_000)
    with torch.no_grad():
        latents = perception.encode_windows(batch(torch.arange(len(vectors))))
        hidden = torch.zeros(len(vectors), TOKENS[0] * TOKENS[1] + model.hidden_size)
        after = model.step(states_of(latents)[0].replace(hidden=hidden), actions[:, 0])
    unit = (latents[:, 1] - latents[:, 0]).square().mean(0).sqrt()
    error = ((after.latent - latents[:, 1]) / unit).square().mean().sqrt()
    # In these units the error of `persistence` is 1.
    assert error < 0.6, error


def error_without_velocities(predictor: Predictor, teacher_forced_steps: int) -> float:
    """Error of one step of CartPole whose velocities are hidden, after four observed steps, on
    held-out episodes; that of `persistence` is 1.
    """
    torch.manual_seed(0)
    model = JEPA(
        config=JEPA.Config(
            width=32, blocks=1, ensemble_size=1, teacher_forced_steps=teacher_forced_steps
        ),
        world=WORLD.model_copy(update={"actions": ActionSpec(discrete=True, size=2)}),
        latent_size=2,
        token_shape=(0, 0),
        objective=Unregularised(),
        predictor=predictor,
    )

    def encoded(vectors: Tensor) -> Tensor:
        return vectors[:, :, [0, 2]] * torch.tensor([1.0, 5.0])

    vectors, actions, ends = cart_pole(episodes=120, seed=0)
    descent = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(250):
        rows = torch.randint(len(vectors), (64,))
        experience = windows(64, 6).replace(
            actions=actions[rows],
            signals=torch.zeros(64, 6, len(SIGNALS)),
            terminated=ends[rows],
            indices=rows,
        )
        states = states_of(encoded(vectors[rows]))
        losses, _ = model.losses(Batch(experience, states, states), LEARNING_KEY)
        descent.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        descent.step()
    vectors, actions, _ = cart_pole(episodes=30, seed=10_000)
    latents, hidden = encoded(vectors), torch.zeros(len(vectors), model.hidden_size)
    with torch.no_grad():
        for t in range(5):
            after = model.step(states_of(latents)[t].replace(hidden=hidden), actions[:, t])
            hidden = after.hidden
    unit = (latents[:, 5] - latents[:, 4]).square().mean(0).sqrt()
    return ((after.latent - latents[:, 5]) / unit).square().mean().sqrt().item()


def test_a_recurrent_predictor_knows_the_velocities_that_one_observation_hides() -> None:
    def gru() -> Predictor:
        return GRUPredictor(config=GRUPredictor.Config(state_size=32))

    recurrent = error_without_velocities(gru(), 3)
    assert recurrent < 0.45
    # Without memory, and with one that was only trained on what it predicted itself.
    assert error_without_velocities(MLPPredictor(), 3) > 1.5 * recurrent
    assert error_without_velocities(gru(), 0) > 1.3 * recurrent


def test_teacher_forced_steps_continue_from_the_encoded_latent() -> None:
    model, experience, latents = jepa("mlp"), windows(3, 6), torch.randn(3, 6, LATENT)
    batch = Batch(experience, states_of(latents), states_of(latents))
    model.config = model.config.model_copy(update={"teacher_forced_steps": 2})
    losses, _ = model.losses(batch, LEARNING_KEY)
    unit = torch.maximum(
        (model.latent_stats.deviation() * model.delta_stats.magnitude()).sqrt(),
        model.error_stats.magnitude(),
    )
    errors, now = [], states_of(latents)[0]
    for t in range(5):
        start = states_of(latents)[t] if t <= 2 else now
        now = model.step(start.replace(hidden=torch.zeros(3, 6)), experience.actions[:, t])
        errors.append(((now.latent - latents[:, t + 1]) / unit).square().mean())
    assert losses["prediction"].item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)
