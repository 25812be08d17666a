"""What a recording lacks enters no loss: actions, signals, ends that are unknown."""

import copy

import pytest
import torch
from torch import Tensor

from agent.bench import memory as bench
from modules.actor.actor import Actor
from modules.cost.critic import ActionCritic, ScalarCritic
from modules.cost.drives import IntrinsicCost, PainDrive, ScoreDrive
from modules.cost.n_step import known_steps
from modules.memory.associative import Associative
from modules.memory.ring import Ring
from modules.messages import SIGNALS, ActionSpec, Experience, MessageError, WorldSpec
from modules.objectives.inverse_dynamics import InverseDynamics
from modules.objectives.objective import encodings_of
from modules.objectives.vicreg import VICReg
from modules.ports import Batch, Recorded, encoded_states
from modules.world_model.jepa import JEPA
from tests.modules import test_hierarchical_jepa as levels
from tests.modules.test_actor import make

KEY = torch.tensor([7])
WORLD = WorldSpec(
    id="test/World-v0", pixels=None, vector=4, signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=3),
)  # fmt: skip
ROWS, STEPS, LATENT = 5, 6, 8


def windows() -> Experience:
    torch.manual_seed(0)
    none = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    return Experience(
        frames=None, vectors=torch.randn(ROWS, STEPS, 4),
        actions=WORLD.actions.encode(torch.randint(3, (ROWS, STEPS))),
        signals=torch.randn(ROWS, STEPS, len(SIGNALS)),
        terminated=none.clone(), truncated=none.clone(), mask=~none,
        mode2_mask=none.clone(), importance_weights=torch.ones(ROWS), indices=torch.arange(ROWS),
    )  # fmt: skip


def model() -> JEPA:
    torch.manual_seed(1)
    made = JEPA(
        config=JEPA.Config(width=16, ensemble_size=1, unroll_steps=STEPS - 1),
        world=WORLD, latent_size=LATENT, token_shape=(1, 2),
        objective=VICReg(config=VICReg.Config()),
    )  # fmt: skip
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


LATENTS = torch.randn(ROWS, STEPS, LATENT, generator=torch.Generator().manual_seed(3))


def losses(world_model: JEPA, experience: Experience) -> dict[str, float]:
    """Of a copy, so that running statistics of one measurement do not reach the next."""
    states = encoded_states(experience, LATENTS)
    named, _ = copy.deepcopy(world_model).losses(Batch(experience, states, states), KEY)
    return {name: loss.item() for name, loss in named.items()}


def all_but(row: int, step: int, *axes: int) -> Tensor:
    known = torch.ones(ROWS, STEPS, *axes, dtype=torch.bool)
    known[row, step] = False
    return known


def test_a_prediction_behind_an_unknown_action_does_not_count():
    experience = windows().replace(action_mask=all_but(2, 3))
    other = experience.actions.clone()
    other[2, 3:] = 50
    base = losses(model(), experience)
    assert losses(model(), experience.replace(actions=other)) == base
    assert losses(model(), windows()) != base
    none = windows().replace(action_mask=torch.zeros(ROWS, STEPS, dtype=torch.bool))
    assert losses(model(), none)["prediction"] == 0
    assert losses(model(), none)["covariance"] > 0  # frames alone still shape latents


@pytest.mark.parametrize("loss", ["signals", "ended"])
def test_unknown_signals_and_ends_do_not_count(loss):
    experience, spoiled = windows(), windows()
    if loss == "signals":
        known = torch.ones(ROWS, STEPS, len(SIGNALS), dtype=torch.bool)
        known[2, 3, 0] = False
        spoiled.signals[2, 3, 0] = 1e4
        masked = {"signals_mask": known}
    else:
        spoiled.terminated[2, STEPS - 1] = True
        masked = {"ends_mask": all_but(2, STEPS - 1)}
    assert losses(model(), experience.replace(**masked))[loss] == pytest.approx(
        losses(model(), spoiled.replace(**masked))[loss]
    )
    assert losses(model(), experience)[loss] != losses(model(), spoiled)[loss]


