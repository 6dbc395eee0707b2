"""The HTTP server of a `web://` device: one page and one job, below a secret path, for one browser.

It knows what the page said last; `Web` (web.py) makes a device of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.npz import Array
from harness.core.shapes import decode
from harness.run.devices import litert_js, web_messages
from harness.run.devices.base import Traffic
from harness.run.devices.web_messages import Header, Hello, Say

PAGE = Path(__file__).with_name("page")
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript", "wasm": "application/wasm"}
POLL_S = 15.0  # for which a page waits for a job before it asks again
MAX_CONNECTIONS = 32
MAX_RELOADS = 3  # of the page while one task runs
IDLE_S = 60.0
NO_PAGE = "there is no such page: the address is incomplete, or of an earlier run; use the one that the harness prints"
OVER = "this job, or this task of it, is not asked for any more; ask for the next one"


class RefusedError(Exception):
    """A request that is not granted: an HTTP status and one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Offer:
    """Some tasks of a job, for the page. files: by SHA-256. store: takes a result; raises SetupError."""

    nonce: str
    plan: bytes
    files: Mapping[str, tuple[Path, str]]
    store: Any
    traffic: Traffic
    waiting: set[str] = field(default_factory=set)
    reloads: dict[str, int] = field(default_factory=dict)


