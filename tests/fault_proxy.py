"""A TCP proxy on loopback that does to connections what networks do: cut, swallow, refuse, and lose a reply."""

import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass, field
from typing import Self


@dataclass(eq=False)
class _Link:
    client: socket.socket
    server: socket.socket
    to_client: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class FaultProxy:
    """Passes connections on to ``127.0.0.1:target`` until told otherwise.

    ``refuse``: new connections are closed at once.  ``blackhole``: everything is swallowed, in both directions.
    ``cut_after``: cut the next link that has carried so many bytes to the client, once.
    ``lose_replies_after(marker)``: from the first request that contains ``marker`` on, nothing reaches the client any
    more (until ``heal``).
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port: int = self._listener.getsockname()[1]
        self.refuse = False
        self.blackhole = False
        self.cut_after = 0
        self.cuts = 0
        self.connections = 0
        self.to_client = bytearray()
        """The last bytes that came from the server."""
        self.losing_replies = threading.Event()
        self._marker = b""
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="fault-proxy")]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def lose_replies_after(self, marker: bytes) -> None:
        """See the class."""
        self._marker = marker

    def heal(self) -> None:
        """Pass everything on again."""
        self.refuse = self.blackhole = False
        self._marker = b""
        self.losing_replies.clear()

    def cut(self) -> None:
        """Cut all links that stand."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()

    def stop(self) -> None:
        """Cut everything and end."""
        self._ended.set()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the fault proxy does not end"

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            if self.refuse:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            link = _Link(client, server)
            with self._lock:
                self._links.add(link)
            thread = threading.Thread(target=self._carry, args=(link,), name="fault-proxy-link")
            self._threads.append(thread)
            thread.start()

    def _carry(self, link: _Link) -> None:
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError), link.client, link.server:
            selector.register(link.client, selectors.EVENT_READ)
            selector.register(link.server, selectors.EVENT_READ)
            while not self._ended.is_set():
                for ready, _ in selector.select(0.2):
                    source = ready.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(16384)
                    if not data:
                        return
                    if source is link.client:
                        self._up(link, data)
                    elif not self._down(link, data):
                        return
        with self._lock:
            self._links.discard(link)

    def _up(self, link: _Link, data: bytes) -> None:
        if self._marker and self._marker in data:
            self.losing_replies.set()
        if not self.blackhole:
            link.server.sendall(data)

    def _down(self, link: _Link, data: bytes) -> bool:
        self.to_client = (self.to_client + data)[-4096:]
        if self.blackhole or self.losing_replies.is_set():
            return True
        link.client.sendall(data)
        link.to_client += len(data)
        if self.cut_after and link.to_client >= self.cut_after:
            self.cut_after = 0
            self.cuts += 1
            return False
        return True
