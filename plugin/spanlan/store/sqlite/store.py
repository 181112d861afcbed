"""The contract of a store, kept with one SQLite file."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spanlan import deadline
from spanlan.errors import Broken, Gone
from spanlan.store.base import (
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    Entry,
    Lease,
    Operation,
    Put,
    Snapshot,
    Watch,
)
from spanlan.store.sqlite import clock, transaction
from spanlan.store.sqlite.file import DatabaseFile
from spanlan.store.sqlite.transaction import WriteTransaction
from spanlan.store.sqlite.watch import Pulse, SqliteWatch

# Seconds that a call outside a request may wait for another process.
_PATIENCE = 5.0
_LARGEST_COMMIT = 100
_SHORTEST_TTL = 2.0


class SqliteStore:
    """A store in the file ``path`` (contract: :class:`spanlan.store.base.Store`).

    ``history``: changes that the log keeps for watches; a watch that has fallen further behind gets a snapshot.
    Raises Broken if the file cannot be used (damaged, another program's, written by a newer spanlan, not writable),
    Retry if it is locked or its disk is full.
    """

    def __init__(self, path: Path | str, *, history: int = 10_000) -> None:
        self._history = history
        self._boot = clock.boot_id()
        self._file = DatabaseFile(Path(path))
        self._closed = threading.Event()
        self._pulse = Pulse(self._file, boot=self._boot, sweep=lambda: self._sweep_if_due(_PATIENCE))

    def get(self, key: str) -> Entry | None:
        """The entry of one key, as the last commit of any process left it."""
        patience = deadline.remaining(_PATIENCE)
        self._sweep_if_due(patience)
        with self._file.connection(patience) as connection:
            return transaction.get(connection, key)

    def range(self, prefix: str, *, start: str = "", limit: int = 0) -> Snapshot:
        """The entries under a prefix, in the order of their keys, all at one revision."""
        patience = deadline.remaining(_PATIENCE)
        self._sweep_if_due(patience)
        with self._file.connection(patience) as connection, self._file.reading(connection):
            return transaction.snapshot(connection, prefix, start=start, limit=limit)

    def commit(self, conditions: Sequence[Condition], operations: Sequence[Operation]) -> Commit:
        """Carry out all operations if all conditions hold; durable when this returns."""
        _check(conditions, operations)
        with self._writing(deadline.remaining(_PATIENCE)) as writes:
            current = writes.failed(conditions)
            if current is not None:
                return Commit(succeeded=False, revision=writes.revision, current=current)
            for operation in operations:
                _carry_out(operation, writes)
            return Commit(succeeded=True, revision=writes.revision, current={})

    def lease(self, ttl: float) -> Lease:
        """A new lease; less than 2 seconds are granted as 2, as etcd does."""
        granted = max(ttl, _SHORTEST_TTL)
        with self._writing(deadline.remaining(_PATIENCE)) as writes:
            return SqliteLease(self, writes.new_lease(granted), granted)

    def watch(self, prefix: str) -> Watch:
        """Watch all keys under a prefix."""
        return SqliteWatch(
            self._file,
            self._pulse,
            prefix,
            sweep=lambda: self._sweep_if_due(_PATIENCE),
            ended=self._closed.is_set,
        )

    def close(self) -> None:
        """End the watches and close the file."""
        self._closed.set()
        self._pulse.beat()
        self._pulse.close()
        self._file.close()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._file.path)!r})"

    @contextmanager
    def _writing(self, patience: float) -> Iterator[WriteTransaction]:
        with self._file.writing(patience) as connection:
            writes = WriteTransaction(connection, boot=self._boot, history=self._history)
            yield writes
            writes.finish()
        if writes.wrote:
            self._pulse.beat()

    def _sweep_if_due(self, patience: float) -> None:
        """Remove the keys of leases whose time has come: nobody else may have had a reason to write since."""
        with self._file.connection(patience) as connection:
            expiry = transaction.next_expiry(connection, self._boot)
        if expiry is not None and expiry <= clock.now():
            with self._writing(patience):
                pass


class SqliteLease:
    """A lease in the file (contract: :class:`spanlan.store.base.Lease`)."""

    def __init__(self, store: SqliteStore, number: int, ttl: float) -> None:
        self._store = store
        self._number = number
        self._ttl = ttl

    @property
    def number(self) -> int:
        """Its number in the file."""
        return self._number

    @property
    def ttl(self) -> float:
        """Seconds between a keepalive and the end."""
        return self._ttl

    def keepalive(self) -> None:
        """Start the time anew.  Raises Gone if the lease has ended."""
        with self._store._writing(deadline.remaining(_PATIENCE)) as writes:  # noqa: SLF001 - the other half of the store
            alive = writes.renew_lease(self._number)
        if not alive:
            raise Gone("the lease has ended, and its keys are away; take a new lease and write them again")

    def revoke(self) -> None:
        """End the lease and remove its keys, if that has not happened yet."""
        with self._store._writing(deadline.remaining(_PATIENCE)) as writes:  # noqa: SLF001
            writes.end_lease(self._number)


def _carry_out(operation: Operation, writes: WriteTransaction) -> None:
    if isinstance(operation, Put):
        lease = operation.lease
        if lease is not None and not isinstance(lease, SqliteLease):
            raise Broken(f"{operation.key} is to be written under a lease of another store ({lease!r})")
        writes.put(operation.key, operation.value, None if lease is None else lease.number)
    elif isinstance(operation, Delete):
        writes.delete(operation.key)
    else:
        writes.delete_prefix(operation.prefix)


def _check(conditions: Sequence[Condition], operations: Sequence[Operation]) -> None:
    """Raise Broken for what etcd would not take either, so that a mistake shows on one host already."""
    if len(conditions) > _LARGEST_COMMIT or len(operations) > _LARGEST_COMMIT:
        raise Broken(
            f"a commit of {len(conditions)} conditions and {len(operations)} operations is more than the "
            f"{_LARGEST_COMMIT} of each that a store takes"
        )
    put: set[str] = set()
    for operation in operations:
        if isinstance(operation, Put):
            if operation.key in put:
                raise Broken(f"a commit writes {operation.key} twice")
            put.add(operation.key)
    for operation in operations:
        if isinstance(operation, Delete) and operation.key in put:
            raise Broken(f"a commit both writes and removes {operation.key}")
        if isinstance(operation, DeletePrefix) and any(key.startswith(operation.prefix) for key in put):
            raise Broken(f"a commit writes a key under {operation.prefix} and removes all of them")
