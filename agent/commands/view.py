"""`sextet view`: the page of one run, or of two side by side."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from agent.view.page.data import Recording
from agent.view.page.export import export
from agent.view.page.server import PageServer


def view(
    runs: tuple[Path, ...],
    port: int | None,
    open_it: bool,
    file: Path | None,
    row: int,
    plugins: tuple[str, ...] = (),
) -> None:
    """Serves the page until Ctrl-C, or writes it into one file.

    Raises TraceError or ConfigError, one line, before anything is served or written.
    """
    recordings = [Recording(path) for path in runs]
    for recording in recordings:
        for line in recording.missing:
            print(f"missing   {recording.name}: {line}")
    if file is not None:
        size = export(recordings, file, row, plugins)
        print(f"page      {file}, {size / 2**20:.1f} MB")
        return
    server = PageServer(recordings, port, row, plugins)
    print(f"page      {server.url}  (Ctrl-C ends it)", flush=True)
    if open_it:
        webbrowser.open(server.url)
    try:
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
