"""What the client hands to its callers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from spanlan.store.etcd3.errors import Unreachable
from spanlan.store.etcd3.wire import EventType


class KeyValue(Protocol):
    """A key as etcd stores it (the wire message itself, seen through types)."""

    @property
    def key(self) -> bytes:
        """The key."""

    @property
    def value(self) -> bytes:
        """The value; empty in the event of a deletion."""

    @property
    def create_revision(self) -> int:
        """Revision of the write that made the key."""

    @property
    def mod_revision(self) -> int:
        """Revision of the last write; in the event of a deletion, of the deletion."""

    @property
    def version(self) -> int:
        """How often it was written since it was made."""

    @property
    def lease(self) -> int:
        """Id of the lease it is bound to, 0 if none."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Keys of a range, in order, all as they were at ``revision``: watch from ``revision + 1`` to miss nothing.

    ``count`` is how many there are, which a ``limit`` does not change.
    """

    kvs: tuple[KeyValue, ...]
    revision: int
    count: int

    def __iter__(self) -> Iterator[KeyValue]:
        """The keys, one by one."""
        return iter(self.kvs)

    def __len__(self) -> int:
        """How many are listed here."""
        return len(self.kvs)


@dataclass(frozen=True, slots=True)
class Transacted:
    """How a transaction ended: which branch ran, and what each of its operations answered.

    ``resent``: an earlier sending of this very transaction got no answer and may have been carried out, so that
    ``succeeded = False`` can mean that the transaction met its own work.  Only ever true if the caller allowed to
    send again.
    """

    succeeded: bool
    revision: int
    responses: tuple[Any, ...]
    resent: bool = False


# -- what a watch yields --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One key was written or deleted; ``previous`` only if it was asked for and there was one."""

    kind: EventType
    kv: KeyValue
    previous: KeyValue | None = None


@dataclass(frozen=True, slots=True)
class Events:
    """Events of whole revisions, in order; ``revision`` is the last one's."""

    events: tuple[Event, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Nothing happened in the range up to ``revision``."""

    revision: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The watch stands at ``endpoint``; ``revision`` is the store's at that time.  Events missed so far follow."""

    endpoint: str
    revision: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The watch does not stand (any more) and is being opened again where it stopped."""

    error: Unreachable


Happening = Events | Progress | Connected | Disconnected