def test_inverse_dynamics_reads_known_actions_alone():
    torch.manual_seed(2)
    objective = InverseDynamics(config=InverseDynamics.Config(), world=WORLD, latent_size=LATENT)
    experience = windows()

    def penalty(one: Experience) -> Tensor:
        states = encoded_states(one, LATENTS)
        encodings = encodings_of(
            Batch(one, states, states), LATENTS.flatten(0, 1), LATENTS, one.mask, one.terminated
        )
        return objective.penalties(encodings, KEY)["inverse dynamics"]

    known = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    known[1, 2] = True
    pair = objective.network(torch.cat([LATENTS[1:2, 2], LATENTS[1:2, 3]], 1))
    action = experience.actions[1:2, 2].argmax(-1)
    expected = torch.nn.functional.cross_entropy(pair, action)
    torch.testing.assert_close(penalty(experience.replace(action_mask=known)), expected)


@pytest.mark.parametrize("kind", [ScalarCritic, ActionCritic])
def test_returns_stop_before_an_unknown_energy(kind):
    torch.manual_seed(4)
    critic = kind(
        config=kind.Config(n_steps=3, ensemble_size=1), world=WORLD, latent_size=LATENT,
        heads=("score",), discount=0.9,
    )  # fmt: skip
    experience = windows()
    known = torch.ones(ROWS, STEPS, len(SIGNALS), dtype=torch.bool)
    known[:, 2] = False
    masked = experience.replace(signals_mask=known)
    assert known_steps(masked).sum(1).tolist() == [2] * ROWS
    states = encoded_states(experience, LATENTS)
    energies = torch.randn(ROWS, STEPS, 1)

    def loss(energies: Tensor, one: Experience = masked) -> Tensor:
        return critic.losses(energies, one, states[:1], states)[0]["critic"]

    behind = energies.clone()
    behind[:, 2:] = 1e3
    before = energies.clone()
    before[:, 1] = 1e3
    assert loss(behind).equal(loss(energies))
    assert not loss(before).equal(loss(energies))
    unknown = masked.replace(action_mask=torch.zeros(ROWS, STEPS, dtype=torch.bool))
    assert (loss(energies, unknown) == 0) == (kind is ActionCritic)


def test_the_cost_asks_for_the_signals_of_its_drives_alone():
    both = IntrinsicCost({"score": ScoreDrive(), "pain": PainDrive()}, SIGNALS)
    assert both.signals_read() == [SIGNALS.index("reward"), SIGNALS.index("life_lost")]
    assert IntrinsicCost({"score": ScoreDrive()}, SIGNALS).signals_read() == [0]


# -- an expert ----------------------------------------------------------------------------------


def actor_losses(actor: Actor, experience: Experience, latents: Tensor) -> dict[str, Tensor]:
    states = encoded_states(experience, latents)
    return actor.losses(Batch(experience, states[:1], []), KEY)[0]


def test_an_experts_actions_teach_in_either_mode_and_others_do_not():
    torch.manual_seed(0)
    actor = make()
    experience = windows()
    latents = torch.randn(ROWS, STEPS, 1, requires_grad=True)
    expert = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    expert[:3] = True
    planned = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    planned[[0, 4]] = True
    shown = experience.replace(mode2_mask=planned, expert_mask=expert)
    named = actor_losses(actor, shown, latents)
    first = latents[:, 0].detach()
    of = actor.policy.divergence
    torch.testing.assert_close(named["cloning"], of(first[:3], shown.actions[:3, 0]).mean())
    torch.testing.assert_close(named["distillation"], of(first[4:], shown.actions[4:, 0]).mean())
    hidden = shown.replace(action_mask=torch.zeros(ROWS, STEPS, dtype=torch.bool))
    assert actor_losses(actor, hidden, latents)["cloning"] == 0
    assert set(actor_losses(actor, experience, latents)) == {"distillation"}


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_cloning_shapes_the_percept_as_far_as_its_scale_says(scale):
    torch.manual_seed(0)
    actor = make()
    torch.nn.init.normal_(actor.policy.network.last.weight)
    actor.encoder_grad_scale = scale
    expert = torch.ones(ROWS, STEPS, dtype=torch.bool)
    shown, latents = windows().replace(expert_mask=expert), torch.randn(ROWS, STEPS, 1)

    def gradient(factor: float) -> Tensor | None:
        actor.encoder_grad_scale = factor
        leaf = latents.clone().requires_grad_()
        loss = actor_losses(actor, shown, leaf)["cloning"]
        return torch.autograd.grad(loss, leaf, allow_unused=True)[0]

    if not scale:
        assert gradient(0.0) is None
    else:
        torch.testing.assert_close(gradient(scale), scale * gradient(1.0))


