"""The picture of a run."""

import matplotlib.image
import pytest

from agent.recording.trace import Trace, TraceWriter
from agent.reporting.run_picture import notable, picture
from modules.messages import TraceError

DRIVES, HEADS = ("score", "pain"), ("score", "pain")


def record(path, world, moments):
    with TraceWriter(path, world, moments[0].batch, DRIVES, HEADS) as writer:
        for moment in moments:
            writer.write(moment)


@pytest.mark.parametrize(
    ("steps", "pixels"), [(120, (40, 32, 3)), (60, (40, 32, 1)), (60, None), (1, (40, 32, 3))]
)
def test_a_run_has_a_picture(tmp_path, pong, life, steps, pixels):
    world = pong.model_copy(update={"pixels": pixels})
    record(tmp_path / "trace.sqlite", world, life(steps, pixels=pixels))
    place = picture(tmp_path, row=1)
    assert place == tmp_path / "summary.png"
    drawn = matplotlib.image.imread(place)
    assert min(drawn.shape[:2]) > 600
    # It is not blank: score, modes and frames have colours of their own.
    assert len({tuple(c) for c in (drawn[::7, ::7, :3] * 255).astype(int).reshape(-1, 3)}) > 20


def test_notable_moments_are_spread_and_explained(tmp_path, pong, life):
    record(tmp_path / "trace.sqlite", pong, life(120))
    with Trace.open(tmp_path) as trace:
        moments = notable(trace, 0, 6)
    assert [step // 20 for step, _ in moments] == [0, 1, 2, 3, 4, 5]
    assert dict(moments)[49] == "a life lost"
    assert "score +1" in [why for _, why in moments]


def test_long_runs_are_drawn_in_stretches(tmp_path, pong, life):
    world = pong.model_copy(update={"pixels": None})
    record(tmp_path / "trace.sqlite", world, life(1600, rows=1, pixels=None))
    assert picture(tmp_path).stat().st_size < 400_000


def test_nothing_to_draw_is_one_line(tmp_path, pong):
    with pytest.raises(TraceError, match="no such file"):
        picture(tmp_path)
    TraceWriter(tmp_path / "trace.sqlite", pong, 1, DRIVES, HEADS).close()
    with pytest.raises(TraceError, match="expected at least one step"):
        picture(tmp_path)
