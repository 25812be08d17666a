"""The page without a browser: its data of a run, the requests it answers, its exported file."""

import http.client
import json
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from agent.cli import run
from agent.recording.trace import Trace, TraceWriter
from agent.view.page.data import Pack, Recording
from agent.view.page.futures import Imagined, spread
from agent.view.page.server import SCRIPTS, PageServer, static
from modules.messages import Moment, TraceError, WorldSpec

DRIVES = HEADS = ("score", "pain")
MARKUP = '<img src=x onerror="window.hit=1"></script><script>window.hit=1</script>'


def written(
    path: Path, world: WorldSpec, moments: list[Moment], config: dict | None = None
) -> Path:
    with TraceWriter(path, world, 2, DRIVES, HEADS, config or {}, keyframe_every=0) as writer:
        for moment in moments:
            writer.write(moment)
    return path


@pytest.fixture
def recorded(tmp_path: Path, pong: WorldSpec, life: Callable[..., list[Moment]]) -> Path:
    return written(tmp_path / "trace.sqlite", pong, life(120))


@pytest.fixture
def served(recorded: Path) -> Iterator[PageServer]:
    server = PageServer([Recording(recorded)], port=0)
    server.start()
    yield server
    server.close()


def unpacked(data: bytes) -> tuple[dict, dict]:
    """Facts and arrays, as page.js reads them: each array aligned to its numbers."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    arrays = safetensors.numpy.load(data)
    for name, array in arrays.items():
        assert (8 + length + header[name]["data_offsets"][0]) % array.itemsize == 0
    return json.loads(header["__metadata__"]["facts"]), arrays


def ask(
    server: PageServer, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    line.request(method, path, body, fields)
    answer = line.getresponse()
    content = answer.read()
    line.close()
    return answer.status, dict(answer.getheaders()), content


# -- data of a run ----------------------------------------------------------------------------


def test_series_are_those_of_the_trace(recorded: Path):
    recording = Recording(recorded)
    facts, arrays = unpacked(recording.series(row=1).to_bytes())
    with Trace.open(recorded) as trace:
        for name, path in (
            ("mode", "plan.mode"), ("surprise", "surprise"), ("score", "reward"),
            ("calls", "plan.model_calls"), ("horizon", "directive.horizon_steps"),
        ):  # fmt: skip
            np.testing.assert_array_equal(arrays[name], trace.series(path)[:, 1])
        np.testing.assert_array_equal(
            arrays["energy.1"], trace.series("energies.intrinsic")[:, 1, 1]
        )
        reasons = [facts["reasons"][code] for code in arrays["reason"]]
        assert reasons == [lines[1] for lines in trace.reasons()]
    # Rewarded at steps 9, 19, …; an episode has 50 steps.
    assert arrays["return"][[8, 9, 49, 50, 59]].tolist() == [0, 1, 5, 0, 1]


def test_later_series_go_on_where_earlier_ones_ended(recorded: Path):
    recording = Recording(recorded)
    _, whole = unpacked(recording.series(0).to_bytes())
    facts, rest = unpacked(recording.series(0, start=70).to_bytes())
    assert facts["start"] == 70
    for name in set(whole) - {"reason"}:
        np.testing.assert_array_equal(rest[name], whole[name][70:])


def test_a_run_that_is_written_grows(
    tmp_path: Path, pong: WorldSpec, life: Callable[..., list[Moment]]
):
    moments = life(90)
    with TraceWriter(tmp_path / "t.sqlite", pong, 2, DRIVES, HEADS, {}) as writer:
        for moment in moments[:40]:
            writer.write(moment)
        writer.flush()
        recording = Recording(tmp_path / "t.sqlite")
        assert recording.steps == 40
        for moment in moments[40:]:
            writer.write(moment)
        writer.flush()
        assert recording.grow() == 90
        assert len(recording.series(0).arrays["mode"]) == 90


def test_frames_are_those_recorded(recorded: Path):
    recording = Recording(recorded)
    pack = recording.frames(1, range(30, 34))
    assert pack.facts["steps"] == [30, 31, 32, 33]
    with Trace.open(recorded) as trace:
        np.testing.assert_array_equal(pack.arrays["frames"][2], trace.frame(32, 1))


def test_a_moment_is_described_field_by_field(recorded: Path):
    described = Recording(recorded).tree(12, row=1)
    parts = {part["name"]: {f["name"]: f for f in part["fields"]} for part in described["parts"]}
    assert set(parts) == {
        "observation", "state", "recollection", "energies", "directive", "plan", "expected",
    }  # fmt: skip
    u = parts["directive"]["u"]
    assert (u["axes"], u["labels"], u["values"]) == ([["K", 2]], ["score", "pain"], [1.0, 1.0])
    assert parts["directive"]["reason"]["text"].startswith("row 1")
    assert parts["plan"]["candidate_energies"]["values"][2] == "∞"
    assert parts["observation"]["pixels"] == {"name": "pixels", "note": "shown as the frame"}
    json.dumps(described, allow_nan=False)


def test_a_pack_survives_odd_lengths():
    pack = Pack(
        {"a": "é"}, {"x": np.arange(3, dtype=np.uint8), "y": np.arange(5, dtype=np.float32)}
    )
    facts, arrays = unpacked(pack.to_bytes())
    assert facts["a"] == "é"
    assert arrays["x"].tolist() == [0, 1, 2]
    assert arrays["y"].tolist() == [0, 1, 2, 3, 4]


def test_the_rest_of_a_damaged_run_is_readable(recorded: Path):
    database = sqlite3.connect(recorded)
    database.execute("UPDATE moments SET timeline = substr(timeline, 1, 50) WHERE step = 30")
    database.execute("UPDATE frames SET frames = x'00' WHERE step = 31")
    database.commit()
    database.close()
    recording = Recording(recorded)
    assert recording.steps == 120
    assert any("30" in line for line in recording.missing)
    arrays = recording.series(0).arrays
    assert np.isnan(arrays["surprise"][30])
    assert np.isfinite(np.delete(arrays["surprise"], 30)).all()
    assert recording.frames(0, range(30, 33)).facts["steps"][-1] == 32
    assert not recording.tree(30, 0)["readable"]
    assert recording.tree(31, 0)["readable"]


def test_the_beginning_of_a_run_cut_short_is_readable(recorded: Path):
    whole = recorded.read_bytes()
    recorded.write_bytes(whole[: len(whole) * 2 // 3])
    recording = Recording(recorded)
    assert recording.missing
    assert np.isfinite(recording.series(0).arrays["surprise"]).any()


def test_pictures_are_spread_over_a_future():
    assert spread(3) == [1, 2, 3]
    assert spread(48)[0] == 1
    assert spread(48)[-1] == 48
    assert len(spread(48)) == 12


@pytest.fixture(scope="module")
def planning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that plans in the simulator."""
    folder = tmp_path_factory.mktemp("runs") / "planning"
    code = run([
        "play", "ALE/Breakout-v5", "--world_model.kind=clairvoyant", "--steps", "30", "--seed", "5",
        "--directive.horizon_steps=10", "--directive.model_calls=80",
        "--directive.commit_steps=10", "--no-live", "--run", str(folder),
    ])  # fmt: skip
    assert code == 0
    return folder


