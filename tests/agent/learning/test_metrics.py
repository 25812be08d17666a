"""Figures of a training reach TensorBoard."""

from __future__ import annotations

import pytest


def test_tensorboard_gets_scalars_over_steps_and_frames(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from agent.learning.metrics import TensorBoard

    board = TensorBoard(tmp_path)
    board.write({"steps": 10, "frames": 40, "total": 2.5, "return": None, "warnings": []})
    board.close()
    for axis, at in (("steps", 10), ("frames", 40)):
        read = EventAccumulator(str(tmp_path / axis)).Reload()
        assert read.Tags()["scalars"] == ["total"]
        assert [(e.step, e.value) for e in read.Scalars("total")] == [(at, 2.5)]
