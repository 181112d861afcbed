"""A watch that is looked after: it says when it is cut off, moves on, and resumes where it stopped.

A dead watch looks exactly like a quiet one.  Three means tell them apart, and each finds what the others do not: the
demand for a leader (a member cut off from the others), HTTP/2 pings (a frozen server), TCP's own timeout (a dead
link).  The last two are channel options, see ``connections``.
"""

import queue
import random
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc

from spanlan.store.etcd3.calls import Caller, Failure
from spanlan.store.etcd3.connections import Connection
from spanlan.store.etcd3.errors import Closed, Compacted, Denied, Unreachable, Untrusted
from spanlan.store.etcd3.values import Connected, Disconnected, Event, Events, Happening, Progress
from spanlan.store.etcd3.wire import EventType, messages

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """What to watch: a key or a range, from which revision on (0: from now on), and whether with previous values."""

    key: bytes
    range_end: bytes
    start_revision: int
    prev_kv: bool


class Watcher:
    """A running watch: iterate over it in one thread, ``close`` it from any.

    Yields Connected, then Events and Progress; Disconnected whenever the connection is lost, or cannot be made; then
    again Connected, and what was missed.  No event is left out and none comes twice.  The iteration ends when the
    watch or its client is closed, or its ``lifetime`` is over.  Raises Compacted if the history that was missed is gone
    (list again), and Denied if the server refuses the watch even after a fresh login.
    """

    def __init__(self, caller: Caller, spec: WatchSpec, *, lifetime: float | None) -> None:
        self._caller = caller
        self._spec = spec
        self._next_revision = spec.start_revision
        self._ends_at = None if lifetime is None else time.monotonic() + lifetime
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._call: Any = None
        self._pause = _FIRST_PAUSE
        self._login_is_fresh = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration soon."""
        self._closed.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()

    def _is_over(self) -> bool:
        closed = self._closed.is_set() or self._caller.endpoints.closed
        return closed or (self._ends_at is not None and time.monotonic() >= self._ends_at)

    def _seconds_left(self) -> float | None:
        """How long a stream may stand: a little longer than the watch lives, so that its end finds the watch over."""
        return None if self._ends_at is None else max(self._ends_at - time.monotonic(), 0) + 0.1

    def __iter__(self) -> Iterator[Happening]:
        """Yield until closed."""
        while not self._is_over():
            try:
                error = yield from self._follow_one_connection()
            except Closed:
                return
            if self._is_over():
                return
            if error is None:  # the token is to be renewed: try again at once
                continue
            yield Disconnected(error)
            self._closed.wait(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _follow_one_connection(self) -> Generator[Happening, None, Unreachable | None]:
        """Watch over one connection until it ends; return the reason, or None if only the token was too old."""
        endpoints = self._caller.endpoints
        connection = endpoints.current()
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        requests.put(messages.WatchRequest(create_request=self._create_request()))
        token = ""
        try:
            if self._caller.login:
                token = self._caller.login.token(connection, self._caller.timeout)
            call = connection.call(
                "Watch",
                iter(requests.get, None),
                timeout=self._seconds_left(),
                metadata=self._caller.metadata(token),
            )
            self._set_call(call)
            failure = yield from self._read(call, connection.endpoint)
        except grpc.RpcError as error:
            failure = Failure.of(error)
        except ValueError as error:  # gRPC's way to say that the channel is closed
            if endpoints.closed:
                raise Closed from error
            raise
        finally:
            requests.put(None)
            self._set_call(None)
        if self._is_over():
            return None
        return self._judge(failure, token, connection)

    def _create_request(self) -> Any:
        spec = self._spec
        return messages.WatchCreateRequest(
            key=spec.key,
            range_end=spec.range_end,
            start_revision=self._next_revision,
            prev_kv=spec.prev_kv,
            progress_notify=True,
            fragment=True,
        )

    def _set_call(self, call: Any) -> None:
        with self._lock:
            if self._call is not None:
                self._call.cancel()
            self._call = call
            if call is not None and self._closed.is_set():
                call.cancel()

    def _read(self, call: Any, endpoint: str) -> Generator[Happening, None, Failure]:
        """Yield what the server sends; return why it ended.  Raises Compacted, and RpcError for a broken stream."""
        fragments: list[Any] = []
        for response in call:
            if response.compact_revision:
                raise Compacted(response.compact_revision)
            if response.canceled:
                # with ``created`` in the same response this is how a watch is refused
                return Failure(
                    grpc.StatusCode.PERMISSION_DENIED, response.cancel_reason or "the server ended the watch"
                )
            if response.created:
                self._pause, self._login_is_fresh = _FIRST_PAUSE, False
                if not self._next_revision:
                    self._next_revision = response.header.revision + 1
                yield Connected(endpoint, response.header.revision)
            elif response.fragment:
                fragments.extend(response.events)
            elif fragments or response.events:
                fragments.extend(response.events)
                yield from self._deliver(fragments)
                fragments = []
            else:
                # The header may move the position only here: in a response with events it is already at the store's
                # present, however many of the missed events are still to come.
                self._next_revision = max(self._next_revision, response.header.revision + 1)
                yield Progress(response.header.revision)
        return Failure(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")

    def _deliver(self, received: list[Any]) -> Iterator[Events]:
        # some releases of etcd send an event twice, or go back in time after a snapshot
        fresh = [event for event in received if event.kv.mod_revision >= self._next_revision]
        if not fresh:
            return
        events = tuple(
            Event(EventType(event.type), event.kv, event.prev_kv if event.HasField("prev_kv") else None)
            for event in fresh
        )
        revision = int(fresh[-1].kv.mod_revision)
        self._next_revision = revision + 1
        yield Events(events, revision)

    def _judge(self, failure: Failure, token: str, connection: Connection) -> Unreachable | None:
        """What to do about a connection that ended: return the reason to report, None to go on at once, or raise."""
        error = failure.as_error()
        if isinstance(error, Compacted):
            raise error
        if failure.token_is_stale or isinstance(error, Denied):
            login = self._caller.login
            # etcd 3.4 says "permission denied" of a token that it does not know (any more)
            if login and token and not self._login_is_fresh:
                login.forget(token)
                self._login_is_fresh = True
                return None
            raise error
        self._caller.endpoints.failed(connection)
        trouble = self._caller.tls_trouble(connection, failure, self._caller.timeout)
        return Untrusted(trouble) if trouble else Unreachable({connection.endpoint: failure.reason})
