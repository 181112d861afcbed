"""The client: what one asks etcd, under the names that users of the package ``etcd3`` know.

Keys and values are bytes.  Every call ends within ``timeout`` seconds (the client's, unless one is given), whatever
the servers do, and raises Unreachable if none of them answered by then.  All methods may be called from any thread.
"""

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from spanlan.store.etcd3.calls import Caller, Login
from spanlan.store.etcd3.connections import Endpoints
from spanlan.store.etcd3.errors import LeaseLost, Rejected
from spanlan.store.etcd3.leases import Lease
from spanlan.store.etcd3.transactions import LARGEST, prefix_end
from spanlan.store.etcd3.trust import Trust
from spanlan.store.etcd3.values import KeyValue, Listing, Transacted
from spanlan.store.etcd3.watching import Watcher, WatchSpec
from spanlan.store.etcd3.wire import SortOrder, SortTarget, messages

PAGE: Final = 10_000
"""Keys per request of a long listing.  The server counts the rest of the range for every page, so pages are large."""


class Client:
    """A client of one etcd cluster.

    ``endpoints``: ``HOST:PORT`` of members, in any order.  ``ca``, ``cert``, ``key``: PEM; any of them, or ``tls``,
    turns TLS on, and without ``ca`` the system's authorities are trusted.  ``user`` and ``password`` work with TLS and
    without.  ``options`` are gRPC channel arguments that override ours.
    """

    def __init__(  # noqa: PLR0913 - what a cluster needs to be reached, all by name
        self,
        endpoints: Sequence[str],
        *,
        ca: bytes | None = None,
        cert: bytes | None = None,
        key: bytes | None = None,
        tls: bool = False,
        user: str | None = None,
        password: str | None = None,
        timeout: float = 5.0,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        trust = Trust(tls=bool(tls or ca or cert), ca=ca, cert=cert, key=key)
        login = Login(user, password or "") if user else None
        self._endpoints = Endpoints(endpoints, trust, options)
        self._caller = Caller(self._endpoints, login, timeout)
        self.timeout = timeout

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: bytes, *, revision: int = 0, timeout: float | None = None) -> KeyValue | None:
        """The key, as it is now or was at ``revision``; None if it does not exist."""
        request = messages.RangeRequest(key=key, revision=revision)
        kvs = self._caller.call("Range", request, timeout=timeout).message.kvs
        return kvs[0] if kvs else None

    def get_prefix(
        self, prefix: bytes, *, start: bytes = b"", limit: int = 0, revision: int = 0, timeout: float | None = None
    ) -> Listing:
        """All keys that start with ``prefix``, see get_range; without those that sort before ``start``."""
        return self.get_range(
            max(prefix or b"\0", start), prefix_end(prefix), limit=limit, revision=revision, timeout=timeout
        )

    def get_range(  # noqa: PLR0913 - all but the range by name
        self,
        range_start: bytes,
        range_end: bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        page: int = PAGE,
        timeout: float | None = None,
    ) -> Listing:
        """The keys from ``range_start`` up to, but without, ``range_end``, read in pages, all at one revision.

        ``limit``: at most so many; 0: all.  ``timeout`` bounds each page.  Raises Compacted if the revision is
        compacted, before or while it is read.
        """
        kvs: list[KeyValue] = []
        count = 0
        while True:
            wanted = min(page, limit - len(kvs)) if limit else page
            request = messages.RangeRequest(key=range_start, range_end=range_end, limit=wanted, revision=revision)
            answer = self._caller.call("Range", request, timeout=timeout).message
            revision = revision or answer.header.revision
            count = count or answer.count
            kvs += answer.kvs
            if not answer.more or not answer.kvs or len(kvs) == limit:
                return Listing(tuple(kvs), revision, count)
            range_start = kvs[-1].key + b"\0"

    def newest(self, prefix: bytes, *, timeout: float | None = None) -> Listing:
        """Of the keys that start with ``prefix``, the one written last (without its value), and how many there are."""
        request = messages.RangeRequest(
            key=prefix or b"\0",
            range_end=prefix_end(prefix),
            limit=1,
            keys_only=True,
            sort_target=SortTarget.MOD,
            sort_order=SortOrder.DESCEND,
        )
        answer = self._caller.call("Range", request, timeout=timeout).message
        return Listing(tuple(answer.kvs), answer.header.revision, answer.count)

    # -- writing ---------------------------------------------------------------------------------------------------
    # A write whose answer is lost raises Unreachable with ``outcome_unknown``, and is not sent again on its own.

    def put(self, key: bytes, value: bytes, *, lease: Lease | int = 0, timeout: float | None = None) -> int:
        """Write a key and return the revision.  Raises LeaseLost if ``lease`` has ended."""
        lease_id = lease.id if isinstance(lease, Lease) else lease
        request = messages.PutRequest(key=key, value=value, lease=lease_id)
        try:
            return int(self._caller.call("Put", request, timeout=timeout, resend=False).message.header.revision)
        except Rejected as error:
            if lease_id and error.code == "NOT_FOUND":
                raise LeaseLost(lease_id) from error
            raise

    def delete(self, key: bytes, *, timeout: float | None = None) -> bool:
        """Delete a key; False if it did not exist."""
        request = messages.DeleteRangeRequest(key=key)
        return bool(self._caller.call("DeleteRange", request, timeout=timeout, resend=False).message.deleted)

    def delete_prefix(self, prefix: bytes, *, timeout: float | None = None) -> int:
        """Delete all keys that start with ``prefix`` and return how many there were."""
        request = messages.DeleteRangeRequest(key=prefix or b"\0", range_end=prefix_end(prefix))
        return int(self._caller.call("DeleteRange", request, timeout=timeout, resend=False).message.deleted)

    def transaction(
        self,
        compare: Sequence[Any],
        success: Sequence[Any],
        failure: Sequence[Any] = (),
        *,
        timeout: float | None = None,
        resend: bool = False,
    ) -> Transacted:
        """Carry out ``success`` if all of ``compare`` hold, else ``failure``, at one revision.

        The parts are made by :mod:`~spanlan.store.etcd3.transactions`.  With ``resend``, a transaction whose answer was
        lost is sent again, to any endpoint, until there is an answer: for callers that can tell from the ``failure``
        branch whether what they meet is their own work.  Raises LeaseLost if a put names a lease that has ended.
        """
        if max(len(compare), len(success), len(failure)) > LARGEST:
            raise ValueError(f"etcd takes at most {LARGEST} comparisons and operations in a transaction")
        request = messages.TxnRequest(compare=compare, success=success, failure=failure)
        try:
            answer = self._caller.call("Txn", request, timeout=timeout, resend=resend)
        except Rejected as error:
            leases = [one.request_put.lease for one in (*success, *failure) if one.request_put.lease]
            if leases and error.code == "NOT_FOUND":
                raise LeaseLost(leases[0]) from error
            raise
        message = answer.message
        responses = tuple(getattr(one, one.WhichOneof("response")) for one in message.responses)
        return Transacted(message.succeeded, message.header.revision, responses, answer.resent)

    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        """Drop the history before ``revision``."""
        self._caller.call("Compact", messages.CompactionRequest(revision=revision), timeout=timeout)

    # -- leases, watches, the rest ---------------------------------------------------------------------------------

    def lease(self, ttl: float, *, timeout: float | None = None) -> Lease:
        """A new lease; ``ttl`` in seconds, rounded up, and raised by the server if it is too short for it."""
        # sent again if need be: at worst a lease that nobody uses ends by itself
        answer = self._caller.call("LeaseGrant", messages.LeaseGrantRequest(TTL=math.ceil(ttl)), timeout=timeout)
        return Lease(self._caller, answer.message.ID, answer.message.TTL)

    def watch(
        self,
        key: bytes,
        *,
        range_end: bytes = b"",
        start_revision: int = 0,
        prev_kv: bool = False,
        lifetime: float | None = None,
    ) -> Watcher:
        """Watch a key, or a range, from ``start_revision`` on (0: from now on), see Watcher.

        With ``lifetime`` the iteration ends after so many seconds.
        """
        spec = WatchSpec(key=key, range_end=range_end, start_revision=start_revision, prev_kv=prev_kv)
        return Watcher(self._caller, spec, lifetime=lifetime)

    def watch_prefix(
        self, prefix: bytes, *, start_revision: int = 0, prev_kv: bool = False, lifetime: float | None = None
    ) -> Watcher:
        """Watch all keys that start with ``prefix``, see watch."""
        return self.watch(
            prefix or b"\0",
            range_end=prefix_end(prefix),
            start_revision=start_revision,
            prev_kv=prev_kv,
            lifetime=lifetime,
        )

    def status(self, *, timeout: float | None = None) -> Any:
        """What the current member says of itself: ``version``, ``dbSize``, ``leader``, ..."""
        return self._caller.call("Status", messages.StatusRequest(), timeout=timeout).message

    def close(self) -> None:
        """Free all connections.  Calls and watches on their way end, calls with Closed."""
        self._endpoints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
