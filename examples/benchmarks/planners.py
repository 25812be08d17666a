"""Planners at equal model calls, in worlds whose dynamics are known; see `agent/bench/plan.py`.

    python examples/benchmarks/planners.py --starts 8 --seeds 0            # --json: the last line

Printed for each planner and share of the model calls of plain CEM: model calls, CPU seconds of all
starts together, the mean cost of its plans and that by plain CEM's, and the mean over starts of its
plan's cost by plain CEM's (1: equal, below: better), with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json

from agent.bench.plan import BENCH_STARTS, PLANNERS, PROBLEMS, measured


def main() -> None:
    """Prints the table, and with `--json` all of it as one line at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--starts", type=int, default=BENCH_STARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--worlds", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    planners, rows = {name: PLANNERS[name] for name in options.planners}, []
    print(f"{'world':<14}{'planner':<20}{'calls':>9}{'CPU s':>8}{'cost':>10}{'ratio':>8}")
    for world in options.worlds:
        for one in measured(world, planners, options.starts, options.seeds):
            rows.append(one)
            print(
                f"{one['world']:<14}{one['planner']:<20}{one['model_calls']:>9}{one['cpu_s']:>8}"
                f"{one['cost']:>10.4f}{one['ratio_of_means']:>8.3f}   {one['ratio']:.3f} "
                f"[{one['low']:.3f}, {one['high']:.3f}]",
                flush=True,
            )
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
