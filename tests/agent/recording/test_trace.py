"""The trace: reading it, also while it is written, after a kill, and when it is damaged."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.recording.atomic import WriteError
from agent.recording.episode_stats import EpisodeStats
from agent.recording.run_folder import RunFolder
from agent.recording.trace import (
    FORMAT_VERSION,
    RECOLLECTED,
    SalvagedTrace,
    Trace,
    TraceDigest,
    TraceWriter,
)
from modules.messages import ConfigError, TraceError
from tests.agent import by_hand
from tests.agent.by_hand import PONG

DRIVES, HEADS = ("score", "pain"), ("score", "pain")


def record(path, world, moments, **settings):
    with TraceWriter(path, world, moments[0].batch, DRIVES, HEADS, **settings) as writer:
        for moment in moments:
            writer.write(moment)
    return Trace.open(path)


HALVED = {
    "state.latent",
    "expected.latent",
    "recollection.keys",
    "recollection.values",
    "recollection.readout",
    "energies.critic_actions",
    "directive.tokens",
    "directive.configurator_state",
    "plan.candidates",
}


@pytest.mark.parametrize("pixels", [(40, 32, 3), None])
def test_every_field_is_read_as_it_was_written(tmp_path, pong, life, pixels):
    moments = life(70, pixels=pixels)
    trace = record(tmp_path / "t.sqlite", pong, moments, config={"seed": 3})
    assert (trace.steps, trace.rows, trace.config) == (70, 2, {"seed": 3})
    assert (trace.drives, trace.heads, trace.world) == (DRIVES, HEADS, pong)
    for moment, stored in zip(moments, trace, strict=True):
        assert stored.step == moment.step
        assert stored.directive.reason == moment.directive.reason
        tensors = dict(stored.tensors())
        for name, value in moment.tensors():
            if value is None:
                assert tensors[name] is None
            elif name in ("state.hidden", "expected.hidden"):
                assert tensors[name].shape == (2, 0)
            elif name in HALVED:
                torch.testing.assert_close(tensors[name], value, atol=1e-3, rtol=1e-3)
            else:
                assert tensors[name].dtype == value.dtype, name
                assert torch.equal(tensors[name], value), name


def test_series_reads_a_field_over_all_steps(tmp_path, pong, life):
    moments = life(130)
    trace = record(tmp_path / "t.sqlite", pong, moments)
    expected = torch.stack([m.surprise for m in moments]).numpy()
    np.testing.assert_array_equal(trace.series("surprise"), expected)
    energies = torch.stack([m.energies.intrinsic for m in moments]).numpy()
    np.testing.assert_array_equal(trace.series("energies.intrinsic"), energies)
    assert trace.series("mode")[:4, 1].tolist() == [2, 1, 1, 2]
    assert trace.series("reward").sum() == 2 * 13
    latents = torch.stack([m.state.latent for m in moments]).half().float().numpy()
    np.testing.assert_array_equal(trace.series("state.latent"), latents)
    actions = torch.stack([m.plan.actions for m in moments]).numpy()
    np.testing.assert_array_equal(trace.series("plan.actions"), actions)
    assert trace.reasons()[5] == moments[5].directive.reason
    with pytest.raises(TraceError, match="'surprize'"):
        trace.series("surprize")


def test_one_frame_of_one_row(tmp_path, pong, life):
    moments = life(30)
    trace = record(tmp_path / "t.sqlite", pong, moments)
    np.testing.assert_array_equal(trace.frame(21, 1), moments[21].observation.pixels[1].numpy())
    for step, row in ((30, 0), (0, 2), (0, -1)):
        with pytest.raises(TraceError, match="expected step"):
            trace.frame(step, row)


def test_bulky_recollections_are_left_out(tmp_path, pong, life):
    (moment,) = life(1)
    bulky = moment.recollection.replace(keys=torch.zeros(2, 3, RECOLLECTED))
    trace = record(tmp_path / "t.sqlite", pong, [moment.replace(recollection=bulky)])
    stored = trace.moment(0).recollection
    assert stored.keys.shape == (2, 3, 0)
    assert stored.readout.shape == (2, 0)
    assert torch.equal(stored.weights, moment.recollection.weights)


def test_large_latents_do_not_overflow(tmp_path, pong, life):
    (moment,) = life(1)
    huge = moment.state.replace(latent=torch.full((2, 32), 1e9))
    trace = record(tmp_path / "t.sqlite", pong, [moment.replace(state=huge)])
    assert trace.moment(0).state.latent.isfinite().all()


def test_keyframes(tmp_path, pong, life):
    moments = life(25)
    path = tmp_path / "t.sqlite"
    with TraceWriter(path, pong, 2, DRIVES, HEADS, keyframe_every=10) as writer:
        for moment in moments:
            writer.write(moment)
            if writer.due(moment.step):
                writer.keyframe(moment.step, b"world at %d" % moment.step)
    trace = Trace.open(path)
    for until, steps in ((9, [0]), (10, [10, 0]), (999, [20, 10, 0]), (-1, [])):
        worlds = [(step, b"world at %d" % step) for step in steps]
        assert [keyframe[:2] for keyframe in trace.keyframes_until(until)] == worlds


def test_the_digest_depends_on_observations_energies_and_plans(tmp_path, pong, life):
    def digest(moments):
        running = TraceDigest()
        for moment in moments:
            running.add(moment)
        return running.hexdigest()

    moments = life(40)
    whole = digest(moments)
    assert whole == digest(life(40))
    assert record(tmp_path / "t.sqlite", pong, moments).digest() == whole
    other = moments[39]
    pixels = other.observation.pixels.clone()
    pixels[1, 0, 0, 0] += 1
    actions = other.plan.actions.flip(-1)
    for changed in (
        other.replace(observation=other.observation.replace(pixels=pixels)),
        other.replace(plan=other.plan.replace(actions=actions)),
        other.replace(plan=other.plan.replace(model_calls=other.plan.model_calls + 1)),
        other.replace(energies=other.energies.replace(intrinsic=other.energies.intrinsic + 1)),
    ):
        assert digest([*moments[:39], changed]) != whole
    unseen = other.replace(directive=other.directive.replace(reason=("a", "b")))
    assert digest([*moments[:39], unseen]) == whole


WRITE = """
    import sys, time
    sys.path[:0] = {paths!r}
    from tests.agent.by_hand import DRIVES, HEADS, PONG, moment
    from agent.recording.trace import TraceWriter
    writer = TraceWriter({path!r}, PONG, 2, DRIVES, HEADS)
    for step in range(100000):
        writer.write(moment(step, 2, (40, 32, 3), 0))
        if step == 70:
            print("going", flush=True)
