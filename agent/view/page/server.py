"""The server of the page, on the loopback interface, for its own page only.

It answers requests whose Host header names it (a foreign name that resolves to this machine is
refused), refuses foreign Origins, serves a fixed list of files, and forks only for requests with
the token of this session, which is embedded in the page.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agent.recording.plain_json import dumps
from agent.recording.trace.reader import one_line
from agent.view.page.data import Pack, Recording
from agent.view.page.forks import Forks
from agent.view.page.futures import Imagined
from modules.messages import ConfigError, SextetError

PORT = 8770
"""The default port; where it is taken, the next free one."""

_TRIES = 30
_MOST_FRAMES, _LONGEST_REQUEST = 64, 8192
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
SCRIPTS = ("numbers.js", "source.js", "lanes.js", "panels.js", "page.js")
"""The scripts of the page, in order of loading."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


_GUARDS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def static(name: str) -> str:
    """One of the files of the page."""
    return (files("agent.view.page") / "static" / name).read_text(encoding="utf-8")


def filled_page(**parts: str) -> str:
    """The page with each part in place of its mark, `<!--name-->`."""
    page = static("index.html")
    for name, part in parts.items():
        before, _, after = page.partition(f"<!--{name}-->")
        page = before + part + after
    return page


class PageServer:
    """Serves the page of one or two runs until closed.

    `port` None: `PORT` or the next free one; 0: any free one. Raises ConfigError, one line, where
    the requested port is taken.
    """

    def __init__(
        self,
        runs: Sequence[Recording],
        port: int | None = None,
        row: int = 0,
        plugins: tuple[str, ...] = (),
    ) -> None:
        for run in runs:
            run.allows(row)
        self.runs = list(runs)
        self.row = row
        self.token = secrets.token_urlsafe(24)
        self.imagined = [Imagined(run, plugins) for run in runs]
        self.forks = Forks(self.runs, plugins)
        scripts = (f'<script src="{name}" defer></script>' for name in SCRIPTS)
        page = filled_page(
            styles='<link rel="stylesheet" href="page.css">',
            token=f'<meta name="sextet-token" content="{self.token}">',
            scripts="\n".join(scripts),
        )
        self.files = {"/": (page.encode(), _KINDS["html"])}
        for name in ("page.css", *SCRIPTS):
            self.files[f"/{name}"] = (static(name).encode(), _KINDS[name.rpartition(".")[2]])
        self._server = self._bind(port)
        self.port: int = self._server.server_address[1]
        self.names = (f"127.0.0.1:{self.port}", f"localhost:{self.port}")
        self._thread: threading.Thread | None = None

    def _bind(self, port: int | None) -> ThreadingHTTPServer:
        handler = type("Answer", (_Answer,), {"page": self})
        for number in range(PORT, PORT + _TRIES) if port is None else (port,):
            try:
                server = _Server(("127.0.0.1", number), handler)
                server.daemon_threads = True
                return server
            except OverflowError:
                raise ConfigError(f"option --port: expected 0 to 65535, got {number}") from None
            except OSError as error:
                if port is not None:
                    raise ConfigError(
                        f"option --port: {number} can't be served on: "
                        f"{error.strerror or error}; leave it out for the next free one"
                    ) from None
        raise ConfigError(f"option --port: {PORT} to {PORT + _TRIES - 1} are all taken; name one")

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def serve(self) -> None:
        """Serves until interrupted or closed."""
        self._server.serve_forever(poll_interval=0.2)

    def start(self) -> None:
        """Serves in a thread of its own."""
        self._thread = threading.Thread(target=self.serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops serving and closes the runs."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self.forks.close()
        for run in self.runs:
            run.close()


class _Server(ThreadingHTTPServer):
    # A page that is closed while it loads causes errors that need no traceback.
    def handle_error(self, request: Any, client_address: Any) -> None:
        return


class _Refused(Exception):
    """A refused request: a status and one line."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Answer(BaseHTTPRequestHandler):
    page: PageServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed on the terminal."""

    def version_string(self) -> str:
        return "Sextet"

    # -- which requests are allowed --------------------------------------------------------

    def _admit(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in self.page.names:
            raise _Refused(HTTPStatus.FORBIDDEN, "this page is served on loopback only")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in (f"http://{name}" for name in self.page.names):
            raise _Refused(HTTPStatus.FORBIDDEN, "request from a foreign page")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _Refused(HTTPStatus.FORBIDDEN, "request from a foreign page")

    def do_GET(self) -> None:
        """Answers with a file of the page, or data of a run."""
        self._respond(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Answers with a fork."""
        self._respond(self._post)

    def _respond(self, answer: Callable[[], tuple[bytes, str]]) -> None:
        status = HTTPStatus.OK
        try:
            self._admit()
            body, kind = answer()
        except Exception as error:
            text, status = one_line(error), HTTPStatus.INTERNAL_SERVER_ERROR
            if isinstance(error, _Refused):
                status = error.status
            elif isinstance(error, SextetError):
                status = HTTPStatus.UNPROCESSABLE_ENTITY
            else:
                text = f"{type(error).__name__}: {text}"
            body, kind = _json({"error": text})
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **_GUARDS,
        }.items():
            self.send_header(name, value)
        if status != HTTPStatus.OK:
            # The body of the request may not have been read.
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # -- the data --------------------------------------------------------------------------

    def _get(self) -> tuple[bytes, str]:
        parts = urlsplit(self.path)
        if parts.path in self.page.files:
            return self.page.files[parts.path]
        verb = {
            "/about": self._about,
            "/grown": self._grown,
            "/series": self._series,
            "/frames": self._frames,
            "/moment": self._moment,
            "/futures": self._futures,
        }.get(parts.path)
        if verb is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        self._query = parse_qs(parts.query)
        return verb()

    def _whole(self, name: str, default: int | None = None) -> int:
        values = self._query.get(name, [] if default is None else [str(default)])
        try:
            (text,) = values
            return int(text)
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"{name}: expected one whole number") from None

    def _run(self) -> Recording:
        number = self._whole("run")
        runs = self.page.forks.recordings
        if number not in runs:
            raise _Refused(HTTPStatus.NOT_FOUND, f"run: there is none of number {number}")
        return runs[number]

    def _about(self) -> tuple[bytes, str]:
        page = self.page
        about = {
            "row": page.row,
            "runs": [run.about() for run in page.runs],
            "forks": [page.forks.possible(number) for number in range(len(page.runs))],
        }
        return _json(about)

    def _grown(self) -> tuple[bytes, str]:
        run = self._run()
        steps = run.grow()
        return _json({"steps": steps, "missing": run.about()["missing"]})

    def _series(self) -> tuple[bytes, str]:
        pack = self._run().series(self._whole("row"), max(self._whole("from", 0), 0))
        return _bytes(pack)

    def _frames(self) -> tuple[bytes, str]:
        run, row = self._run(), self._whole("row")
        run.allows(row)
        start, count = self._whole("from"), self._whole("count")
        if not 0 < count <= _MOST_FRAMES:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"count: expected 1 to {_MOST_FRAMES}")
        pack = run.frames(row, range(start, start + count))
        return _bytes(pack)

    def _moment(self) -> tuple[bytes, str]:
        return _json(self._run().tree(self._whole("step"), self._whole("row")))

    def _futures(self) -> tuple[bytes, str]:
        number, step, row = self._whole("run"), self._whole("step"), self._whole("row")
        if not 0 <= number < len(self.page.imagined):
            raise _Refused(HTTPStatus.NOT_FOUND, f"run: there is none of number {number}")
        return _bytes(self.page.imagined[number].pack(step, row))

    def _post(self) -> tuple[bytes, str]:
        if urlsplit(self.path).path != "/fork":
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        token = self.headers.get("X-Sextet-Token", "")
        if not hmac.compare_digest(token.encode(), self.page.token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "expected the token of this session")
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length") from None
        if not 0 < length <= _LONGEST_REQUEST:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "expected a short request")
        try:
            request = json.loads(self.rfile.read(length))
            run, at, steps, hold, row = (
                int(request[name]) for name in ("run", "at", "steps", "hold", "row")
            )
            changes = {str(name): str(value) for name, value in dict(request["changes"]).items()}
        except (ValueError, KeyError, TypeError):
            raise _Refused(
                HTTPStatus.BAD_REQUEST, "expected run, row, at, steps, hold and changes as JSON"
            ) from None
        return _json(self.page.forks.fork(run, at, steps, changes, hold, row))


def _json(value: Any) -> tuple[bytes, str]:
    return dumps(value).encode(), "application/json"


def _bytes(pack: Pack) -> tuple[bytes, str]:
    return pack.to_bytes(), "application/octet-stream"
