"""`python -m tests.torture NAME`: runs a torture and prints its tally as one JSON object."""

import argparse
import json
from importlib import import_module
from pathlib import Path

from tests.torture.harness import HOME, run, tally


def main() -> int:
    """Exit 0 where every case that ran is right."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("name", help="a module of this folder: kill, faults, configs, …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", help="such as 0-99 or 7; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--minutes", type=float, default=58, help="no case begins after that")
    parser.add_argument("--log", type=Path, help="default: runs/torture/NAME.jsonl")
    wanted = parser.parse_args()
    cases = import_module(f"tests.torture.{wanted.name}").CASES
    first, _, last = (wanted.cases or f"0-{cases - 1}").partition("-")
    numbers = range(int(first), int(last or first) + 1)
    log = wanted.log or HOME / "runs" / "torture" / f"{wanted.name}.jsonl"
    outcomes = run(wanted.name, numbers, wanted.seed, log, wanted.jobs, wanted.minutes)
    told = tally(wanted.name, cases, wanted.seed, outcomes)
    print(json.dumps(told, ensure_ascii=False))
    return 1 if told["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
