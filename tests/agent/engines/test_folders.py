"""Folders of jobs: whole or not there, told apart, sent in pieces; the ledger; the schedule."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.engines import folders, ledger
from agent.engines.engine import Job, JobError, JobResult, here
from agent.engines.folders import PIECE_BYTES, partial, pieces, put_together
from agent.engines.schedule import Schedule
from agent.engines.serial import SerialEngine
from modules.messages import ConfigError


def make(folder: Path, _: object) -> str:
    folder.mkdir()
    (folder / "file").write_text("whole")
    return folder.name


def fail(folder: Path, _: object) -> None:
    folder.mkdir()
    (folder / "file").write_text("half")
    raise ConfigError("config x: expected 1, got 2")


def test_a_folder_appears_when_it_is_whole_and_a_rest_is_no_hindrance(tmp_path):
    place = tmp_path / "runs" / "it"
    with pytest.raises(JobError, match=r"^it: config x: expected 1, got 2$"):
        list(SerialEngine().map([Job("it", fail, place)]))
    assert not place.exists()
    assert partial(place).is_dir()
    [result] = SerialEngine().map([Job("it", make, place)])
    assert result.value == partial(place).name
    assert (place / "file").read_text() == "whole"
    assert [path.name for path in place.parent.iterdir()] == ["it"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError) as error:
        list(SerialEngine().map([Job("it", make, tmp_path / "file" / "it")]))
    assert str(error.value).startswith(f"it: {tmp_path}/file/it: expected a writable disk, got: ")
    assert "\n" not in str(error.value)


def test_the_second_of_two_attempts_discards_its_own(tmp_path):
    place = tmp_path / "it"
    for attempt in ("a", "b"):
        with folders.in_folder(Job("it", make, place), attempt) as part:
            assert part == tmp_path / f".part-it.{attempt}"
            part.mkdir()
            (part / "file").write_text(attempt)
    assert (place / "file").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_pieces_are_put_together_to_the_same_folder(tmp_path):
    source, copy = tmp_path / "source", tmp_path / "copy"
    (source / "deep" / "empty").mkdir(parents=True)
    (source / "deep" / "large").write_bytes(os.urandom(2 * PIECE_BYTES + 3))
    (source / "none").write_bytes(b"")
    sent = list(pieces(source))
    assert max(len(data) for _, data in sent if data is not None) == PIECE_BYTES
    put_together(sent, copy)
    for path in source.rglob("*"):
        other = copy / path.relative_to(source)
        assert other.is_dir() == path.is_dir()
        assert path.is_dir() or other.read_bytes() == path.read_bytes()


def test_a_replacement_that_was_killed_is_undone(tmp_path):
    place, part = tmp_path / "it", tmp_path / "part"
    for folder, text in ((place, "old"), (part, "new")):
        folder.mkdir()
        (folder / "file").write_text(text)
    folders.replace(part, place)
    assert (place / "file").read_text() == "new"
    place.rename(tmp_path / ".old-it")  # what a kill between two renames leaves
    folders.recover(place)
    assert (place / "file").read_text() == "new"


def test_the_ledger_outlives_a_line_that_was_cut(tmp_path):
    result = JobResult(Job("first", make), None, 1.5, here(), retries=2)
    ledger.enter(tmp_path, result)
    with open(tmp_path / ledger.LEDGER, "a") as file:
        file.write('{"name": "sec')
    ledger.enter(tmp_path, JobResult(Job("third", make), None, 0.5, here()))
    lines = ledger.entries(tmp_path)
    assert [(line["name"], line["retries"]) for line in lines] == [("first", 2), ("third", 0)]
    assert lines[0]["processor"] == here().processor
    assert ledger.entries(tmp_path / "none") == []


def test_the_time_left_is_that_of_jobs_of_the_same_kind(tmp_path):
    class Timed(SerialEngine):
        slots = 2

        def map(self, jobs, on_report=None):
            for job in jobs:
                yield JobResult(job, None, {"long": 60.0, "short": 2.0}[job.kind], here())

    kinds = ["long", "short", "long", "short"]
    jobs = [Job(str(n), make, kind=kind) for n, kind in enumerate(kinds)]
    shown = []
    list(Schedule(Timed(), kinds, shown.append).run(jobs))
    # Unknown kinds are taken for the usual one, then 60 + 2 over two slots, then 2 over one.
    assert [one.remaining_s for one in shown] == [90.0, 31.0, 2.0, 0.0]
    assert str(shown[1]) == "2/4  left 00:00:31  1"
