"""The page in a browser: drawing, keys, and runs whose text is markup."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent.cli import run
from agent.recording.trace import Trace, TraceWriter
from tests.agent import by_hand
from tests.browser.chromium import Chromium
from tests.browser.handmade import write

MARKUP = "<img src=x onerror='window.hit=1'></script><script>window.hit=1;alert(1)</script>"
Serve = Callable[..., str]


def cursor(page: Chromium) -> int:
    return page.run("page.cursor")


def go(page: Chromium, step: int) -> None:
    page.run(f"page.go({step}, true)")
    page.drawn()


def lane(page: Chromium, key: str) -> dict[str, float]:
    """The place of a lane in the plot."""
    return page.run(
        f"(() => {{ const l = page.parts[0].lanes.lanes.find(l => l.key === '{key}');"
        "return { top: l.top, height: l.height }; })()"
    )


def x(page: Chromium, step: float) -> float:
    return page.run(f"page.parts[0].lanes.x({step})")


def mode_colour(page: Chromium, step: int) -> tuple[int, ...]:
    where = lane(page, "mode")
    middle = where["top"] + where["height"] / 2
    return tuple(page.pixel(".plot .base", x(page, step + 0.5), middle))


def rgb(page: Chromium, name: str) -> tuple[int, ...]:
    code = page.run(f"colours()['{name}']")
    return (*(int(code[i : i + 2], 16) for i in (1, 3, 5)), 255)


def test_the_frame_shows_the_recorded_pixels(page: Chromium, serve: Serve, recorded: Path):
    page.open(serve(recorded))
    with Trace.open(recorded) as trace:
        for step in (0, 40):
            go(page, step)
            page.until(
                f"document.querySelector('figcaption').textContent === 'frame of step {step}'"
            )
            shown = page.run(
                "[...document.querySelector('.frame').getContext('2d')"
                ".getImageData(0, 0, 84, 84).data]"
            )
            seen = np.array(shown, np.uint8).reshape(84, 84, 4)
            np.testing.assert_array_equal(seen[:, :, :1], trace.frame(step))
            np.testing.assert_array_equal(seen[:, :, 1:2], trace.frame(step))


def test_the_mode_lane_changes_where_the_mode_does(page: Chromium, serve: Serve, recorded: Path):
    page.open(serve(recorded))
    with Trace.open(recorded) as trace:
        mode = trace.series("mode")[:, 0]
    switches = 1 + np.flatnonzero(np.diff(mode))
    assert len(switches)
    mode_1, mode_2 = rgb(page, "line"), rgb(page, "accent")
    for step in (switches[0] - 1, switches[0], switches[-1] - 1, switches[-1]):
        expected = mode_2 if mode[step] == 2 else mode_1
        assert mode_colour(page, int(step)) == expected, step
    # The key moves from switch to switch, and back.
    for step in switches[:2]:
        page.press("m")
        assert cursor(page) == step
    page.press("m", shift=True)
    assert cursor(page) == switches[0]


def test_keys_move_the_cursor(page: Chromium, serve: Serve, recorded: Path):
    page.open(serve(recorded))
    for key, shift, expected in (
        ("ArrowRight", False, 1), ("ArrowRight", True, 11), ("ArrowLeft", False, 10),
        ("End", False, 69), ("ArrowRight", False, 69), ("Home", False, 0), ("ArrowLeft", True, 0),
    ):  # fmt: skip
        page.press(key, shift)
        assert cursor(page) == expected, (key, shift)
    page.drawn()
    before = page.pixel(".plot .over", x(page, 0.5), 120)
    page.press("End")
    page.drawn()
    assert page.pixel(".plot .over", x(page, 0.5), 120) != before
    page.press("Home")
    page.press(" ")
    assert page.text("#play") == "pause"
    page.until("page.cursor >= 3")
    if page.run("Boolean(page.playing)"):
        page.press(" ")
    assert page.text("#play") == "play"
    page.press("?")
    assert page.run("document.getElementById('keys').open") is True
    page.press("Escape")
    page.until("!document.getElementById('keys').open")


def test_every_control_has_a_name_and_a_key(page: Chromium, serve: Serve, recorded: Path):
    page.open(serve(recorded))
    unnamed = page.run(
        "[...document.querySelectorAll('button, input, select')].filter(e => !e.closest('[hidden]')"
        " && !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []
    go(page, 7)
    slider = page.run(
        "(() => { const p = document.querySelector('.plot'); return [p.getAttribute('role'),"
        " p.getAttribute('aria-valuenow'), p.tabIndex]; })()"
    )
    assert slider == ["slider", "7", 0]
    page.press("Tab")
    outlined = page.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outlined == "solid"


def test_all_messages_of_a_moment_are_shown(page: Chromium, serve: Serve, recorded: Path):
    page.open(serve(recorded))
    go(page, 12)
    page.until("document.body.dataset.settled === '12'")
    with Trace.open(recorded) as trace:
        moment = trace.moment(12)
    assert moment.directive.reason[0] in page.text("#messages-body")
    assert page.text(".pill").startswith(f"Mode-{int(moment.plan.mode[0])}")
    names = page.run("[...document.querySelectorAll('.tree .part')].map(e => e.textContent)")
    assert names == [
        "observation",
        "state",
        "recollection",
        "energies",
        "directive",
        "plan",
        "expected",
    ]
    page.run("document.querySelector('summary[data-path=state]').click()")
    page.until("document.querySelector('summary[data-path=\"state.latent\"]')")
    page.run("document.querySelector('summary[data-path=\"state.latent\"]').click()")
    page.until("document.querySelectorAll('.tree table td').length >= 256")


def test_futures_are_shown_with_their_frames(page: Chromium, serve: Serve, recorded: Path):
    page.open(serve(recorded))
    with Trace.open(recorded) as trace:
        step = int(np.flatnonzero(trace.series("model_calls")[:, 0])[0])
    go(page, step)
    page.until("document.querySelectorAll('.future .strip').length >= 3")
    assert "simulator" in page.text("#futures-how")
    energies = page.run("[...document.querySelectorAll('.future .energy')].map(e => e.textContent)")
    assert energies[-1] == "recorded"
    assert page.text(".future .head").count("chosen") == 1
    lit = page.run(
        "(() => { const c = document.querySelector('.strip');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return d.filter((v, i) => i % 4 < 3 && v > 60).length; })()"
    )
    assert lit > 500


def fork(page: Chromium, step: int, change: tuple[str, str] | None, steps: int) -> None:
    go(page, step)
    page.run("document.querySelector('.result').hidden = true")
    field, value = change or ("", "")
    page.run(
        f"(() => {{ const f = document.getElementById('fork-field'); f.value = '{field}';"
        "f.dispatchEvent(new Event('change'));"
        f"document.getElementById('fork-value').value = '{value}';"
        f"document.getElementById('fork-steps').value = {steps};"
        "document.getElementById('fork-go').click(); })()"
    )
    page.until("!document.querySelector('.result').hidden")


def test_a_fork_with_nothing_changed_is_identical(page: Chromium, serve: Serve, recorded: Path):
    page.open(serve(recorded))
    fork(page, 20, None, 10)
    assert page.text(".verdict") == "identical"
    digests = page.run("[...document.querySelectorAll('.result code')].map(c => c.title)")
    assert len(digests) == 2
    assert digests[0] == digests[1]
    page.press("Home")
    fork(page, 20, ("plan.action", "LEFT"), 10)
    assert page.text(".verdict") != "identical"
    digests = page.run("[...document.querySelectorAll('.result code')].map(c => c.title)")
    assert digests[0] != digests[1]
    assert page.run("page.parts[0].lanes.fork.value('return', 20)") == page.run(
        "page.runs[0].value('return', 20)"
    )
    go(page, 25)
    page.until("document.querySelector('.screen.fork figcaption').textContent === 'fork, step 25'")
    assert page.run("page.parts[0].lanes.fork.length") == 10
    # An error is shown in one line.
    fork(page, 20, ("directive.mode", "7"), 10)
    assert "1 to 2" in page.text(".result")
    page.drawn()
    assert len(page.errors) == 1
    assert "/fork" in page.errors.pop()


def test_two_runs_share_a_cursor(page: Chromium, serve: Serve, recorded: Path, tmp_path: Path):
    other = write(
        tmp_path / "other.sqlite", [by_hand.moment(s, 2, (40, 32, 3), 0) for s in range(30)]
    )
    page.open(serve(recorded, other))
    go(page, 12)
    now = page.run(
        "[...document.querySelectorAll('.plot')].map(p => p.getAttribute('aria-valuenow'))"
    )
    assert now == ["12", "12"]
    go(page, 50)
    assert "beyond" in page.run("document.querySelectorAll('.values')[1].textContent")
    page.press("2")
    assert page.run("page.selected === page.runs[1]") is True
    page.until("document.querySelector('#fork-body').textContent.includes('cannot be forked')")


def test_markup_in_a_run_is_text(page: Chromium, serve: Serve, tmp_path: Path):
    moments = [by_hand.moment(step, 2, (40, 32, 3), 0) for step in range(12)]
    moments = [m.replace(directive=m.directive.replace(reason=(MARKUP, MARKUP))) for m in moments]
    names = (MARKUP, "FIRE", "RIGHT", "LEFT")
    actions = by_hand.PONG.actions.model_copy(update={"names": names})
    world = by_hand.PONG.model_copy(update={"id": MARKUP, "actions": actions})
    config = {"seed": MARKUP, "configurator": {"kind": MARKUP}, "world_model": {"kind": MARKUP}}
    place = tmp_path / "<b onclick='window.hit=1'>bold<b>"
    place.mkdir()
    write(place / "trace.sqlite", moments, world, config)
    file = tmp_path / "page.html"
    assert run(["view", str(place), "--export", str(file)]) == 0
    for url in (serve(place), file.as_uri()):
        page.open(url)
        go(page, 3)
        page.until("document.body.dataset.settled === '3'")
        assert MARKUP in page.text(".facts")
        assert page.run("window.hit") is None
        assert page.run("document.querySelectorAll('main img, main script, main b').length") == 0
    # The policy of the page would also stop a script that was inserted.
    page.run(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.hit = 1';"
        "document.body.append(s); })()"
    )
    assert page.run("window.hit") is None
    page.errors[:] = [e for e in page.errors if "Content Security Policy" not in e]


def test_an_exported_file_works_by_itself(
    page: Chromium, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "page.html"
    assert run(["view", str(recorded), "--export", str(file)]) == 0
    page.open(file.as_uri())
    with Trace.open(recorded) as trace:
        mode, calls = trace.series("mode")[:, 0], trace.series("model_calls")[:, 0]
        expected = trace.frame(40)
    switch = int(1 + np.flatnonzero(np.diff(mode))[0])
    page.press("m")
    assert cursor(page) == switch
    go(page, 40)
    page.until("document.querySelector('figcaption').textContent === 'frame of step 40'")
    shown = page.run(
        "[...document.querySelector('.frame').getContext('2d').getImageData(0, 0, 84, 84).data]"
    )
    np.testing.assert_array_equal(np.array(shown, np.uint8).reshape(84, 84, 4)[:, :, :1], expected)
    go(page, int(np.flatnonzero(calls)[0]))
    page.until("document.querySelectorAll('.future .strip').length >= 3")
    assert "sextet view" in page.text("#fork-body")


def test_20_000_steps_open_and_scrub(page: Chromium, serve: Serve, long: Path):
    """examples/benchmarks/page.py measures the time."""
    page.open(serve(long))
    assert page.run("page.runs[0].length") == 20_000
    for step in (7919, 19_999):
        go(page, step)
        assert cursor(page) == step
    # The surprise of this run fills its lane.
    where = lane(page, "surprise")
    inked = page.run(
        f"page.parts[0].lanes.base.getContext('2d').getImageData(0, {where['top']}, 600,"
        f" {where['height']}).data.filter((v, i) => i % 4 === 3 && v > 0).length"
    )
    assert inked > 3000


def test_a_run_that_is_written_is_followed(page: Chromium, serve: Serve, tmp_path: Path):
    moments = [by_hand.moment(step, 2, (40, 32, 3), 0) for step in range(40)]
    drives = by_hand.DRIVES
    with TraceWriter(tmp_path / "t.sqlite", by_hand.PONG, 2, drives, drives, {}) as writer:
        for moment in moments[:20]:
            writer.write(moment)
        writer.flush()
        page.open(serve(tmp_path / "t.sqlite"))
        page.press("End")
        for moment in moments[20:]:
            writer.write(moment)
        writer.flush()
        page.until("page.runs[0].length === 40")
        page.until("page.cursor === 39")


def test_missing_steps_of_a_damaged_run_are_listed(page: Chromium, serve: Serve, tmp_path: Path):
    file = write(tmp_path / "t.sqlite", [by_hand.moment(s, 2, (40, 32, 3), 0) for s in range(30)])
    database = sqlite3.connect(file)
    database.execute("UPDATE moments SET timeline = x'00' WHERE step = 7")
    database.commit()
    database.close()
    page.open(serve(file))
    assert "step 7" in page.text("#notices")
    go(page, 7)
    page.until("document.body.dataset.settled === '7'")
    assert "damaged" in page.text("#messages-body")
    go(page, 8)
    page.until("document.querySelector('figcaption').textContent === 'frame of step 8'")
