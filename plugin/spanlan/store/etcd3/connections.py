"""Endpoints, a channel to each, and which of them is asked next.

One channel an endpoint, and rotation of our own: gRPC given several addresses under one name checks a certificate
against the wrong one, and moves on only when a connection breaks, not when a server hangs.
"""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

from spanlan.store.etcd3.errors import Closed
from spanlan.store.etcd3.trust import Trust
from spanlan.store.etcd3.wire import METHODS

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # A server that is frozen, or behind a link that swallows everything, is found by pings: every 10 s, and given up
    # after another 5 s.  It takes both timeouts: the first is also TCP's, the second is the ping's own (default: 60 s).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # etcd answers pings without a stream, or more often than every 5 s, with GOAWAY "too_many_pings".
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own limit of 4 MB is reached by about 25,000 small keys; etcd has limits of its own for requests.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # How soon a lost server is tried again.  The minimum is at the same time the limit for connecting, TLS included:
    # with less than 2 s a server that has just started counts as unreachable again and again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # Clients in one process do not share connections, nor each other's trouble.
    ("grpc.use_local_subchannel_pool", 1),
    # etcd is never behind an HTTP proxy, whatever https_proxy says.
    ("grpc.enable_http_proxy", 0),
)


class Connection:
    """The channel to one endpoint.  gRPC connects when it is first used, and again when it broke."""

    def __init__(
        self, endpoint: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, Any]]
    ) -> None:
        self.endpoint = endpoint
        self.proven = False
        """The last call got an answer, so the next one will most likely arrive."""
        if credentials is None:
            self._channel = grpc.insecure_channel(endpoint, options=list(options))
        else:
            self._channel = grpc.secure_channel(endpoint, credentials, options=list(options))
        self._calls = {name: self._prepare(name) for name in METHODS}

    def _prepare(self, name: str) -> Callable[..., Any]:
        method = METHODS[name]
        # LeaseKeepAlive is a stream in both directions, but one question and its answer look the same on the wire
        make: Callable[..., Any] = self._channel.stream_stream if name == "Watch" else self._channel.unary_unary
        prepared: Callable[..., Any] = make(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return prepared

    def call(self, name: str, request: Any, **options: Any) -> Any:
        """Call the remote procedure ``name``; ``options`` are gRPC's (timeout, metadata)."""
        return self._calls[name](request, **options)

    def close(self) -> None:
        """Free the channel; calls on their way end as cancelled."""
        self._channel.close()


class Endpoints:
    """All endpoints of a cluster, one of which is current.  It starts anywhere, so that clients spread over members."""

    def __init__(self, endpoints: Sequence[str], trust: Trust, options: Sequence[tuple[str, Any]] = ()) -> None:
        if not endpoints:
            raise ValueError("an etcd client needs at least one endpoint")
        self.names = tuple(endpoints)
        self.trust = trust
        self._credentials = trust.credentials()
        self._options = tuple((dict(CHANNEL_OPTIONS) | dict(options)).items())
        self._lock = threading.Lock()
        self._open: dict[str, Connection] = {}
        self._current = random.randrange(len(self.names))  # noqa: S311 - not a secret
        self._closed = False

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._closed

    def current(self) -> Connection:
        """The connection to use now.  Raises Closed."""
        with self._lock:
            if self._closed:
                raise Closed
            name = self.names[self._current]
            if name not in self._open:
                self._open[name] = Connection(name, self._credentials, self._options)
            return self._open[name]

    def failed(self, connection: Connection) -> None:
        """Go on to the next endpoint, unless somebody else already did."""
        with self._lock:
            connection.proven = False
            if self.names[self._current] == connection.endpoint:
                self._current = (self._current + 1) % len(self.names)

    def close(self) -> None:
        """Free all channels."""
        with self._lock:
            self._closed = True
            connections, self._open = list(self._open.values()), {}
        for connection in connections:
            connection.close()