# -- memory -------------------------------------------------------------------------------------


def ring() -> Ring:
    world = bench.WORLD
    recall = Associative(
        config=Associative.Config(slots=4), world=world, rows=1, latent_size=bench.LATENT
    )
    memory = Ring(config=Ring.Config(capacity=60), recall=recall, world=world, rows=1)
    memory.reset(bench.moment(1, -1).replace(recollection=memory.initial(1)))
    return memory


def recorded(**lacking: bool) -> Recorded:
    known = torch.full((len(bench.WORLD.signals),), not lacking.pop("signals", False))
    return Recorded(
        expert=lacking.get("expert", False), action=not lacking.get("action", False),
        ends=not lacking.get("ends", False), signals=known,
    )  # fmt: skip


def test_memory_tells_what_is_unknown_and_whose_steps_are_an_experts():
    memory = ring()
    for step in range(20):
        memory.write(bench.moment(1, step))
    for step in range(20, 40):
        memory.write(bench.moment(1, step), recorded(action=True, signals=True, expert=True))
    other = ring()
    other.load_tensors(memory.tensors())
    for one in (memory, other):
        one.write(bench.moment(1, 40))  # the agent's own
        sampled = one.sample(64, 3, KEY)
        lacking = (sampled.indices[:, None] + torch.arange(3)) // 20 == 1
        lacking &= sampled.mask
        assert sampled.expert_mask.equal(lacking)
        assert (~sampled.action_mask & sampled.mask).equal(lacking)
        assert (~sampled.signals_mask.all(-1) & sampled.mask).equal(lacking)
        assert sampled.ends_mask is None or bool(sampled.ends_mask.all())
        assert not sampled.actions[lacking].any()
        assert sampled.actions[sampled.mask & ~lacking].any(-1).all()


def test_a_memory_of_whole_steps_has_no_masks_and_another_form_is_refused():
    memory = ring()
    for step in range(10):
        memory.write(bench.moment(1, step), recorded())
    sampled = memory.sample(4, 2, KEY)
    assert sampled.action_mask is sampled.signals_mask is sampled.expert_mask is None
    memory.write(bench.moment(1, 10), recorded(ends=True))
    tensors = memory.tensors()
    tensors["no_ends"] = tensors["no_ends"].float()
    with pytest.raises(MessageError):
        ring().load_tensors(tensors)


# -- levels above -------------------------------------------------------------------------------


def test_a_macro_action_with_an_unknown_action_in_it_is_unknown():
    whole = levels.model()
    lived, latents = levels.experience(2 * levels.K + 1)
    acted = torch.ones(lived.mask.shape, dtype=torch.bool)
    acted[3, levels.K + 2] = False
    signals = torch.ones_like(lived.signals, dtype=torch.bool)
    signals[5, 1, 0] = False
    place, mask = whole.above[0].places(lived)
    masked = lived.replace(action_mask=acted, signals_mask=signals, ends_mask=acted)
    pooled = whole.above[0]._pooled(masked, place, mask)
    assert (~pooled.action_mask).nonzero().tolist() == [[3, 1]]
    assert (~pooled.signals_mask).nonzero().tolist() == [[5, 1, 0]]
    assert bool(pooled.ends_mask.all())
    states = encoded_states(masked, latents)
    assert whole.losses(Batch(masked, states[:2], states), KEY)[0]["level 2 prediction"] > 0
