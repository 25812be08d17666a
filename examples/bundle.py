"""Makes a bundled agent of a finished training: best weights, provenance, evaluations.

    python examples/bundle.py runs/train-ALE-Krull-v5-1 krull --commit 1a2b3c4

The folder `agent/assembly/bundled/NAME` then holds `config.yaml`, one checkpoint (safetensors and
JSON) and `provenance.json`: the command, seed, commit and CPU time of the training, and evaluations
of what is bundled, under each protocol of its world. Matrices are stored in half precision, which
halves the file; the evaluations are of the stored weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from agent.assembly.merge import read_yaml
from agent.assembly.resolve import BUNDLED
from agent.recording import checkpoint

HALVED_FROM = 2
"""Tensors of at least so many axes are halved: matrices, not scales that may be large."""


def bundled(run: Path, name: str, commit: str, command: str) -> Path:
    """Copies config and best weights of `run` to a new bundled agent; its folder."""
    folder = BUNDLED / name
    if folder.exists():
        raise SystemExit(f"bundle: expected a new name, got '{name}', which is bundled already")
    best = checkpoint.load(run / "checkpoints" / "best", only=("weights",))
    weights = {
        key: value.half() if value.is_floating_point() and value.dim() >= HALVED_FROM else value
        for key, value in best.tensors["weights"].items()
    }
    config = read_yaml(run / "config.yaml")
    facts = {
        "drives": best.facts["drives"],
        "steps": best.facts["steps"],
        "updates": best.facts["updates"],
        "seed": best.facts["seed"],
        "cpu_seconds": round(best.facts["cpu_seconds"]),
    }
    folder.mkdir()
    shutil.copy(run / "config.yaml", folder / "config.yaml")
    checkpoint.save(
        folder / "checkpoints",
        "best",
        checkpoint.Checkpoint(tensors={"weights": weights}, facts=facts),
    )
    provenance = {
        "command": command or f"sextet train {config['world']['id']} --seed {config['seed']}",
        "commit": commit,
        "torch": torch.__version__,
        **{key: value for key, value in facts.items() if key != "drives"},
        "evaluations": [],
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
    return folder


def evaluated(name: str, episodes: int, protocol: str | None) -> dict[str, Any]:
    """The figures of `sextet eval` for a bundled agent, without the single returns."""
    command = [sys.executable, "-m", "agent.cli", "eval", name, "--episodes", str(episodes)]
    command += ["--num-envs", "10", "--json", *(["--protocol", protocol] if protocol else [])]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(shown.stdout.splitlines()[-1])
    return {key: value for key, value in figures.items() if key not in ("returns", "checkpoint")}


def main() -> None:
    """Bundles, evaluates, and writes the provenance of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--commit", required=True, help="what the training ran from")
    parser.add_argument("--command", default="", help="the command it was trained by")
    parser.add_argument("--episodes", type=int, default=30)
    options = parser.parse_args()
    folder = bundled(options.run, options.name, options.commit, options.command)
    atari = read_yaml(folder / "config.yaml")["world"]["id"].startswith("ALE/")
    place = folder / "provenance.json"
    provenance = json.loads(place.read_text())
    for protocol in ("v5", "100k") if atari else (None,):
        provenance["evaluations"].append(evaluated(options.name, options.episodes, protocol))
        place.write_text(json.dumps(provenance, indent=1) + "\n")
        print(json.dumps(provenance["evaluations"][-1]))


if __name__ == "__main__":
    main()