def test_the_chosen_future_of_a_simulator_is_the_recorded_one(planning: Path):
    """A clairvoyant simulator uses the random numbers of the world."""
    recording = Recording(planning)
    arrays = recording.series(0).arrays
    step = next(s for s in range(2, 19) if arrays["calls"][s] > 0)
    pack = Imagined(recording).pack(step, 0)
    assert "keyframe" in pack.facts["how"], pack.facts
    chosen, recorded = pack.facts["futures"][0], pack.facts["recorded"]
    frames = pack.arrays["frames"]
    followed = 1
    while arrays["calls"][step + followed] == 0 and followed < 9:
        followed += 1
    pairs = [
        (chosen["frames"][i], recorded["frames"][recorded["at"].index(ahead)])
        for i, ahead in enumerate(chosen["at"])
        if ahead <= followed
    ]
    assert pairs
    for mine, real in pairs:
        np.testing.assert_array_equal(frames[mine], frames[real])
    assert len({tuple(f["actions"]) for f in pack.facts["futures"]}) > 1


# -- requests ---------------------------------------------------------------------------------


def test_only_requests_of_its_own_page_are_answered(served: PageServer):
    here = f"127.0.0.1:{served.port}"
    assert ask(served, "/about")[0] == 200
    assert ask(served, "/about", Host=f"localhost:{served.port}")[0] == 200
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1", here + ".evil"):
        assert ask(served, "/about", Host=host)[0] == 403
    assert ask(served, "/about", Origin=f"http://{here}")[0] == 200
    for origin in ("http://evil.example", "null", f"https://{here}", "http://127.0.0.1:1"):
        assert ask(served, "/about", Origin=origin)[0] == 403
    assert ask(served, "/about", Sec_Fetch_Site="cross-site")[0] == 403