class Session:
    """What the page and the device know of each other. All of it under `changed`."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.hello: Hello | None = None
        self.offer: Offer | None = None
        self.last = Say("")
        self.heard = time.monotonic()
        self.closed = False  # the page said so
        self.problem = ""

    def begin(self, offer: Offer | None) -> None:
        with self.changed:
            self.offer, self.last, self.problem = offer, Say(""), ""
            self.heard = time.monotonic()
            self.changed.notify_all()

    def greet(self, hello: Hello) -> None:
        """A page that was opened or reloaded. Raises RefusedError: another browser is here."""
        with self.changed:
            if self.hello and self.hello.browser != hello.browser:
                raise RefusedError(409, f"Another browser runs this check: {self.hello.name}. This page does nothing.")
            if self.hello and self.hello.page != hello.page and self.offer and self.last.task in self.offer.waiting:
                task = str(self.last.task)
                times = self.offer.reloads[task] = self.offer.reloads.get(task, 0) + 1
                if times > MAX_RELOADS:
                    self.problem = f"the page was loaded anew {times} times while it ran {task}"
            self.hello, self.closed, self.heard = hello, False, time.monotonic()
            self.changed.notify_all()

    def hear(self, page: str) -> None:
        """A request of a page. Raises RefusedError if it is not the present one."""
        if self.hello is None:
            raise RefusedError(409, "This run does not know this page. Load it again.")
        if self.hello.page != page:
            raise RefusedError(409, "This page was opened again elsewhere in this browser. Here it does nothing.")
        self.heard, self.closed = time.monotonic(), False

    def job(self, page: str) -> bytes | None:
        """The plan of the tasks that wait for the page; None if there are none for some seconds."""
        with self.changed:
            self.hear(page)
            self.changed.wait_for(lambda: self.offer and self.last.ended is None, POLL_S)
            self.hear(page)
            return self.offer.plan if self.offer and self.last.ended is None else None

    def say(self, said: Say) -> None:
        with self.changed:
            self.hear(said.page)
            if said.bye:
                self.closed = True
            elif self.offer and said.nonce == self.offer.nonce and self.last.ended is None:
                self.last = said
            else:
                raise RefusedError(410, OVER)
            self.changed.notify_all()

    def result(self, header: Header, arrays: dict[str, Array], size: int) -> None:
        with self.changed:
            self.hear(header.page)
            if not self.offer or (header.nonce, header.task in self.offer.waiting) != (self.offer.nonce, True):
                raise RefusedError(410, OVER)
            self.offer.store(header, arrays)
            self.offer.waiting.discard(header.task)
            self.offer.traffic.pulled_bytes += size
            self.changed.notify_all()


class Server(ThreadingHTTPServer):
    """Listens from the start; serves until the process ends. Raises SetupError: the address cannot be had."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, where: str, address: str, port: int, tls: tuple[str, str] | None = None) -> None:
        try:
            super().__init__((address, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", "") or str(error)
            raise SetupError(
                f"{where}: cannot listen on {address}:{port} ({reason}); name a free port, an address of this machine"
            ) from error
        self.session, self.token = Session(), secrets.token_urlsafe(12)
        self.assets = _assets()
        self.policy = _content_security_policy(self.assets["index.html"])
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                context.load_cert_chain(*tls)
            except (OSError, ssl.SSLError) as error:
                self.server_close()
                raise SetupError(f"{where}: no certificate in {tls[0]} with a key in {tls[1]} ({error})") from error
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://{address}:{self.server_address[1]}/{self.token}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is the browser's affair: it asks again."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tflite-harness", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, method: str) -> None:
        try:
            content, kind = self._granted(method)
            status = 200 if content is not None else 204
        except RefusedError as error:
            content, kind, status = str(error).encode(), "text/plain; charset=utf-8", error.status
        except SetupError as error:
            content, kind, status = str(error).encode(), "text/plain; charset=utf-8", 422
        if status >= 400:
            self.close_connection = True  # its body may not have been read
        self.send_response(status)
        runtime = status == 200 and self.path.rpartition("/")[2] in litert_js.NAMES
        for name, value in self._headers(runtime).items():
            self.send_header(name, value)
        if content is not None:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content or b"")

    def _headers(self, runtime: bool) -> dict[str, str]:
        """Nothing from elsewhere, in no one's frame; isolated, which gives a finer clock. The runtime, which each task
        loads anew, is sent once."""
        return {
            "Content-Security-Policy": self.server.policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "private, max-age=86400, immutable" if runtime else "no-store",
        }

    def _granted(self, method: str) -> tuple[bytes | None, str]:
        """What is asked for: content, or nothing, and its type. Raises RefusedError, SetupError."""
        parts = urlsplit(self.path)
        _, token, *rest = parts.path.split("/")
        if not rest or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise RefusedError(404, NO_PAGE)
        name, session = "/".join(rest), self.server.session
        if method == "POST":
            return self._posted(name, session), "application/json"
        if name == "job":
            (page,) = parse_qs(parts.query).get("page", [""])[:1]
            return session.job(page), "application/json"
        if digest := re.fullmatch(r"files/([0-9a-f]{64})", name):
            return self._file(digest[1], session), "application/octet-stream"
        if (content := self.server.assets.get(name or "index.html")) is None:
            raise RefusedError(404, NO_PAGE)
        return content, TYPES[(name or "index.html").rpartition(".")[2]]

    def _posted(self, name: str, session: Session) -> bytes | None:
        if name == "hello":
            session.greet(decode(self._body(web_messages.MAX_MESSAGE_BYTES), Hello, "a page's message"))
            return json.dumps({"runtime": litert_js.RUNTIME}).encode()
        if name == "say":
            session.say(decode(self._body(web_messages.MAX_MESSAGE_BYTES), Say, "a page's message"))
            return None
        if name == "result":
            body = self._body(web_messages.MAX_RESULT_BYTES)
            if self.headers.get("X-SHA256") != sha256(body):
                raise SetupError("a result: its SHA-256 is another: damaged on the way")
            session.result(*web_messages.result(body), len(body))
            return None
        raise RefusedError(404, NO_PAGE)

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length) or int(length) > most:
            if re.fullmatch(r"\d{1,6}", length):  # else the sender is cut off, and never reads why
                self.rfile.read(int(length))
            raise RefusedError(413, f"{length or 'an unknown number of'} bytes: expected at most {most}")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise RefusedError(400, f"{len(body)} bytes: expected {length}; cut short")
        return body

    def _file(self, digest: str, session: Session) -> bytes:
        with session.changed:
            offer = session.offer
            if not offer or digest not in offer.files:
                raise RefusedError(404, "this file is not of the present job")
            path, what = offer.files[digest]
            content = path.read_bytes()
            offer.traffic.pushed(what, len(content))
        return content


@cache
def _assets() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in PAGE.iterdir()} | litert_js.files()


def _content_security_policy(page: bytes) -> str:
    """Scripts of ours only; the import map, which must stand in the page, by its hash."""
    (inline,) = re.findall(rb'<script type="importmap">(.*?)</script>', page, re.S)
    digest = base64.b64encode(hashlib.sha256(inline).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'; connect-src 'self'; "
        "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
