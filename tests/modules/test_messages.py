"""Messages: agreement of their fields, freezing, and their bytes."""

import json
import struct
from typing import Annotated

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from modules.messages import (
    Directive,
    Energy,
    Experience,
    Message,
    MessageError,
    Moment,
    Observation,
    Plan,
    Recollection,
    Shape,
    Situation,
    State,
)

KINDS = [Observation, State, Energy, Recollection, Directive, Plan, Situation, Moment, Experience]
DTYPES = {
    "float": [torch.float32, torch.float64, torch.float16, torch.bfloat16],
    "bool": [torch.bool],
    "int": [torch.int64, torch.int32, torch.uint8],
    "any": [torch.uint8, torch.float32, torch.int16, torch.bool],
}
OPTIONAL = {"pixels", "vector", "goal", "goals", "critic", "critic_actions", "frames", "vectors"}


class Drawn:
    """Draws messages whose axes all agree."""

    def __init__(self, draw):
        self.draw = draw
        self.rows = draw(st.integers(1, 3))
        self.generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def tensor(self, shape, kind):
        dtype = self.draw(st.sampled_from(DTYPES[kind]))
        raw = self.generator.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
        if dtype is torch.bool:
            raw &= 1
        # Any bits: not-a-number, infinities and negative zero must come back as they were.
        return torch.from_numpy(raw.reshape(-1)).view(dtype).view(shape)

    def message(self, kind):
        axes = {"B": self.rows}
        fields = {}
        for name, shape in kind._tensors:
            if name in OPTIONAL and self.draw(st.booleans()):
                fields[name] = None
                continue
            lengths = [axes.setdefault(a, self.draw(st.integers(0, 3))) for a in shape.axes]
            fields[name] = self.tensor(lengths, shape.kind)
        parts = {
            "observation": Observation,
            "state": State,
            "expected": State,
            "recollection": Recollection,
            "energies": Energy,
            "directive": Directive,
            "plan": Plan,
            "previous": Moment,
        }
        for name in kind._nested:
            fields[name] = self.message(parts[name])
        for name in kind._others:
            fields[name] = (
                self.draw(st.integers(-1, 10**9))
                if name == "step"
                else tuple(self.draw(st.text(max_size=8)) for _ in range(self.rows))
            )
        return kind(**fields)


@st.composite
def messages(draw, kind):
    return Drawn(draw).message(kind)


