"""The HTTP server of the door: waitress on a Unix socket, in this process.

Why waitress, with figures: ``docs/decisions/0004-wsgi-server.md``.  One thread reads from all connections, so that a
client that sends half a request holds up nobody; a pool of threads answers.  Connections are never closed for being
idle: dockerd keeps them open, and a close that crosses its next request costs it that request's body (G4).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from spanlan.errors import Broken
from spanlan.libnetwork import messages, replies
from spanlan.libnetwork.app import LARGEST_BODY
from spanlan.libnetwork.socket_file import SocketFile, claim

if TYPE_CHECKING:
    import socket

WsgiApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]

_log = logging.getLogger(__name__)

# Each request that runs, or waits for a worker, holds one of these threads: enough for a full pool and its full line
# (64 + 64, ``workers``), and some more so that "busy" and the fixed answers never have to wait.
_THREADS = 136
_FOREVER = 10**9
_MOST_CONNECTIONS = 4096
_LARGEST_HEAD = 16 * 1024
_TICK = 0.05
_PATIENCE = 0.5


class _JsonErrorTask(ErrorTask):  # type: ignore[misc] # waitress has no types
    """What waitress itself refuses (no HTTP, a body that is too big), said in a way that dockerd can read."""

    def execute(self) -> None:
        error = self.request.error
        _log.warning("a request was refused: %s (%s)", error.reason, error.body)
        body = replies.encode(replies.complaint(f"{error.reason}: {error.body}"))
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", messages.CONTENT_TYPE))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc] # waitress has no types
    """One connection."""

    error_task_class = _JsonErrorTask

    def finished(self) -> bool:
        """Whether all that was asked is answered.  Half a request counts, but not for long: it may never be whole."""
        if self.requests or self.total_outbufs_len:
            return False
        return self.request is None or time.time() - self.last_activity > _PATIENCE


class Server:
    """Serves one WSGI application on one Unix socket, from ``start`` to ``stop``."""

    def __init__(self, app: WsgiApplication, socket_path: Path, *, threads: int = _THREADS) -> None:
        self._app = app
        self._path = socket_path
        self._threads = threads
        self._stopping = threading.Event()
        self._grace = 0.0
        self._file: SocketFile | None = None
        self._waitress: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Claim the socket and begin to serve; it answers as soon as this returns.

        Raises Refuse when another process answers there, Broken when the socket cannot be made.
        """
        self._file = claim(self._path)
        self._waitress = self._build(self._file.listener)
        self._thread = threading.Thread(target=self._serve, name="spanlan-door", daemon=True)
        self._thread.start()
        _log.info("listening on %s", self._path)

    def _build(self, listener: "socket.socket") -> Any:
        server = waitress.create_server(
            self._app,
            sockets=[listener],
            threads=self._threads,
            ident=None,
            channel_timeout=_FOREVER,
            cleanup_interval=_FOREVER,
            connection_limit=_MOST_CONNECTIONS,
            # waitress refuses what reaches its limit; ours is the largest that passes
            max_request_body_size=LARGEST_BODY + 1,
            max_request_header_size=_LARGEST_HEAD,
            # bodies stay in memory, never in a temporary file
            inbuf_overflow=2 * LARGEST_BODY,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=True,
            expose_tracebacks=False,
            log_socket_errors=False,
        )
        server.channel_class = _Channel
        return server

    @property
    def serving(self) -> bool:
        """Whether requests are answered now."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping.is_set()

    def stop(self, grace: float = 10.0) -> None:
        """Stop listening, finish the requests that were received, for at most ``grace`` seconds, and close.

        The socket's file is removed first, if it is still ours.  A second call does nothing.
        """
        if self._thread is None or self._file is None or self._stopping.is_set():
            return
        self._grace = grace
        try:
            self._file.remove()
        except (OSError, Broken) as error:
            _log.warning("%s could not be removed: %s", self._path, error)
        self._stopping.set()
        self._waitress.pull_trigger()
        self._thread.join(grace + 5.0)
        if self._thread.is_alive():
            _log.error("the thread that serves %s did not end", self._path)
        # Only here, behind the join: the thread may end by itself, and pull_trigger() needs an open trigger.
        self._waitress.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._waitress._map, ignore_all=True)  # noqa: SLF001 - see _serve

    def _serve(self) -> None:
        server = self._waitress
        connections = server._map  # noqa: SLF001 - waitress runs its own loop on the same map
        try:
            while not self._stopping.is_set():
                wasyncore.loop(timeout=60.0, map=connections, use_poll=True, count=1)
            self._drain(server, connections)
        except Exception:  # noqa: BLE001 - the last place before the thread ends
            _log.exception("the server on %s failed", self._path)
            # A socket that listens and is never read would hang dockerd, which waits without limit.
            self._close_listener(server)
            for channel in list(server.active_channels.values()):
                channel.handle_close()

    def _drain(self, server: Any, connections: dict[int, Any]) -> None:
        ends_at = time.monotonic() + self._grace
        self._accept_last(server)
        # Once more around, so that requests which have arrived already are read.
        wasyncore.loop(timeout=0.0, map=connections, use_poll=True, count=1)
        while server.active_channels:
            for channel in list(server.active_channels.values()):
                if channel.finished():
                    channel.handle_close()
            if not server.active_channels:
                return
            if time.monotonic() >= ends_at:
                _log.warning("%d requests were not finished in %g s", len(server.active_channels), self._grace)
                return
            wasyncore.loop(timeout=_TICK, map=connections, use_poll=True, count=1)

    def _accept_last(self, server: Any) -> None:
        """Take in the connections that were made before the socket's file went, then close the listening socket."""
        count = -1
        while count < len(server.active_channels):
            count = len(server.active_channels)
            server.handle_accept()
        self._close_listener(server)

    @staticmethod
    def _close_listener(server: Any) -> None:
        """Close the listening socket alone: ``server.close`` would also close the trigger, which ``stop`` pulls."""
        server.accepting = False
        server.del_channel()
        listener: socket.socket = server.socket
        listener.close()
