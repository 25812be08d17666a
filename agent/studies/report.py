"""The report of a study: Markdown, one self-contained HTML file, CSV and JSON, figures."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.learning.statistics import LEVEL, RESAMPLES, Estimate
from agent.recording.atomic import write_text
from agent.studies.figures import draw
from agent.studies.findings import Findings, find
from agent.studies.runner import reopen, results_in
from agent.studies.study import Study, StudyWorld

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933}
body{max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;font-size:13px;margin:.7rem 0}
th,td{padding:.2rem .6rem;border-bottom:1px solid #d5dbe1;text-align:right}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}
img{max-width:100%}figcaption{color:#616e7c;font-size:13px}
"""


@dataclass(frozen=True)
class _Heading:
    text: str


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Items:
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Picture:
    name: str
    caption: str


_Block = _Heading | _Text | _Items | _Table | _Picture


def write_report(folder: Path) -> Findings:
    """Writes `report.md`, `report.html`, `results.csv`, `results.json` and `figures/` from the
    finished runs of a study's folder, and returns their findings.
    """
    study = reopen(folder)
    findings = find(study, results_in(folder), folder)
    pictures = draw(study, findings, folder / "figures")
    blocks = _blocks(study, findings, pictures)
    write_text(folder / "report.md", _markdown(study.name, blocks))
    write_text(folder / "report.html", _html(study.name, blocks, folder / "figures"))
    write_text(folder / "results.csv", _csv(findings))
    write_text(folder / "results.json", json.dumps(_plain(findings), indent=1, allow_nan=False))
    return findings


