"""`jobs.jsonl`: where and how long each job of a folder ran, and what had to be repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.engines.engine import JobResult

LEDGER = "jobs.jsonl"
"""In the folder of a study or of a training with several seeds: a line a finished job."""


def enter(folder: Path, result: JobResult) -> None:
    """Adds the line of a job: name, seconds, host, processor, retries."""
    where = result.where
    line = {
        "name": result.job.name, "seconds": round(result.seconds, 3), "host": where.host,
        "processor": where.processor, "pid": where.pid, "retries": result.retries,
    }  # fmt: skip
    path = folder / LEDGER
    with open(path, "ab+") as file:
        # A line that a killed process left unfinished must not swallow the next one.
        if file.seek(0, 2) and _last_byte(path) != b"\n":
            file.write(b"\n")
        file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, 2)
        return file.read(1)


def entries(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's ledger, without one that was cut; none where there is no ledger."""
    try:
        text = (folder / LEDGER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            lines.append(entry)
    return lines
