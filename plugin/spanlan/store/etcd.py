"""The store of a cluster: etcd v3.

Keeps the contract of :mod:`spanlan.store.base` with the client of :mod:`spanlan.store.etcd3`.  Here keys get the root
in front, the client's errors become spanlan's with a cure, and a transaction whose answer was lost is settled.  How
the watch keeps its promises is in :mod:`spanlan.store.etcd_watch`.

Made after any fork, never before: the client's threads are not in the child.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from spanlan import deadline
from spanlan.errors import Broken, Gone, Retry

# gRPC writes to standard error on its own, several lines a failed handshake; what matters of it is in our errors.
# It looks at this once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from spanlan.store import etcd3
from spanlan.store.base import (
    Absent,
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    Entry,
    Operation,
    Put,
    Snapshot,
)
from spanlan.store.etcd_watch import EtcdWatch, HighWater

SHORTEST_LEASE: Final = 2
MOST_CONDITIONS: Final = 100
_LISTING_ATTEMPTS: Final = 3


class EtcdStore:
    """A store in etcd, see :class:`spanlan.store.base.Store`.

    ``endpoints``: ``HOST:PORT`` of members; all keys stand under ``root``.  ``ca``, ``cert``, ``key``: PEM; any of
    them, or ``tls``, turns TLS on, and without ``ca`` the system's authorities are trusted.  ``timeout``: seconds that
    a call may take, less if the request it serves has less left.  ``relist``: seconds after which a watch lists
    everything again, as a remedy for events that a server lost (spread by a fifth, so that hosts do not come all at
    once).
    """

    def __init__(  # noqa: PLR0913 - settings, all by name
        self,
        endpoints: Sequence[str],
        *,
        root: str = "/spanlan/v1",
        ca: bytes | None = None,
        cert: bytes | None = None,
        key: bytes | None = None,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        timeout: float = 5.0,
        relist: float = 600.0,
    ) -> None:
        self._client = etcd3.Client(
            endpoints, ca=ca, cert=cert, key=key, tls=tls, user=user, password=password, timeout=timeout
        )
        self._root = root.rstrip("/").encode()
        self._timeout = timeout
        self._relist = relist
        self._high_water = HighWater()
        self._complaint = _Complaint(",".join(endpoints), user, self._root.decode())

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Entry | None:
        """The entry of one key, as it is now (linearizable)."""
        with self._complaint.translated():
            kv = self._client.get(self._absolute(key), timeout=self._limit())
        return None if kv is None else self._entry(kv)

    def range(self, prefix: str, *, start: str = "", limit: int = 0) -> Snapshot:
        """The entries whose key starts with ``prefix``, in the order of their keys, all at one revision."""
        with self._complaint.translated():
            listing = self._list(prefix, start=start, limit=limit)
        return Snapshot(tuple(map(self._entry, listing)), listing.revision)

    def _list(self, prefix: str, *, start: str = "", limit: int = 0) -> etcd3.Listing:
        first = self._absolute(start) if start else b""
        attempt = 1
        while True:
            try:
                return self._client.get_prefix(self._absolute(prefix), start=first, limit=limit, timeout=self._limit())
            except etcd3.Compacted:  # between two pages: begin again at a newer revision
                if attempt == _LISTING_ATTEMPTS:
                    raise
                attempt += 1

    # -- writing ---------------------------------------------------------------------------------------------------

    def commit(self, conditions: Sequence[Condition], operations: Sequence[Operation]) -> Commit:
        """Carry out all operations at one revision if all conditions hold, and none otherwise.

        A transaction whose answer was lost is sent again.  If it then finds its conditions broken by exactly the
        values it was to write, it was our own first sending that did it.
        """
        if max(len(conditions), len(operations)) > MOST_CONDITIONS:
            raise Broken(f"a transaction of more than {MOST_CONDITIONS} conditions or operations cannot be committed")
        # If it fails we want to know who was first, and, should its answer get lost, whether that was ourselves.
        asked = dict.fromkeys(condition.key for condition in conditions)
        written = dict.fromkeys(operation.key for operation in operations if not isinstance(operation, DeletePrefix))
        keys = list(asked | written)
        with self._complaint.translated():
            done = self._client.transaction(
                [self._compare(condition) for condition in conditions],
                [self._operate(operation) for operation in operations],
                [etcd3.get(self._absolute(key)) for key in keys],
                timeout=self._limit(),
                resend=True,
            )
        self._high_water.note(done.revision)
        if done.succeeded:
            return Commit(succeeded=True, revision=done.revision, current={})
        found = {
            key: self._entry(response.kvs[0]) if response.kvs else None
            for key, response in zip(keys, done.responses, strict=True)
        }
        if done.resent and _is_our_work(operations, found):
            revision = max((entry.revision for entry in found.values() if entry), default=done.revision)
            return Commit(succeeded=True, revision=revision, current={})
        return Commit(succeeded=False, revision=done.revision, current={key: found[key] for key in asked})

    def _compare(self, condition: Condition) -> Any:
        if isinstance(condition, Absent):
            return etcd3.absent(self._absolute(condition.key))
        return etcd3.unchanged(self._absolute(condition.key), condition.revision)

    def _operate(self, operation: Operation) -> Any:
        if isinstance(operation, Put):
            if operation.lease is not None and not isinstance(operation.lease, EtcdLease):
                raise Broken(f"{operation.key} cannot be bound to a lease of another store")
            lease_id = operation.lease.id if operation.lease else 0
            return etcd3.put(self._absolute(operation.key), operation.value, lease=lease_id)
        if isinstance(operation, Delete):
            return etcd3.delete(self._absolute(operation.key))
        return etcd3.delete_prefix(self._absolute(operation.prefix))

    def lease(self, ttl: float) -> "EtcdLease":
        """A new lease of ``ttl`` seconds (at least 2)."""
        with self._complaint.translated():
            granted = self._client.lease(max(math.ceil(ttl), SHORTEST_LEASE), timeout=self._limit())
        return EtcdLease(granted, self._complaint, self._timeout)

    # -- watching, and the end -------------------------------------------------------------------------------------

    def watch(self, prefix: str) -> EtcdWatch:
        """Watch all keys that start with ``prefix``: a Snapshot, InSync, then Changes as they come."""
        return EtcdWatch(
            self._client,
            self._absolute(prefix),
            root=self._root,
            relist=self._relist,
            high_water=self._high_water,
            complain=self._complaint.of,
        )

    def close(self) -> None:
        """Free all connections; watches end."""
        self._client.close()

    # -- between the contract's words and the client's -------------------------------------------------------------

    def _limit(self) -> float:
        return deadline.remaining(self._timeout)

    def _absolute(self, key: str) -> bytes:
        return self._root + key.encode()

    def _entry(self, kv: etcd3.KeyValue) -> Entry:
        return Entry(kv.key[len(self._root) :].decode(), kv.value, kv.mod_revision)


class EtcdLease:
    """A lease in etcd, see :class:`spanlan.store.base.Lease`."""

    def __init__(self, lease: etcd3.Lease, complaint: "_Complaint", timeout: float) -> None:
        self._lease = lease
        self._complaint = complaint
        self._timeout = timeout

    @property
    def id(self) -> int:
        """Etcd's number of it."""
        return self._lease.id

    @property
    def ttl(self) -> float:
        """Seconds, as the store granted them."""
        return float(self._lease.ttl)

    def keepalive(self) -> None:
        """Start the ``ttl`` anew.  Raises Gone if the lease has ended (its keys are away), Retry if the store is."""
        # an answer that takes longer than a third of the ttl would spend the time of the attempts after it
        limit = min(self._timeout, max(self.ttl / 3, 1.0))
        with self._complaint.translated():
            self._lease.refresh(timeout=deadline.remaining(limit))

    def revoke(self) -> None:
        """End the lease now, and with it its keys.  Ending it twice is no error."""
        with self._complaint.translated():
            self._lease.revoke(timeout=deadline.remaining(self._timeout))