"""


@pytest.fixture
def being_written(tmp_path):
    path = tmp_path / "t.sqlite"
    script = textwrap.dedent(WRITE).format(paths=[str(Path(__file__).parents[3])], path=str(path))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == b"going\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_is_read_while_another_process_writes_it(being_written, life):
    path, process = being_written
    trace = Trace.open(path)
    before = trace.steps
    assert before >= 7  # all but the last batch
    deadline = time.monotonic() + 10
    while trace.steps <= before and time.monotonic() < deadline:
        last = trace.moment(trace.steps - 1)
        assert torch.equal(last.surprise, life(last.step + 1)[-1].surprise)
        time.sleep(0.05)
    assert trace.steps > before
    assert process.poll() is None


def test_survives_being_killed(being_written, life):
    path, process = being_written
    process.send_signal(signal.SIGKILL)
    process.wait()
    trace = Trace.open(path)
    assert trace.steps >= 7
    last = trace.steps - 1
    np.testing.assert_array_equal(
        trace.frame(last, 0), life(trace.steps)[last].observation.pixels[0].numpy()
    )
    assert len(trace.series("surprise")) == trace.steps
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()


def test_a_finished_trace_is_one_file_readable_where_nothing_is_writable(tmp_path, pong, life):
    folder = tmp_path / "shelf"
    folder.mkdir()
    record(folder / "trace.sqlite", pong, life(10)).close()
    assert [file.name for file in folder.iterdir()] == ["trace.sqlite"]
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert Trace.open(folder).steps == 10
    finally:
        folder.chmod(stat.S_IRWXU)


def test_a_file_that_is_no_trace_is_refused_in_one_line(tmp_path, pong, life):
    path = tmp_path / "t.sqlite"
    with pytest.raises(TraceError, match="no such file"):
        Trace.open(path)
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(TraceError, match="expected a Sextet trace") as refused:
        Trace.open(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(TraceError, match="exists"):
        TraceWriter(path, pong, 2, DRIVES, HEADS)
    with pytest.raises(WriteError, match="writable"):
        TraceWriter(tmp_path / "nowhere" / "t.sqlite", pong, 2, DRIVES, HEADS)
    newer = tmp_path / "newer.sqlite"
    record(newer, pong, life(3)).close()
    change = sqlite3.connect(newer)
    change.execute(
        "UPDATE meta SET value = ? WHERE key = 'format_version'", (json.dumps(FORMAT_VERSION + 1),)
    )
    change.commit()
    change.close()
    with pytest.raises(TraceError, match=f"got {FORMAT_VERSION + 1}; read it with a newer"):
        Trace.open(newer)


def test_a_damaged_moment_is_a_trace_error(tmp_path, pong, life):
    path = tmp_path / "t.sqlite"
    record(path, pong, life(3)).close()
    change = sqlite3.connect(path)
    change.execute("UPDATE moments SET timeline = x'00' WHERE step = 1")
    change.commit()
    change.close()
    trace = Trace.open(path)
    assert trace.moment(0).step == 0
    with pytest.raises(TraceError, match="step 1 is damaged"):
        trace.moment(1)


def test_the_trace_cannot_be_changed_by_its_reader(tmp_path, pong, life):
    trace = record(tmp_path / "t.sqlite", pong, life(3))
    with pytest.raises(sqlite3.OperationalError):
        trace._db.execute("DELETE FROM moments")


def test_a_step_of_one_row_is_small(tmp_path, pong, life):
    path = tmp_path / "t.sqlite"
    moments = life(200, rows=1, pixels=(210, 160, 3))
    wide = torch.randn(1, 512)
    record(
        path,
        pong,
        [
            m.replace(state=m.state.replace(latent=wide), expected=m.expected.replace(latent=wide))
            for m in moments
        ],
    ).close()
    assert path.stat().st_size / 200 <= 4096


def test_statistics_of_a_run(pong, life):
    keeper = EpisodeStats(pong.id, 2)
    for moment in life(125):
        keeper.add(moment)
    summary = keeper.summary(seconds=5.0, run="runs/x-1")
    assert (summary.steps, summary.episodes, summary.mean_return) == (250, 4, 5.0)
    assert (summary.score, summary.steps_per_s) == (24.0, 50.0)
    assert summary.model_calls == 182 * 2 * 42
    assert summary.mode2_share == pytest.approx(42 / 125)
    expected = (
        "world steps episodes episodes_requested mean_return score steps_per_s mode2_share "
        "model_calls run"
    )
    assert [*summary.as_dict()] == [*expected.split(" "), "trace_digest"]


def test_a_lost_life_does_not_end_an_episode_and_a_limit_does(pong, life):
    keeper = EpisodeStats(pong.id, 2)
    moments = life(30)
    keeper.add(
        moments[9].replace(
            observation=moments[9].observation.replace(terminated=torch.tensor([True, True]))
        )
    )
    assert keeper.episodes.returns == []
    assert keeper.summary(1.0).mean_return is None
    keeper.add(
        moments[19].replace(
            observation=moments[19].observation.replace(truncated=torch.tensor([True, False]))
        )
    )
    assert keeper.episodes.returns == [2.0]


def test_run_folders_are_numbered_and_configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = RunFolder.create(None, "ALE/Pong-v5")
    second = RunFolder.create(None, "ALE/Pong-v5")
    assert [str(f.path) for f in (first, second)] == ["runs/ale-pong-v5-1", "runs/ale-pong-v5-2"]
    first.write_config({"seed": 3, "world": {"id": "ALE/Pong-v5"}})
    assert RunFolder.open(first.path).read_config() == {"seed": 3, "world": {"id": "ALE/Pong-v5"}}
    assert [p.name for p in first.path.iterdir()] == ["config.yaml"]
    with pytest.raises(ConfigError, match=r"expected a run folder with config\.yaml"):
        RunFolder.open(second.path)
    with pytest.raises(ConfigError, match="which exists"):
        RunFolder.create(first.path, "x")


def test_an_impossible_run_folder_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="expected a writable place") as refused:
        RunFolder.create(tmp_path / "file" / "a" / "run", "x")
    assert "\n" not in str(refused.value)
    long = tmp_path / "new" / ("n" * 300)
    with pytest.raises(ConfigError, match="expected a writable place"):
        RunFolder.create(long, "x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# -- damage -----------------------------------------------------------------------------------

SEEN = ("surprise", "energies.intrinsic", "state.latent", "plan.actions", "observation.signals")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a trace of 90 moments with keyframes, its series and its moments."""
    path = tmp_path_factory.mktemp("sound") / "t.sqlite"
    with TraceWriter(path, PONG, 2, DRIVES, HEADS, config={"seed": 3}, keyframe_every=20) as writer:
        for step in range(90):
            writer.write(by_hand.moment(step, 2, (40, 32, 3), 0))
            if writer.due(step):
                writer.keyframe(step, b"world" * 50, b"agent" * 50)
    trace = Trace.open(path)
    return path.read_bytes(), {name: trace.series(name) for name in SEEN}, list(trace)


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def look(path, truth, moments):
    """The number of moments that can be read, and the reasons why others cannot.

    All values that are read are the recorded ones.
    """
    try:
        trace = Trace.open(path)
    except TraceError as error:
        return 0, [one_line(error)]
    with trace:
        left = SalvagedTrace(trace)
        assert (np.diff(left.steps) > 0).all()
        for name in SEEN:
            try:
                series = left.series(name)
            except TraceError:
                continue  # in a world whose layout is lost, no field is recorded
            if len(left):
                there = ~np.isnan(series).reshape(len(series), -1).any(1)
                expected = truth[name][left.steps]
                np.testing.assert_array_equal(series[there], expected[there])
        assert len(left.reasons()) == len(left)
        for step in left.steps.tolist()[::7]:
            try:
                stored = left.moment(step)
            except TraceError:
                continue
            assert stored.surprise.equal(moments[step].surprise)
            assert stored.plan.candidates.equal(moments[step].plan.candidates)
            assert stored.directive.reason == moments[step].directive.reason
            pixels = stored.observation.pixels
            assert pixels is None or pixels.equal(moments[step].observation.pixels)
        for stored in trace.keyframes_until(10**6):
            assert stored.agent == b"agent" * 50
        for ask in (trace.digest, lambda: len(trace), lambda: list(trace.keyframes_until(50)),
                    lambda: trace.series("surprise"), trace.reasons, lambda: trace.frame(3, 1),
                    lambda: trace.record(40)):  # fmt: skip
            try:
                ask()
            except TraceError as error:
                one_line(error)
        covered = sum(gap.last - gap.first + 1 for gap in left.missing if gap.first >= 0)
        assert len(left) + covered >= (90 if len(left) else 0) or not left.missing
        return len(left), [str(gap) for gap in left.missing]