def identical(one, other):
    assert type(one) is type(other)
    assert one._others == other._others
    for name in one._others:
        assert getattr(one, name) == getattr(other, name)
    theirs = dict(other.tensors())
    for name, mine in one.tensors():
        if mine is None:
            assert theirs[name] is None
            continue
        assert (mine.dtype, mine.shape) == (theirs[name].dtype, theirs[name].shape), name
        if mine.numel():
            assert torch.equal(
                mine.contiguous().view(torch.uint8), theirs[name].view(torch.uint8)
            ), name


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_come_back_identical(kind):
    @settings(
        max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(messages(kind))
    def check(message):
        data = message.to_bytes()
        back = Message.from_bytes(data)
        identical(message, back)
        assert back.to_bytes() == data

    check()


def state(**changes):
    fields = {
        "latent": torch.zeros(2, 3),
        "hidden": torch.zeros(2, 0),
        "signals": torch.zeros(2, 6),
        "ended": torch.zeros(2),
        "uncertainty": torch.zeros(2),
    }
    return State(**{**fields, **changes})


def test_bytes_of_views_and_of_gradients():
    wide = torch.arange(12.0).view(3, 4)
    message = state(latent=wide.T[:2].requires_grad_(), signals=torch.zeros(1, 6).expand(2, 6))
    back = Message.from_bytes(message.to_bytes())
    assert torch.equal(back.latent, message.latent)
    assert not back.latent.requires_grad
    back.latent[0, 0] = 5.0
    assert message.latent[0, 0] == 0


@pytest.mark.parametrize(
    ("changes", "field", "expected", "received"),
    [
        ({"latent": torch.zeros(2)}, "latent", "float [B D]", "float32 [2]"),
        ({"ended": torch.zeros(3)}, "ended", "[B=2]", "float32 [3]"),
        ({"ended": torch.zeros(2).bool()}, "ended", "float [B]", "bool [2]"),
        ({"latent": torch.zeros(2, 3).long()}, "latent", "float [B D]", "int64 [2, 3]"),
        ({"latent": [1, 2]}, "latent", "Input should be an instance of Tensor", "list [1, 2]"),
    ],
)
def test_a_disagreement_names_message_field_expected_and_received(
    changes, field, expected, received
):
    with pytest.raises(MessageError) as refused:
        state(**changes)
    error = refused.value
    assert (error.message, error.field, error.expected, error.received) == (
        "State",
        field,
        expected,
        received,
    )
    assert str(error) == f"State.{field}: expected {expected}, got {received}"
    error.module, error.step = "perception (Mine)", 7
    assert str(error).startswith("step 7: module perception (Mine): State.")


def test_check_holds_a_message_against_axes_known_elsewhere():
    message = state()
    assert message.check({"B": 2, "D": 3, "S": 6}) is message
    with pytest.raises(MessageError, match=r"State\.latent: expected \[B=2 D=4\], got float32"):
        message.check({"B": 2, "D": 4})


def test_rows_of_nested_messages_agree(moment_of_two_rows):
    moment = moment_of_two_rows
    with pytest.raises(MessageError, match=r"Moment\.expected: expected 2 rows, got 1 rows"):
        moment.replace(expected=moment.expected.select(torch.tensor([0])))


@pytest.fixture
def moment_of_two_rows():
    return Moment(
        step=0,
        observation=Observation(
            pixels=None,
            vector=torch.ones(2, 3),
            signals=torch.zeros(2, 6),
            first=torch.tensor([True, False]),
            terminated=torch.zeros(2).bool(),
            truncated=torch.zeros(2).bool(),
        ),
        state=state(),
        recollection=Recollection(
            keys=torch.zeros(2, 1, 4),
            values=torch.zeros(2, 1, 5),
            weights=torch.zeros(2, 1),
            ages=torch.zeros(2, 1),
            readout=torch.zeros(2, 5),
            novelty=torch.zeros(2),
        ),
        energies=Energy(
            intrinsic=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            critic=torch.zeros(2, 2),
            disagreement=torch.zeros(2),
        ),
        surprise=torch.zeros(2),
        episode_model_calls=torch.zeros(2).long(),
        episode_step=torch.zeros(2).long(),
        directive=Directive(
            mode=torch.tensor([1, 2]),
            horizon_steps=torch.ones(2).long(),
            model_calls=torch.ones(2).long(),
            commit_steps=torch.ones(2).long(),
            u=torch.ones(2, 2),
            v=torch.ones(2, 2),
            tokens=torch.zeros(2, 1, 4),
            futures=torch.ones(2, dtype=torch.int64),
            latent_temperature=torch.ones(2),
            risk=torch.zeros(2),
            adversarial=torch.zeros(2, dtype=torch.bool),
            configurator_state=torch.zeros(2, 0),
            reason=("one", "two"),
        ),
        plan=Plan(
            actions=torch.zeros(2, 1, 4),
            steps=torch.ones(2).long(),
            remaining_commit=torch.zeros(2).long(),
            energy=torch.zeros(2),
            mode=torch.tensor([1, 2]),
            model_calls=torch.tensor([0, 9]),
            candidates=torch.zeros(2, 0, 1, 4),
            candidate_energies=torch.zeros(2, 0),
        ),
        expected=state(),
    )


def test_select_picks_rows_of_nested_messages(moment_of_two_rows):
    picked = moment_of_two_rows.select(torch.tensor([1, 1, 0]))
    assert picked.directive.reason == ("two", "two", "one")
    assert picked.energies.intrinsic.tolist() == [[3, 4], [3, 4], [1, 2]]
    assert picked.step == 0
    picked.check({"B": 3})


def test_where_joins_the_rows_of_two_messages(moment_of_two_rows):
    other = moment_of_two_rows.replace(
        energies=moment_of_two_rows.energies.replace(intrinsic=torch.full((2, 2), 9.0)),
        directive=moment_of_two_rows.directive.replace(reason=("x", "y")),
    )
    joined = moment_of_two_rows.where(torch.tensor([True, False]), other)
    assert joined.energies.intrinsic.tolist() == [[1, 2], [9, 9]]
    assert joined.directive.reason == ("one", "y")


def test_a_message_is_frozen_complete_and_equal_to_itself_alone():
    message = state()
    with pytest.raises(Exception, match="frozen"):
        message.latent = torch.ones(2, 3)
    with pytest.raises(
        MessageError, match=r"State\.mood: Extra inputs|State\.mood: expected Extra"
    ):
        state(mood=torch.zeros(2))
    with pytest.raises(MessageError, match=r"State\.latent: expected Field required"):
        State(hidden=torch.zeros(2, 0))
    twin = state()
    assert message == message
    assert message != twin
    assert len({message, twin, message}) == 2


def test_an_unchecked_message_has_every_field(moment_of_two_rows):
    fields = dict(moment_of_two_rows.state.__dict__)
    wrong_shape = State.unchecked(**{**fields, "latent": torch.zeros(7)})
    assert wrong_shape.goal is None
    with pytest.raises(MessageError, match=r"State\.latent"):
        wrong_shape.check({"B": 2})
    del fields["goal"]
    assert State.unchecked(**fields).goal is None
    del fields["hidden"]
    with pytest.raises(MessageError, match=r"State\.hidden: expected fields latent, hidden,"):
        State.unchecked(**fields)
    with pytest.raises(MessageError, match=r"State\.mood"):
        State.unchecked(**moment_of_two_rows.state.__dict__, mood=0)


class Reading(Message):
    """A message outside the package, with each kind of field."""

    values: Annotated[Tensor, Shape("B D")]
    scale: Annotated[Tensor, Shape("D")] | None = None
    state: State | None = None
    label: str = ""


def test_a_message_class_of_another_package_checks_its_shapes():
    with pytest.raises(
        MessageError, match=r"Reading\.values: expected float \[B D\], got float32 \["
    ):
        Reading(values=torch.zeros(2))
    with pytest.raises(MessageError, match=r"Reading\.scale: expected \[D=3\], got float32 \[4\]"):
        Reading(values=torch.zeros(2, 3), scale=torch.zeros(4))
    with pytest.raises(MessageError, match=r"Reading\.state: expected 5 rows, got 2 rows"):
        Reading(values=torch.zeros(5, 3), state=state())
    reading = Reading(values=torch.ones(2, 3), state=state(), label="r")
    back = Message.from_bytes(reading.to_bytes())
    identical(reading, back)
    assert [name for name, _ in reading.tensors()][:3] == ["values", "scale", "state.latent"]


def test_a_message_class_with_an_unknown_type_is_refused():
    with pytest.raises(TypeError, match="forward reference"):

        class Early(Message):
            later: "NotYetDefined"  # noqa: F821


def header_of(data):
    (length,) = struct.unpack_from("<I", data, 4)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header, blobs):
    text = json.dumps(header).encode()
    return b"SXT1" + struct.pack("<I", len(text)) + text + blobs