def _is_our_work(operations: Sequence[Operation], found: Mapping[str, Entry | None]) -> bool:
    """Whether what stands in the store is what these operations leave behind.

    What was put is proof: it differs from what anybody else would write.  Where nothing was put, keys that are away
    are what was asked for, whoever removed them.
    """
    puts = [operation for operation in operations if isinstance(operation, Put)]
    if puts:
        entries = [found[put.key] for put in puts]
        return all(entry is not None and entry.value == put.value for entry, put in zip(entries, puts, strict=True))
    deletes = [operation for operation in operations if isinstance(operation, Delete)]
    return bool(deletes) and all(found[delete.key] is None for delete in deletes)


class _Complaint:
    """Turns the client's errors into spanlan's, each with the cure."""

    def __init__(self, endpoints: str, user: str | None, root: str) -> None:
        self._endpoints = endpoints
        self._user = user
        self._root = root

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Let no error of the client out of the block."""
        try:
            yield
        except etcd3.EtcdError as error:
            raise self.of(error) from error

    def of(self, error: etcd3.EtcdError) -> Retry | Broken | Gone:
        """What to raise, or to report, for an error of the client."""
        where = f"etcd at {self._endpoints}"
        if isinstance(error, etcd3.Unreachable):
            return self._of_silence(where, error)
        if isinstance(error, etcd3.Rejected):
            return self._of_refusal(where, error)
        if isinstance(error, etcd3.LeaseLost):
            return Gone(f"{error}: nobody kept it alive in time, and its keys are gone")
        if isinstance(error, etcd3.Compacted):
            return Retry(f"{where} compacts its history faster than it can be read; try again")
        return Retry("the store was closed because this daemon ends; try again once it is back")

    def _of_silence(self, where: str, error: etcd3.Unreachable) -> Retry | Broken:
        if isinstance(error, etcd3.Untrusted):
            return Broken(
                f"cannot speak TLS with {where} ({error}); check SPANLAN_ETCD_CA, SPANLAN_ETCD_CERT and "
                "SPANLAN_ETCD_KEY, that the server's certificate names the address given in SPANLAN_STORE, and whether "
                "that has to start with etcd:// or etcds://"
            )
        return Retry(
            f"cannot reach {where} ({error}); check that etcd runs there and has a leader, and that this host can "
            "connect to it"
        )

    def _of_refusal(self, where: str, error: etcd3.Rejected) -> Retry | Broken:
        if isinstance(error, etcd3.Denied):
            who = f"the user {self._user}" if self._user else "a client without a user"
            return Broken(
                f"{where} denies {who} what spanlan needs ({error.reason}); check SPANLAN_ETCD_USER and "
                "SPANLAN_ETCD_PASSWORD_FILE, and that the user's role may read and write the prefix "
                f"{self._root}/ (etcdctl role grant-permission ROLE --prefix=true readwrite {self._root}/)"
            )
        if "too many requests" in error.reason:
            return Retry(f"{where} has too much to do ({error}); try again")
        if "database space exceeded" in error.reason:
            return Broken(
                f"{where} has no space left ({error}); compact and defragment it, then run etcdctl alarm disarm, or "
                "raise its --quota-backend-bytes"
            )
        return Broken(f"{where} refuses a request of spanlan: {error}")
