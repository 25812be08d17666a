"""Makes the two pictures of README: the dashboard as SVG, the page of a recorded run as PNG.

    python examples/pictures.py --out docs/figures

The dashboard shows the showpiece (Breakout planned in the emulator) after 120 steps; the page shows
a run of 300 steps in which `surprise` decides when to plan. The page needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from agent import live, load
from agent.view.dashboard import Dashboard

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def dashboard(place: Path, steps: int) -> None:
    player = load("showpiece", seed=1)
    cost, spec = player.agent.modules.cost, player.world.spec
    console = Console(record=True, width=118, height=36, file=io.StringIO(), force_terminal=True)
    shown = Dashboard(spec, cost.drives, cost.heads, player.world.render, console=console)
    for moment in live(player.agent, player.world, steps=steps, seed=1):
        shown.show(moment)
        last = moment
    console.print(shown.picture(last))
    console.save_svg(str(place), title="sextet play")


def page(place: Path, steps: int) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"pictures: expected one of {', '.join(BROWSERS)} for the page, found none")
    with tempfile.TemporaryDirectory() as folder:
        run, file = Path(folder, "run"), Path(folder, "run.html")
        play = ["play", "ALE/Breakout-v5", "--preset", "fair", "--configurator.kind=surprise"]
        play += ["--steps", str(steps), "--seed", "5", "--run", str(run), "--no-live"]
        for words in (play, ["view", str(run), "--export", str(file)]):
            subprocess.run([sys.executable, "-m", "agent.cli", *words], check=True)
        subprocess.run(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--window-size=1280,900", "--virtual-time-budget=8000", f"--screenshot={place}",
             file.as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    dashboard(options.out / "dashboard.svg", 120)
    page((options.out / "page.png").resolve(), 300)


if __name__ == "__main__":
    main()
