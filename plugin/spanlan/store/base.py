"""The contract of a store: compare-and-set transactions, prefix reads, leases and a watch.

Keys are text that starts with ``/``; values are bytes.  Every commit that writes gets a *revision*, a number that only
grows; an entry carries the revision that wrote it last.  Two implementations keep this contract, and one test suite
(``tests/store``) holds both to it: :mod:`spanlan.store.sqlite` for one host and :mod:`spanlan.store.etcd` for a
cluster.

Every call is bounded: by the deadline of the request it serves (:mod:`spanlan.deadline`), and by the store's own limit.
All methods may be called from any thread.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value, and the revision that wrote it last."""

    key: str
    value: bytes
    revision: int


# -- a transaction: conditions, then operations -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Absent:
    """Holds if the key does not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Holds if the key exists and was last written at ``revision``."""

    key: str
    revision: int


Condition = Absent | Unchanged


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``value``; with ``lease``, the key vanishes when that lease ends, without, it stays."""

    key: str
    value: bytes
    lease: "Lease | None" = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key; nothing happens if it is not there."""

    key: str


@dataclass(frozen=True, slots=True)
class DeletePrefix:
    """Remove every key that starts with ``prefix``."""

    prefix: str


Operation = Put | Delete | DeletePrefix


@dataclass(frozen=True, slots=True)
class Commit:
    """How a transaction ended.

    ``current`` holds, when it did not succeed, the entries of the keys its conditions named as they are now (None for
    those that do not exist), all read in the same transaction: who lost a race sees at once to whom.
    """

    succeeded: bool
    revision: int
    current: Mapping[str, Entry | None]


# -- a watch: a snapshot, then changes ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything under the prefix, at one revision.

    The first thing a watch yields, and yielded again when changes may have been missed (compaction, a long outage):
    what the receiver holds and the snapshot does not, has vanished in between.  Compare by value.
    """

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """The key was removed at ``revision``."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since, in order, each change exactly once; ``revision`` is that of the last one."""

    changes: tuple[Entry | Deleted, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class InSync:
    """All that had been written up to ``revision`` has now been yielded.  Nothing may be swept before this mark."""

    revision: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone and is being made anew; what the receiver holds may grow old.  InSync ends this state."""

    reason: str


WatchEvent = Snapshot | Changes | InSync | Lost


class Watch(Protocol):
    """A running watch: iterate over it in one thread; ``close`` from any thread ends the iteration soon."""

    def __iter__(self) -> Iterator[WatchEvent]:
        """Yield events until closed; never raises for a store that is away, only for what a person must mend."""

    def close(self) -> None:
        """End the iteration and free the connection."""

    def __enter__(self) -> Self:
        """The watch itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


class Lease(Protocol):
    """A promise that keys vanish ``ttl`` seconds after the last ``keepalive``."""

    @property
    def ttl(self) -> float:
        """Seconds, as the store granted them."""

    def keepalive(self) -> None:
        """Start the ``ttl`` anew.  Raises Gone if the lease has ended (its keys are away), Retry if the store is."""

    def revoke(self) -> None:
        """End the lease now, and with it its keys.  Ending it twice is no error."""


class Store(Protocol):
    """A store.  Raises Retry when it cannot be reached in time, Broken when it answers what cannot be mended here."""

    def get(self, key: str) -> Entry | None:
        """The entry of one key, as it is now (linearizable)."""

    def range(self, prefix: str, *, start: str = "", limit: int = 0) -> Snapshot:
        """The entries whose key starts with ``prefix``, in the order of their keys, all at one revision.

        ``start``: leave out keys that sort before it.  ``limit``: at most so many entries, 0 for all.
        """

    def commit(self, conditions: Sequence[Condition], operations: Sequence[Operation]) -> Commit:
        """Carry out all operations at one revision if all conditions hold, and none otherwise.

        At most 100 conditions and operations.  When the store's answer was lost, the transaction is settled before
        this returns: it is sent again, and values that are byte for byte ours count as written by us.  So a value that
        must be ours alone has to differ from what anybody else would write.
        """

    def lease(self, ttl: float) -> Lease:
        """A new lease of ``ttl`` seconds (at least 2)."""

    def watch(self, prefix: str) -> Watch:
        """Watch all keys that start with ``prefix``: a Snapshot, InSync, then Changes as they come."""

    def close(self) -> None:
        """Free all connections; watches end."""
