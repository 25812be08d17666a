"""The learner: what is trained, from what, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_training import LEARNING_KEY, SMALL, learner_of, made, weights_now
from torch import nn

from agent.assembly.build import assemble, known_kinds
from agent.assembly.merge import merge
from agent.learning.averaged_weights import EVERY
from agent.learning.learner import Learner, combined_priorities
from agent.live import live
from agent.recording import checkpoint
from agent.recording.weights import load_weights
from modules import chance
from modules.messages import ConfigError, Experience, MessageError
from modules.ports import Batch


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
    counts = "cost/critic.updates"
    assert kept[counts].equal(now[f"now/{counts}"])


@pytest.mark.parametrize("ema_rate", [1.0, 0.25])
def test_what_is_stored_is_averaged_over_a_share_of_the_updates(ema_rate):
    assembly = made()
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    share, name = 0.5, "cost/critic.members.0.last.weight"
    learner = learner_of(assembly, ema_rate=ema_rate, average_share=share)
    averaged = torch.zeros(())
    for update in range(1, 51):
        learner.update()
        now = learner.tensors()
        if update <= EVERY or update % EVERY == 0:
            rate = min(1, EVERY / (share * update))
            averaged = averaged.lerp(now[f"now/{name}"], rate)
    torch.testing.assert_close(learner.weights()[name], averaged)
    assert not averaged.equal(now[f"now/{name}"])
    other = learner_of(made(), ema_rate=ema_rate, average_share=share)
    other.load(learner.weights(), learner.tensors())
    for saved, loaded in ((learner.weights(), other.weights()), (now, other.tensors())):
        assert saved.keys() == loaded.keys()
        assert all(loaded[key].equal(value) for key, value in saved.items())


def test_no_average_goes_beyond_a_reset():
    assembly = made(reset_every=30)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, name = learner_of(assembly, average_share=1.0), "perception/network.last.weight"
    for _ in range(30):
        learner.update()
    before = learner.weights()[name].clone()
    learner.update()
    assert learner.weights()[name].equal(learner.tensors()[f"now/{name}"])
    assert not learner.weights()[name].equal(before)


def test_the_learning_rate_falls_to_its_last_value_and_stays_there():
    assembly = made()
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner = learner_of(assembly, decay_updates=4, learning_rate=0.01, final_learning_rate=0)
    moved = []
    for wanted in (0.01, 0.0075, 0.005, 0.0025, 0, 0):
        assert learner.learning_rate() == pytest.approx(wanted)
        weight = weights_now(learner)["perception/network.last.weight"]
        began = weight.clone()
        learner.update()
        moved.append(float((weight - began).abs().max()))
    assert min(moved[:4]) > 0
    assert moved[4:] == [0, 0]


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
    usual = learner.modules.perception.latent_stats.centre.clone()
    _, (state,), targets = learner.encode(experience, key)
    plain = learner.modules.perception.encode_windows(experience, None, None)
    torch.testing.assert_close(state.latent, plain[:, 0])
    reach = learner.modules.cost.target_mask(experience, 1)
    seen = torch.stack([target.latent for target in targets], 1)
    torch.testing.assert_close(seen[reach], plain[reach])
    assert learner.modules.perception.latent_stats.centre.equal(usual)


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
    wanted = (
        "update 1: module world_model (JEPA): losses.signals: expected a finite number, got inf"
    )
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


def test_the_unrolled_critic_learns_from_recorded_energies_and_its_gradient_reaches_the_model():
    assembly = made(critic_unroll_steps=2)
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    learner, key = learner_of(assembly), torch.tensor([5])
    for _ in range(3):  # a fresh critic says 0 whatever it is shown
        assert "cost/unrolled critic" in learner.update()
    cost, model = assembly.agent.modules.cost, assembly.agent.modules.world_model
    stop = cost.window_steps()
    experience = assembly.agent.memory.sample(8, learner.window_steps(), key)
    _, states, targets = learner.encode(experience, key)
    loss = learner._unrolled_critic_loss(Batch(experience, states, targets), cost, key)
    latent, by_hand = states[0].latent, []
    for t in (1, 2):
        none = latent.new_zeros(8, 0)  # no recurrent state
        latent = model._predict_latent(latent, experience.actions[:, t - 1], None, none).latent
        there = states[0].replace(latent=latent)
        missed, _ = cost.losses(
            Batch(experience.slice_steps(t, stop), [there], targets[t:stop]), LEARNING_KEY
        )
        by_hand.append(missed["critic"])
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    loss.backward()
    assert float(model.change.weight.grad.abs().sum()) > 0
    assert all(member.last.weight.grad.abs().sum() > 0 for member in cost.critic.members)


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


@pytest.mark.parametrize("has", [True, False])
def test_what_a_processor_does_not_have_is_not_asked_of_it(monkeypatch, has):
    monkeypatch.setattr("agent.learning.learner._computes_in_bfloat16", lambda device: has)
    learner = learner_of(made(precision="bfloat16"))
    assert learner.autocast == has
    assert not learner_of(made()).autocast


def test_what_learning_draws_follows_from_the_runs_seed():
    """SIGReg's directions, which are drawn at each update."""

    def gaussian(seed: int) -> list[float]:
        tree = merge(SMALL, {"world_model": {"objective": {"kind": "sigreg", "num_slices": 4}}})
        assembly = assemble(tree, known_kinds(), training=True)
        for _ in live(assembly.agent, assembly.world, 60, 0):
            pass
        learner = Learner(assembly.agent, config=assembly.config.settings.learner, seed=seed)
        # The same windows and latents for each seed: the directions alone differ.
        experience = assembly.agent.memory.sample(8, 4, torch.tensor([5]))
        model, key = assembly.agent.modules.world_model, chance.keys(learner.seed, 1, 0)
        _, states, targets = learner.encode(experience, torch.tensor([5]))
        losses, _ = model.losses(Batch(experience, states, targets), key)
        return [losses["gaussian"].item(), learner.update()["world_model/gaussian"]]

    assert gaussian(1) == gaussian(1)
    assert gaussian(1)[0] != gaussian(2)[0]
    assert gaussian(1)[1] != gaussian(2)[1]