def test_only_its_own_files_are_served(served: PageServer):
    assert ask(served, "/")[0] == 200
    for path in ("/../data.py", "/%2e%2e/data.py", "/static/page.js", "/page.js/../../data.py",
                 "//etc/passwd", "/etc/passwd", "/index.html"):  # fmt: skip
        assert ask(served, path)[0] == 404


def test_every_answer_has_the_security_headers(served: PageServer):
    for path in ("/", "/page.js", "/about", "/nothing"):
        _, headers, _ = ask(served, path)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/moment?run=0&step=x&row=0", "/moment?run=7&step=1&row=0", "/moment?run=0&step=1&row=9",
     "/frames?run=0&row=0&from=0&count=100000", "/series?run=0", "/futures?run=-1&step=0&row=0",
     "/moment?run=0&step=1&step=2&row=0", "/moment?run=0&step=99999999999999999999&row=0"],
)  # fmt: skip
def test_a_wrong_request_is_answered_by_one_line(served: PageServer, path: str):
    status, _, body = ask(served, path)
    assert status in (200, 400, 404, 422)
    answer = json.loads(body)
    assert "error" in answer or answer["readable"] is False
    assert "Traceback" not in body.decode()


def test_a_fork_needs_the_token(served: PageServer):
    body = json.dumps({"run": 0, "row": 0, "at": 3, "steps": 2, "hold": 1, "changes": {}})
    assert ask(served, "/fork", "POST", body)[0] == 403
    assert ask(served, "/fork", "POST", body, X_Sextet_Token="guess")[0] == 403
    # This run has no configuration, so it cannot be continued.
    status, _, error = ask(served, "/fork", "POST", body, X_Sextet_Token=served.token)
    assert status == 422
    assert "configuration" in json.loads(error)["error"]
    assert ask(served, "/fork", "POST", "{}", X_Sextet_Token=served.token)[0] == 400
    assert ask(served, "/fork", "POST", "x" * 9000, X_Sextet_Token=served.token)[0] == 413


