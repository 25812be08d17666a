"""`sextet view`: the page of one run, or of two side by side."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from agent.view.page.data import Recording
from agent.view.page.export import export as write_page
from agent.view.page.server import PageServer
from modules.messages import ConfigError


def view(
    runs: Sequence[Path],
    port: int | None = None,
    export: Path | None = None,
    plugins: Sequence[str] = (),
    *,
    browse: bool,
    row: int,
) -> None:
    """Serves the page until Ctrl-C, or writes it into one file.

    Raises TraceError or ConfigError, one line, before anything is served or written.
    """
    if len(runs) > 2:
        raise ConfigError(f"view: expected one RUN or two, got {len(runs)}")
    recordings = [Recording(path) for path in runs]
    for recording in recordings:
        for line in recording.missing:
            print(f"missing   {recording.name}: {line}")
    if export is not None:
        size = write_page(recordings, export, row, tuple(plugins))
        print(f"page      {export}, {size / 2**20:.1f} MB")
        return
    server = PageServer(recordings, port, row, tuple(plugins))
    print(f"page      {server.url}  (Ctrl-C ends it)", flush=True)
    if browse:
        webbrowser.open(server.url)
    try:
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