def test_priorities_of_several_modules_count_alike_whatever_their_units():
    first, second = torch.tensor([1.0, 3.0, 0.0, 4.0]), torch.tensor([50.0, 100.0, 150.0, 100.0])
    assert combined_priorities([first]) is first
    together = combined_priorities([first, second])
    torch.testing.assert_close(together, torch.tensor([0.5, 1.25, 0.75, 1.5]))
    torch.testing.assert_close(combined_priorities([second, 1000 * first]), together)
    assert combined_priorities([torch.zeros(4), first]).isfinite().all()


def test_no_module_overwrites_the_priorities_of_another():
    assembly = made()
    for _ in live(assembly.agent, assembly.world, 60, 0):
        pass
    modules, taken = assembly.agent.modules, []
    urgent = torch.arange(8.0)
    losses = modules.world_model.losses
    modules.world_model.losses = lambda *batch: (losses(*batch)[0], urgent)
    modules.memory.update_priorities = lambda index, priorities: taken.append(priorities)
    learner = learner_of(assembly)
    experience = modules.memory.sample(8, learner.window_steps(), chance.keys(3, 1, 0))
    _, states, targets = learner.encode(experience, chance.keys(3, 1, 0))
    _, of_critic = modules.cost.losses(Batch(experience, states, targets), chance.keys(3, 1, 0))
    learner.update()
    (got,) = taken
    torch.testing.assert_close(got, (urgent / urgent.mean() + of_critic / of_critic.mean()) / 2)


class WithParameter(nn.Module):
    """A module of any port, with one parameter that its loss draws towards 1."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.__dict__["inner"] = inner
        self.bias = nn.Parameter(torch.zeros(3))

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_parameters", {}) or "inner" not in self.__dict__:
            return super().__getattr__(name)
        return getattr(self.__dict__["inner"], name)

    def losses(self, batch: Batch, key: torch.Tensor) -> tuple[dict, None]:
        return {"bias": (self.bias - 1).square().sum()}, None

    def on_update(self) -> None: ...

    def on_reset(self) -> None: ...

    def window_steps(self) -> int:
        return 2

    def target_mask(self, experience: Experience, steps: int) -> torch.Tensor:
        return torch.zeros_like(experience.mask)


@pytest.mark.parametrize("port", ["memory", "configurator"])
def test_a_module_of_any_port_that_has_parameters_learns(tmp_path, port):
    assembly = made(ema_rate=0.5)
    agent = assembly.agent
    inner = getattr(agent.modules, port)

    def extended() -> WithParameter:
        module = WithParameter(inner)
        agent.modules = replace(agent.modules, **{port: module})
        return module

    module = extended()
    for _ in live(agent, assembly.world, 60, 0):
        pass
    learner = learner_of(assembly)
    assert f"{port}/bias" in learner.update()
    learner.update()
    assert (module.bias > 0).all()
    if port == "memory":  # an average of it would copy all experience
        assert learner.ema[port] is module
    else:
        assert (learner.ema[port].bias < module.bias).all()
    # Saved and loaded like all weights, also behind an intervention.
    written = checkpoint.Checkpoint(tensors={"weights": learner.weights()})
    place = checkpoint.save(tmp_path, "1", written)
    other = extended()
    if port == "configurator":
        outer = type("Outer", (), {"wrapped": other, "initial": other.initial})()
        agent.modules = replace(agent.modules, configurator=outer)
    load_weights(agent.modules, checkpoint.load(place).tensors["weights"], "here")
    assert other.bias.equal(learner.ema[port].bias)