def hurt(data, rng):
    data = bytearray(data)
    if rng.random() < 0.25:
        return bytes(data[: rng.integers(1, len(data))])
    if rng.random() < 0.2:
        at = int(rng.integers(0, len(data)))
        data[at : at + 4096] = rng.bytes(len(data[at : at + 4096]))
        return bytes(data)
    for at in rng.integers(0, len(data), rng.integers(1, 12)).tolist():
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def damaged(tmp_path, sound, seeds):
    data, truth, moments = sound
    path, left = tmp_path / "t.sqlite", []
    for seed in seeds:
        path.write_bytes(hurt(data, np.random.default_rng(seed)))
        left.append(look(path, truth, moments)[0])
    return left


def test_damage_never_crashes_and_altered_numbers_are_never_read(tmp_path, sound):
    left = damaged(tmp_path, sound, range(40))
    assert max(left) >= 85
    assert sum(count > 0 for count in left) > 20


def test_a_damaged_tree_that_leads_back_to_earlier_steps_ends(tmp_path, sound):
    """Damage 1100 makes `step > n` return earlier steps: reading went on without end."""
    damaged(tmp_path, sound, [1100])


@pytest.mark.slow
def test_much_damage_never_crashes(tmp_path, sound):
    left = damaged(tmp_path, sound, range(100, 2100))
    assert np.mean(np.array(left) > 0) > 0.5


