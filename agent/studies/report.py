"""The report of a study: Markdown, one self-contained HTML file, CSV and JSON, figures."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.engines import ledger
from agent.learning.statistics import LEVEL, RESAMPLES, Estimate
from agent.recording.atomic import write_text
from agent.recording.plain_json import dumps
from agent.studies.figures import draw
from agent.studies.findings import Findings, find
from agent.studies.measures import TIMED
from agent.studies.runner import reopen, results_in
from agent.studies.study import Study

TEMPLATE = Path(__file__).with_name("report.md.j2")

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933}
body{max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;font-size:13px;margin:.7rem 0}
th,td{padding:.2rem .6rem;border-bottom:1px solid #d5dbe1;text-align:right}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}
img{max-width:100%}em{color:#616e7c;font-size:13px}
"""


def write_report(folder: Path) -> Findings:
    """Writes `report.md`, `report.html`, `results.csv`, `results.json` and `figures/` from the
    finished runs of a study's folder, and returns their findings.
    """
    study = reopen(folder)
    findings = find(study, results_in(folder), folder)
    pictures = draw(study, findings, folder / "figures")
    text = as_markdown(study, findings, pictures, ledger.entries(folder))
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", _as_html(study.name, text, folder))
    write_text(folder / "results.csv", _csv(findings))
    write_text(folder / "results.json", dumps(_plain(findings), indent=1))
    return findings


def as_markdown(
    study: Study,
    findings: Findings,
    pictures: dict[str, str],
    jobs: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The report in Markdown; `pictures`: the captions of its figures by file name. `jobs`: the
    ledger.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "number": figure,
        "interval": interval,
        "percent": _percent,
        "share": lambda share: f"{100 * share:.0f} %" if math.isfinite(share) else "–",
        "p_value": lambda p: f"{p:.2g}" if p >= 1e-4 else "<.0001",
        "settings": _flat,
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=study,
        findings=findings,
        pictures=pictures,
        retried=[job for job in jobs if job.get("retries")],
        processors=sorted({str(job.get("processor")) for job in jobs}),
        hosts=sorted({str(job.get("host")) for job in jobs}),
        level=f"{100 * LEVEL:.0f}",
        resamples=RESAMPLES,
    )


def _as_html(name: str, markdown: str, folder: Path) -> str:
    """The Markdown as one page that holds its figures."""
    from markdown_it import MarkdownIt

    def embedded(source: re.Match[str]) -> str:
        data = base64.b64encode((folder / source[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'src="(figures/[^"]*)"', embedded, body)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style>{body}</html>\n"
    )


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


def _flat(settings: Any) -> str:
    """Settings on one line, nothing where there are none."""
    return dumps(settings, ensure_ascii=False).replace('"', "") if settings else ""


def _csv(findings: Findings) -> str:
    """A line for each run: world, arm, seed, then every measure but those of time."""
    runs = sorted(findings.runs, key=lambda run: (run["world"], run["arm"], run["seed"]))
    # Times differ from run to run, and the file shall not: they are in results.json.
    names = (name for run in findings.runs for name in run["measures"] if name not in TIMED)
    measures = dict.fromkeys(names)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["world", "arm", "seed", *measures])
    for run in runs:
        values = [run["measures"].get(name) for name in measures]
        writer.writerow([run["world"], run["arm"], run["seed"], *values])
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Findings as plain values for JSON: keys are joined, NaN and infinity become null."""
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {
            " · ".join(key) if isinstance(key, tuple) else str(key): _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