def test_damaged_bytes_are_refused(moment_of_two_rows):
    data = moment_of_two_rows.to_bytes()
    for cut in (0, 3, 7, 9, 200, len(data) // 2, len(data) - 1):
        with pytest.raises(MessageError):
            Message.from_bytes(data[:cut])
    with pytest.raises(MessageError, match="a Sextet message"):
        Message.from_bytes(b"PK\x03\x04" + data[4:])
    with pytest.raises(MessageError):
        Message.from_bytes(data + b"\0")


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_flipped_bytes_never_raise_anything_else(place, value):
    data = bytearray(state().to_bytes())
    data[place % len(data)] = value
    try:
        Message.from_bytes(bytes(data))
    except MessageError:
        return


def test_bytes_of_version_1_are_read_under_their_old_names(moment_of_two_rows):
    """As version 0.1 wrote the last moment into checkpoints and keyframes."""

    def as_version_1(header):
        kind = next(k for k in KINDS if k.__name__ == header["message"])
        old = {new: old for old, new in kind.renamed.items()}
        return {
            **header,
            "version": 1,
            "fields": {
                old.get(name, name): as_version_1(entry) if isinstance(entry, dict) else entry
                for name, entry in header["fields"].items()
            },
        }

    header, blobs = header_of(moment_of_two_rows.to_bytes())
    old = as_version_1(header)
    assert {"spent", "age"} < set(old["fields"])
    assert "carry" in old["fields"]["state"]["fields"]
    identical(moment_of_two_rows, Message.from_bytes(joined(old, blobs)))
    with pytest.raises(MessageError, match="episode_model_calls"):
        Message.from_bytes(joined({**old, "version": 2}, blobs))


def test_foreign_headers_are_refused():
    header, blobs = header_of(state().to_bytes())
    assert Message.from_bytes(joined(header, blobs)).latent.shape == (2, 3)
    with pytest.raises(MessageError, match=r"State\.version: expected 4 or older, got 5"):
        Message.from_bytes(joined({**header, "version": 5}, blobs))
    with pytest.raises(MessageError):
        Message.from_bytes(joined({**header, "message": "Nothing"}, blobs))
    fields = {**header["fields"], "latent": ["float32", [2, -3]]}
    with pytest.raises(MessageError):
        Message.from_bytes(joined({**header, "fields": fields}, blobs))
    fields = {**header["fields"], "latent": ["complex64", [2, 3]]}
    with pytest.raises(MessageError):
        Message.from_bytes(joined({**header, "fields": fields}, blobs))


def test_total_energy_is_the_weighted_sum(moment_of_two_rows):
    """Eqs. 1 to 3 of LeCun 2022."""
    u, v = torch.tensor([[0.5, 2.0], [1.0, 0.0]]), torch.tensor([[1.0, 3.0], [0.0, 2.0]])
    directive = moment_of_two_rows.directive.replace(u=u, v=v)
    energy = moment_of_two_rows.energies.replace(critic=torch.tensor([[1.0, -1.0], [2.0, 5.0]]))
    expected = torch.stack([u[r] @ energy.intrinsic[r] + v[r] @ energy.critic[r] for r in (0, 1)])
    torch.testing.assert_close(energy.total(directive), expected)
    acts = torch.randn(2, 3, 2)
    action_values = energy.replace(critic_actions=acts)
    expected = torch.stack([(acts[r] @ v[r]).min() + u[r] @ energy.intrinsic[r] for r in (0, 1)])
    torch.testing.assert_close(action_values.total(directive), expected)


def test_the_distance_is_zero_exactly_where_the_state_is_the_expected_one():
    calm = state(latent=torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]))
    signals = torch.zeros(2, 6)
    signals[1, 0] = 1.0
    surprising = calm.replace(signals=signals, latent=torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    surprise = surprising.distance(calm)
    assert surprise[0] == 0
    torch.testing.assert_close(surprise[1], 1 + torch.tensor(1.0).tanh())


def test_a_known_form_is_no_way_around_the_checks():
    """After a message of one form was constructed, others are checked as before."""
    fields = {
        "latent": torch.zeros(2, 3), "hidden": torch.zeros(2, 0), "signals": torch.zeros(2, 6),
        "ended": torch.zeros(2), "uncertainty": torch.zeros(2),
    }  # fmt: skip
    known = State(**fields)
    again = State(**fields)
    assert again.check({"B": 2, "D": 3}) is again
    assert again.model_dump().keys() == known.model_dump().keys()
    assert State.unchecked(**fields).goal is None
    for wrong in (
        {**fields, "ended": np.zeros(2, np.float32)},
        {**fields, "ended": torch.zeros(3)},
        {**fields, "ended": torch.zeros(2, dtype=torch.int64)},
        {**fields, "unknown": torch.zeros(2)},
        {name: value for name, value in fields.items() if name != "ended"},
    ):
        with pytest.raises(MessageError):
            State(**wrong)