def test_a_sound_trace_has_nothing_missing(tmp_path, sound):
    data, truth, moments = sound
    path = tmp_path / "t.sqlite"
    path.write_bytes(data)
    assert look(path, truth, moments) == (90, [])


def test_the_beginning_of_a_file_cut_short_is_read(tmp_path, sound):
    data, truth, moments = sound
    path = tmp_path / "t.sqlite"
    path.write_bytes(data[: len(data) * 2 // 3])
    count, missing = look(path, truth, moments)
    assert count > 20
    assert "the file is shorter than it says" in missing[0]
    assert any("cannot be read" in line for line in missing[1:])


def test_the_damage_of_steps_is_listed_and_the_rest_is_readable(tmp_path, pong, life):
    path = tmp_path / "t.sqlite"
    record(path, pong, life(12)).close()
    change = sqlite3.connect(path)
    change.execute('UPDATE moments SET reasons = \'["a", "b"]\' WHERE step IN (4, 5)')
    change.execute("UPDATE moments SET dense = x'00' WHERE step = 7")
    change.execute("UPDATE frames SET frames = x'00' WHERE step = 8")
    change.execute("UPDATE meta SET value = '{\"seed\": 9}' WHERE key = 'config'")
    change.commit()
    change.close()
    trace = Trace.open(path)
    assert trace.damage == ("its config has been altered",)
    with pytest.raises(TraceError, match="step 4 is damaged: its checksum differs"):
        trace.series("surprise")
    left = SalvagedTrace(trace)
    assert left.steps.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert [str(gap) for gap in left.missing] == [
        "its config has been altered",
        "steps 4 to 5: its checksum differs",
    ]
    latents = left.series("state.latent")
    assert np.isnan(latents[5]).all()
    assert np.isfinite(latents[6:]).all()
    assert left.moment(8).observation.pixels is None
    with pytest.raises(TraceError, match="step 7 is damaged"):
        left.moment(7)
    assert [m.step for m in left] == [0, 1, 2, 3, 6, 8, 9, 10, 11]
    assert len(left.reasons()) == 10


def test_missing_tables_are_one_line(tmp_path, pong, life):
    for table in ("meta", "moments", "layouts", "frames", "keyframes"):
        path = tmp_path / f"{table}.sqlite"
        record(path, pong, life(3)).close()
        change = sqlite3.connect(path)
        change.execute(f"DROP TABLE {table}")
        change.commit()
        change.close()
        if table == "meta":
            with pytest.raises(TraceError, match="expected a Sextet trace"):
                Trace.open(path)
            continue
        left = SalvagedTrace(Trace.open(path))
        assert len(left) == (0 if table in ("moments", "layouts") else 3)
        assert bool(left.missing) == (len(left) == 0)


def test_a_trace_of_the_first_format_is_read(tmp_path, pong, life):
    import zlib

    path, moments = tmp_path / "t.sqlite", life(5)
    record(path, pong, moments).close()
    change = sqlite3.connect(path)
    rows = change.execute("SELECT step, timeline, dense FROM moments").fetchall()
    for step, timeline, dense in rows:
        change.execute(
            "UPDATE moments SET timeline = ?, dense = ? WHERE step = ?",
            (timeline[:-4], zlib.decompress(dense), step),
        )
    change.execute("UPDATE meta SET value = '1' WHERE key = 'format_version'")
    change.execute("DELETE FROM meta WHERE key IN ('checksums', 'drive_hashes')")
    change.execute("ALTER TABLE keyframes DROP COLUMN agent")
    change.commit()
    change.close()
    trace = Trace.open(path)
    assert trace.drive_hashes == {}
    assert list(trace.keyframes_until(9)) == []
    assert not SalvagedTrace(trace).missing
    for moment, stored in zip(moments, trace, strict=True):
        torch.testing.assert_close(stored.state.latent, moment.state.latent, atol=1e-3, rtol=1e-3)
