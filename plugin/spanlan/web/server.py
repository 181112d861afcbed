"""Health, metrics and the status page over HTTP, for people and monitors.

    /             a page to read                       /status.json   the same, to parse
    /healthz      200 while the process lives          /metrics       for a Prometheus scraper
    /readyz       200 while this host's picture of the cluster is up to date, else 503

Everything here is read-only and without a password, so the default is the loopback address; names other than
the loopback's are refused there, which stops a web page in somebody's browser from reading along through a name that
it made point to 127.0.0.1 (DNS rebinding).  This room never reaches into the store or the kernel: the daemon hands it a
function that returns the status, and its metrics.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from waitress import create_server, wasyncore
from werkzeug.exceptions import BadRequest, HTTPException

from spanlan import __version__
from spanlan.errors import Broken
from spanlan.web import page

log = logging.getLogger(__name__)

Status = Callable[[], Mapping[str, Any]]
"""Returns what there is to know, in values that JSON can hold.  ``ready`` (bool) decides about ``/readyz``, ``reason``
says why not, ``host`` heads the page; all other keys are shown as they are.  Called from any thread; must not block."""

_LONGEST_REQUEST = 16 * 1024
_MOST_CONNECTIONS = 64
_IDLE_SECONDS = 30
_THREADS = 2

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src '{page.STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def application(status: Status, registry: CollectorRegistry, *, only_loopback_names: bool = True) -> Flask:
    """The WSGI application; ``only_loopback_names`` refuses requests that name another host."""
    app = Flask("spanlan.web", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.config["MAX_CONTENT_LENGTH"] = 0
    if only_loopback_names:
        app.before_request(_refuse_other_names)
    begin = time.monotonic()

    @app.get("/")
    def read() -> Response:
        return Response(page.render(status()), mimetype="text/html")

    @app.get("/status.json")
    def parse() -> Response:
        return _json(status())

    @app.get("/healthz")
    def alive() -> Response:
        return _json({"status": "alive", "version": __version__, "uptime_seconds": round(time.monotonic() - begin)})

    @app.get("/readyz")
    def ready() -> Response:
        now = status()
        if now.get("ready") is True:
            return _json({"status": "ready"})
        return _json({"status": "not ready", "reason": now.get("reason") or "not in step with the store"}, 503)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    _answer_errors(app)
    return app


def _refuse_other_names() -> None:
    # Flask's TRUSTED_HOSTS would do, but it cuts a name at the first colon and so never trusts an IPv6 address.
    try:
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        name = None
    if name is None or not _is_loopback(name):
        raise BadRequest("this address answers to names of the loopback only")


def _answer_errors(app: Flask) -> None:
    """Give every answer its security headers, and every error a short body without a traceback."""

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        response = _json({"error": error.name}, error.code or 500)
        for name, value in error.get_headers():
            if name not in {"Content-Type", "Content-Length"}:
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        log.error("the status page failed at %s: %s", request.path, error, exc_info=error)
        return _json({"error": "the daemon could not tell its status; its log says why"}, 500)


class WebServer:
    """Serves the page on one TCP address, in threads of its own; a context manager that starts and stops."""

    def __init__(self, host: str, port: int, *, status: Status, registry: CollectorRegistry) -> None:
        self._host = host
        self._port = port
        self._app = application(status, registry, only_loopback_names=_is_loopback(host))
        self._sockets: dict[int, Any] = {}
        self._server: Any = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where the page is served; the port is the real one also if 0 was asked for.  Only after :meth:`start`."""
        if self._server is None:
            raise Broken("the status page is not served yet")
        return self._server.effective_host, int(self._server.effective_port)

    def start(self) -> None:
        """Listen and serve.  Raises Broken if the address cannot be had; names the setting."""
        listen = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        try:
            self._server = create_server(
                self._app,
                map=self._sockets,
                listen=listen,
                threads=_THREADS,
                connection_limit=_MOST_CONNECTIONS,
                channel_timeout=_IDLE_SECONDS,
                cleanup_interval=_IDLE_SECONDS // 2,
                max_request_header_size=_LONGEST_REQUEST,
                max_request_body_size=_LONGEST_REQUEST,
                clear_untrusted_proxy_headers=True,
                ident=None,
            )
        except (OSError, ValueError) as error:
            wasyncore.close_all(self._sockets)
            raise Broken(
                f"cannot serve the status page at {listen}: {error}; set SPANLAN_HTTP to a free address, or to off"
            ) from error
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._thread.start()
        log.info("status page at http://%s:%d/", *self.address)

    def stop(self) -> None:
        """Stop listening and end the threads; may be called twice, and without a start."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        self._server.pull_trigger()
        thread.join()
        self._stop.clear()
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._sockets)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        # waitress' own run() ends only by SystemExit in the main thread, so its loop is turned here.
        while not self._stop.is_set():
            wasyncore.loop(timeout=_IDLE_SECONDS, map=self._sockets, use_poll=True, count=1)


def _json(value: Mapping[str, Any], code: int = 200) -> Response:
    return Response(json.dumps(value, indent=2, default=str) + "\n", status=code, mimetype="application/json")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
