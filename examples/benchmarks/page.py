"""How fast the page is: a run of 20,000 steps is opened and scrubbed in a headless Chromium.

    python examples/benchmarks/page.py [--json]

`ready_ms`: until the page has drawn the run. `processor_ms`: processor time of page and server for
that, which other programs do not disturb. `move_ms`: one move of the cursor with all lanes drawn,
the median of 100. The aims are 2000, 2000 and 30.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from agent.view.page.data import Recording
from agent.view.page.server import PageServer
from tests.browser.chromium import Chromium
from tests.browser.handmade import write_long

MOVES = """
(() => {
  const taken = [];
  for (let i = 0; i < 100; i += 1) {
    page.go((i * 7919) % page.runs[0].length, true);
    page.paintAll();
    taken.push(page.drawn);
  }
  return taken.sort((a, b) => a - b)[50];
})()
"""


def run(turns: int = 40) -> dict[str, float]:
    """The figures for a run of 500 x `turns` steps."""
    with tempfile.TemporaryDirectory() as folder, Chromium() as page:
        server = PageServer([Recording(write_long(Path(folder) / "trace.sqlite", turns))], port=0)
        server.start()
        try:
            page.ask("Performance.enable", timeDomain="threadTicks")
            spent, worked = time.process_time(), page.worked()
            ready = page.open(server.url)
            processor = 1000 * (time.process_time() - spent + page.worked() - worked)
            return {"ready_ms": ready, "processor_ms": processor, "move_ms": page.run(MOVES)}
        finally:
            page.ask("Page.navigate", url="about:blank")
            server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    as_json = parser.parse_args().json
    figures = run()
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<14} {value:.1f}")


if __name__ == "__main__":
    main()