def figure(value: float) -> str:
    """A number for a table: three digits, a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    if value and abs(value) < 1e-12:
        return "0"
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def interval(estimate: Estimate) -> str:
    """A mean with its interval."""
    if not estimate.count:
        return "–"
    if math.isnan(estimate.low):
        return figure(estimate.mean)
    return f"{figure(estimate.mean)} [{figure(estimate.low)}, {figure(estimate.high)}]"


def _percent(estimate: Estimate) -> str:
    low, high = 100 * estimate.low, 100 * estimate.high
    return interval(Estimate(100 * estimate.mean, low, high, estimate.count))


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "<.0001"


def _blocks(study: Study, findings: Findings, pictures: Sequence[tuple[str, str]]) -> list[_Block]:
    drawn = {name: _Picture(name, caption) for name, caption in pictures}
    blocks: list[_Block] = [_Text(study.question)]
    if study.method:
        blocks.append(_Text(study.method))
    if findings.missing:
        count = len(findings.missing)
        blocks.append(
            _Text(f"Unfinished: {count} of {count + len(findings.runs)} runs are missing.")
        )
    if findings.verdicts:
        blocks.append(_Heading("Results"))
        met = [f"Met: {v.text}." for v in findings.verdicts if v.met]
        short = [f"Falls short: {v.text}." for v in findings.verdicts if not v.met]
        blocks.append(_Items((*met, *short)))
    blocks += _front(study, findings, drawn)
    blocks += _measured(study, findings, drawn)
    blocks += _contrasted(findings)
    blocks += _trended(findings, drawn)
    blocks += _apart(findings)
    if "curves.png" in drawn:
        blocks += [_Heading("When Mode-2 is chosen"), drawn["curves.png"]]
    if "energies.png" in drawn:
        blocks += [_Heading("Energies"), drawn["energies.png"]]
    blocks += [_Heading("Method"), _Items(tuple(_how(study)))]
    return blocks


def _front(study: Study, findings: Findings, drawn: dict[str, _Picture]) -> list[_Block]:
    blocks: list[_Block] = []
    if "front.png" in drawn or findings.gap is not None:
        blocks.append(_Heading("Return per compute"))
    if findings.gap is not None and study.gap is not None:
        gap = study.gap
        blocks.append(
            _Table(
                ("world", f"{gap.high} less {gap.low}", "p (Holm)", "counts"),
                tuple(
                    (world, interval(gain), _p(p), "yes" if world in findings.gap.worlds else "no")
                    for world, (gain, p) in findings.gap.differences.items()
                ),
            )
        )
        if findings.gap.worlds:
            blocks.append(
                _Table(
                    ("arm", "control", "% of the gap kept", "control keeps %", "beyond it, %",
                     f"% of {gap.high}'s calls", "control's"),
                    tuple(
                        (one.arm, one.control, _percent(one.share), _percent(one.control_share),
                         _percent(one.over_control), _percent(one.calls),
                         _percent(one.control_calls))
                        for one in findings.gap.shares
                    ),
                )
            )  # fmt: skip
    if "front.png" in drawn:
        blocks.append(drawn["front.png"])
    return blocks


def _measured(study: Study, findings: Findings, drawn: dict[str, _Picture]) -> list[_Block]:
    rows = tuple(
        (
            world.id,
            arm,
            str(findings.table[world.id, arm, "return"].count),
            *(interval(findings.table[world.id, arm, measure]) for measure in study.measures),
        )
        for world in study.worlds
        for arm in study.arms
    )
    table = _Table(("world", "arm", "runs", *study.measures), rows)
    return [_Heading("Measures"), table, drawn["measures.png"]]


def _contrasted(findings: Findings) -> list[_Block]:
    if not findings.contrasts:
        return []
    rows = tuple(
        (
            one.world,
            f"{one.arm} less {one.against}",
            one.measure,
            interval(one.difference),
            figure(one.effect),
            f"{100 * one.better:.0f} %" if math.isfinite(one.better) else "–",
            _p(one.p),
            _p(one.p_corrected),
        )
        for one in findings.contrasts
    )
    head = ("world", "arms", "measure", "difference", "effect d", "pairs above", "p", "p (Holm)")
    note = (
        "Paired by seed. Over all worlds differences are in units of each world's standard "
        "deviation."
    )
    return [_Heading("Comparisons"), _Table(head, rows), _Text(note)]


def _trended(findings: Findings, drawn: dict[str, _Picture]) -> list[_Block]:
    if not findings.trends:
        return []
    rows = tuple(
        (
            one.world,
            f"{one.measure} {one.direction}",
            " → ".join(figure(e.mean) for e in one.means),
            interval(one.whole),
            interval(one.tau),
            _p(one.p),
            "yes" if one.monotone else "no",
            "yes" if one.holds else "no",
        )
        for one in findings.trends
    )
    head = ("world", "trend", "means", "last less first", "rank trend", "p", "in order", "holds")
    order = tuple(
        f"{one.measure} {one.direction} over {', '.join(one.arms)}"
        for one in findings.trends
        if one.world == findings.trends[0].world
    )
    note = (
        "A trend holds where the means are in order and the intervals of the whole difference and "
        "of the rank trend within seeds (Kendall's tau, 1: in order in every seed) exclude zero."
    )
    return [
        _Heading("Trends"), _Items(order), _Table(head, rows), _Text(note), drawn["trends.png"],
    ]  # fmt: skip


def _apart(findings: Findings) -> list[_Block]:
    if not findings.distances:
        return []
    rows = tuple(
        (one.world, f"{one.arms[0]}, {one.arms[1]}", one.what, interval(one.apart),
         figure(one.usual), interval(one.beyond))
        for one in findings.distances
    )  # fmt: skip
    note = (
        "Total variation between two arms' shares of actions, and of places (64 cells of the "
        "observations), on the same seeds; 'usual' is that between two seeds of one arm, the "
        "effect of chance in episodes this short."
    )
    head = ("world", "arms", "of", "apart", "usual", "beyond")
    return [_Heading("How far behaviour moves"), _Table(head, rows), _Text(note)]


def _how(study: Study) -> list[str]:
    seeds = ", ".join(map(str, study.seeds))
    lines = [
        "Worlds, with the cap of steps an episode: "
        + "; ".join(f"{w.id} ({_rules(w)}, {w.steps})" for w in study.worlds),
        f"Seeds: {seeds}. A seed draws the same random numbers of the world in every arm.",
        f"Settings of every run: {_flat(study.base)}",
    ]
    for world in study.worlds:
        parts = [f"played by {world.agent}"] if world.agent else []
        if world.settings:
            parts.append(_flat(world.settings))
        if world.price is not None:
            parts.append(f"a model call costs {world.price:g} where an arm is tuned")
        if parts:
            lines.append(f"World {world.id}: {'; '.join(parts)}")
    for name, arm in study.arms.items():
        parts = [arm.about] if arm.about else []
        if arm.settings:
            parts.append(_flat(arm.settings))
        if arm.interventions:
            parts.append("interventions " + ", ".join(arm.interventions))
        if arm.match is not None:
            parts.append(
                f"{arm.match.setting} is the mean {arm.match.measure} of {arm.match.arm} there"
            )
        if arm.tune is not None:
            parts.append(f"tuned in each world first, {_flat(arm.tune.model_dump())}")
        if arm.train is not None:
            parts.append(f"trained for each seed first, {_flat(arm.train.model_dump())}")
        lines.append(f"Arm {name}: {'; '.join(parts) or 'as every run'}")
    lines += [
        f"Intervals are {100 * LEVEL:.0f} % bootstraps of {RESAMPLES} resamples: BCa for means and "
        "paired differences, percentiles stratified by world for shares of the gap.",
        "p: two-sided sign-flip permutation test of paired differences; Holm's correction over all "
        "comparisons of the study.",
        "Model calls: one row × candidate × step each. Energies are unweighted.",
    ]
    return lines


def _rules(world: StudyWorld) -> str:
    return world.protocol or ("those of its agent" if world.agent else "its own rules")


def _flat(settings: Any) -> str:
    return json.dumps(settings, ensure_ascii=False).replace('"', "")


# -- forms ----------------------------------------------------------------------------------


def _markdown(name: str, blocks: Sequence[_Block]) -> str:
    parts = [f"# {name}"]
    for block in blocks:
        match block:
            case _Heading(text):
                parts.append(f"## {text}")
            case _Text(text):
                parts.append(text)
            case _Items(lines):
                parts.append("\n".join(f"- {line}" for line in lines))
            case _Table(head, rows):
                drawn = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
                drawn += [
                    "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                    for row in rows
                ]
                parts.append("\n".join(drawn))
            case _Picture(file, caption):
                parts.append(f"![{caption}](figures/{file})\n\n*{caption}*")
    return "\n\n".join(parts) + "\n"


def _html(name: str, blocks: Sequence[_Block], figures: Path) -> str:
    body = [f"<h1>{html.escape(name)}</h1>"]
    for block in blocks:
        match block:
            case _Heading(text):
                body.append(f"<h2>{html.escape(text)}</h2>")
            case _Text(text):
                body.append(f"<p>{html.escape(text)}</p>")
            case _Items(lines):
                items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
                body.append(f"<ul>{items}</ul>")
            case _Table(head, rows):
                top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
                cells = "".join(
                    "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
                    for row in rows
                )
                body.append(f"<table><tr>{top}</tr>{cells}</table>")
            case _Picture(file, caption):
                data = base64.b64encode((figures / file).read_bytes()).decode()
                body.append(
                    f'<figure><img alt="{html.escape(file)}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{html.escape(caption)}</figcaption></figure>"
                )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def _csv(findings: Findings) -> str:
    """A line for each run: world, arm, seed, then every measure."""
    measures = list(dict.fromkeys(name for one in findings.runs for name in one["measures"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["world", "arm", "seed", *measures])
    for one in sorted(findings.runs, key=lambda r: (r["world"], r["arm"], r["seed"])):
        values = [one["measures"].get(name) for name in measures]
        writer.writerow(
            [one["world"], one["arm"], one["seed"], *("" if v is None else v for v in values)]
        )
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Findings as plain values for JSON: keys are joined, NaN and infinity become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {
            " · ".join(key) if isinstance(key, tuple) else str(key): _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else value.item()