GROWING = """
const written = [];
class Grown extends ServedRun {
  async ask(verb) {
    const grown = { steps: written.length, missing: [] };
    if (verb === "series") return { arrayBuffer: async () => null };
    return { json: async () => grown };
  }
  async load() { this.length = written.length; }
  async fetchChunk(n) {
    const shown = written.slice();
    await this.wait;
    return new Map(shown.filter((s) => Math.floor(s / CHUNK) === n).map((s) => [s, { step: s }]));
  }
}
const settle = () => new Promise((done) => setImmediate(done));
const to = (count) => { while (written.length < count) written.push(written.length); };
(async () => {
  const run = new Grown(0, { first: 0, pixels: [1, 1, 1], missing: [] }, 0);
  to(40);
  await run.grow();
  run.frame(39);
  await settle();
  to(70);
  await run.grow();
  // The last chunk is requested while it is short and the run grows.
  let answer;
  run.frame(69);
  await settle();
  run.wait = new Promise((done) => { answer = done; });
  to(80);
  await run.grow();
  run.frame(79);
  await settle();
  to(90);
  await run.grow();
  answer();
  run.wait = null;
  await settle();
  const blank = [];
  for (let step = 0; step < 90; step += 1) {
    run.frame(step);
    await settle();
    if (!run.frame(step)) blank.push(step);
  }
  process.stdout.write(JSON.stringify(blank));
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_a_run_that_grows_shows_every_frame():
    script = static("numbers.js") + static("source.js").replace('"use strict";', "") + GROWING
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert json.loads(done.stdout) == []


def test_scripts_never_write_markup():
    for name in SCRIPTS:
        text = static(name)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    for name in ("index.html", "page.css", *SCRIPTS):
        assert not re.search(r"(src|href)=\"(https?:)?//|url\(|@import", static(name))


# -- the command ------------------------------------------------------------------------------


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = run(["view", *arguments])
    shown = capsys.readouterr()
    assert code == 2, shown
    assert shown.err.count("\n") == 1
    return shown.err


def test_a_missing_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "no such file" in fails(capsys, str(tmp_path / "nothing"), "--no-open")
    (tmp_path / "trace.sqlite").write_bytes(b"this is not a database, " * 100)
    assert "expected a Sextet trace" in fails(capsys, str(tmp_path), "--no-open")


def test_a_newer_trace_is_refused(recorded: Path, capsys: pytest.CaptureFixture[str]):
    database = sqlite3.connect(recorded)
    database.execute("UPDATE meta SET value = '999' WHERE key = 'format_version'")
    database.commit()
    database.close()
    assert "newer Sextet" in fails(capsys, str(recorded), "--no-open")


def test_a_taken_or_impossible_port_is_refused(recorded: Path, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        assert taken in fails(capsys, str(recorded), "--no-open", "--port", taken)
    assert "0 to 65535" in fails(capsys, str(recorded), "--no-open", "--port", "70000")
    assert "row below 2" in fails(capsys, str(recorded), "--no-open", "--row", "5")
    one = str(recorded)
    assert "one RUN or two" in fails(capsys, one, one, one, "--no-open")


def test_without_a_port_the_next_free_one_is_taken(recorded: Path):
    first = PageServer([Recording(recorded)])
    second = PageServer([Recording(recorded)])
    assert first.port != second.port
    first.close()
    second.close()


def test_an_export_that_cannot_be_written_leaves_nothing(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(tmp_path.iterdir())
    assert "writable" in fails(capsys, str(recorded), "--export", str(tmp_path / "no" / "x.html"))
    assert "folder" in fails(capsys, str(recorded), "--export", str(tmp_path))
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_holds_no_markup_of_the_run(
    tmp_path: Path,
    pong: WorldSpec,
    life: Callable[..., list[Moment]],
    capsys: pytest.CaptureFixture[str],
):
    moments = [m.replace(directive=m.directive.replace(reason=(MARKUP, MARKUP))) for m in life(20)]
    place = tmp_path / "bad"
    place.mkdir()
    world = pong.model_copy(update={"id": MARKUP})
    written(place / "trace.sqlite", world, moments, {"seed": MARKUP})
    file = tmp_path / "page.html"
    assert run(["view", str(place), "--export", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("<script") == 1 + len(SCRIPTS)
    assert sorted(tmp_path.iterdir()) == [place, file]


def test_the_command_prints_the_damage_of_a_run(recorded: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copy(recorded, recorded.parent / "whole.sqlite")
    database = sqlite3.connect(recorded)
    database.execute("UPDATE moments SET timeline = x'00' WHERE step = 7")
    database.commit()
    database.close()
    assert run(["view", str(recorded), "--export", str(recorded.parent / "x.html")]) == 0
    assert "step 7" in capsys.readouterr().out


def test_nothing_readable_is_an_error(recorded: Path):
    database = sqlite3.connect(recorded)
    database.execute("UPDATE moments SET timeline = x'00'")
    database.commit()
    database.close()
    with pytest.raises(TraceError, match="no step"):
        Recording(recorded)
