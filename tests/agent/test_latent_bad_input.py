"""Latent variables: settings out of range are refused in a line; NaN never becomes an action."""

import pytest
import torch

from agent.assembly.load import prepared, request_for
from agent.cli import run
from modules.messages import MessageError

FORK = "sextet/Fork-state-v0"
LATENT = ("--world_model.kind=latent-jepa",)
GAUSSIAN = (*LATENT, "--world_model.latent.kind=gaussian")
SPARSE = (*LATENT, "--world_model.latent.kind=sparse")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*LATENT, "--directive.futures=0"), ("directive.futures", "1")),
        ((*LATENT, "--directive.futures=1025"), ("directive.futures", "1024")),
        ((*LATENT, "--directive.futures=2.5"), ("directive.futures", "2.5")),
        ((*LATENT, "--directive.latent_temperature=-1"), ("directive.latent_temperature", "0")),
        ((*LATENT, "--directive.latent_temperature=.nan"), ("directive.latent_temperature",)),
        ((*LATENT, "--directive.risk=2000"), ("directive.risk", "1000")),
        ((*LATENT, "--branch_steps=-1"), ("branch_steps", "0")),
        ((*LATENT, "--world_model.latent.codes=1"), ("world_model.latent.codes", "2")),
        ((*LATENT, "--world_model.latent.variables=0"), ("world_model.latent.variables", "1")),
        ((*LATENT, "--world_model.latent.min_prob=0.9"), ("world_model.latent.min_prob", "0.5")),
        ((*LATENT, "--world_model.latent.noise=0"), ("world_model.latent.noise", "0")),
        ((*GAUSSIAN, "--world_model.latent.size=0"), ("world_model.latent.size", "1")),
        ((*GAUSSIAN, "--world_model.latent.weight=-1"), ("world_model.latent.weight", "0")),
        ((*SPARSE, "--world_model.latent.spread_weight=1001"), ("latent.spread_weight", "1000")),
        ((*LATENT, "--world_model.latent.kind=vq"), ("world_model.latent.kind", "categorical")),
        ((*LATENT, "--world_model.latent.size=3"), ("world_model.latent.size",)),
        # z is asked of a model without one.
        (("--directive.futures=8",), ("directive.futures", "try world_model.kind=latent-jepa")),
        (("--directive.latent_temperature=2",), ("try world_model.kind=latent-jepa",)),
        (("--directive.adversarial=true",), ("try world_model.kind=latent-jepa",)),
        (("--intervene", "clamp:futures=8"), ("try world_model.kind=latent-jepa",)),
        (("--world_model.latent.codes=4",), ("world_model.latent",)),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") else "",
)  # fmt: skip
def test_settings_of_z_out_of_range_are_refused_in_a_line(
    words, expected, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = () if words[0] in LATENT else ("--world_model.kind=jepa",)
    assert run(["play", FORK, "--steps", "2", "--no-live", *model, *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(text in line for text in expected), line
    assert not (tmp_path / "runs").exists()


PLANNING = (
    "world_model.kind=latent-jepa", "world_model.width=16", "world_model.latent.width=16",
    "configurator.kind=fixed", "configurator.mode=2", "directive.futures=8",
    "directive.model_calls=400", "directive.horizon_steps=3", "directive.commit_steps=1",
)  # fmt: skip


def agent_of(kind, *settings):
    """An agent that plans with that z, and its world."""
    words = (*PLANNING, f"world_model.latent.kind={kind}", *settings)
    assembly = prepared(request_for(FORK, words, seed=0, num_envs=2))
    assembly.agent.reset(2, 0)
    # Fresh predictions do not depend on z.
    with torch.no_grad():
        torch.nn.init.normal_(assembly.agent.modules.world_model.change.weight)
    return assembly.agent, assembly.world


def spoil_one_code(model):
    """Predictions under the third code alone are NaN: with 8 futures of 8 codes, some of them."""
    step = model.step

    def spoilt(state, action, z=None):
        after = step(state, action, z)
        if z is None:
            return after
        return after.replace(latent=after.latent.masked_fill(z[:, 2:3] == 1, torch.nan))

    model.step = spoilt


NAMED = r"step \d: module world_model \(LatentJEPA\): (State\.latent|values\.surprise), row \d: "

FAULTS = {
    "categorical: prior": ("categorical", lambda m: m.z.prior.last.bias.fill_(torch.nan)),
    "categorical: predictor": ("categorical", lambda m: m.change.weight.fill_(torch.nan)),
    "categorical: one future": ("categorical", spoil_one_code),
    "gaussian: weights": ("gaussian", lambda m: m.z.prior.net.last.bias[:8].fill_(torch.nan)),
    "gaussian: means": ("gaussian", lambda m: m.z.prior.net.last.bias[8:].fill_(torch.nan)),
    "sparse: weights": ("sparse", lambda m: m.z.prior.net.last.bias[:8].fill_(torch.nan)),
}


@pytest.mark.parametrize("planner", ["rollout", "beam", "cem-categorical"])
@pytest.mark.parametrize(("kind", "spoil"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("order", ["directive.risk=1", "directive.adversarial=true"])
def test_nan_of_a_model_with_z_is_named_and_no_action(planner, kind, spoil, order):
    settings = [f"actor.planner.kind={planner}", order]
    if kind == "sparse" and planner != "rollout":
        pytest.skip("its draws are those of gaussian")
    agent, world = agent_of(kind, *settings)
    with torch.no_grad():
        spoil(agent.modules.world_model)
    with pytest.raises(MessageError, match=NAMED):
        agent.step(world.reset(0))
    world.close()


@pytest.mark.parametrize("kind", ["gaussian", "sparse"])
def test_nan_of_an_inferred_z_is_named(kind):
    """The encoder of z is read by the surprise alone."""
    agent, world = agent_of(kind, "world_model.latent.components=1")
    model = agent.modules.world_model
    moment = agent.step(world.reset(0))
    with torch.no_grad():
        model.z.encoder.last.bias.fill_(torch.nan)
    with pytest.raises(MessageError, match=NAMED):
        agent.step(world.step(moment.plan.action))
    world.close()
