"""What every segment's tail has in common, whatever it stands on: the shape in which the one loop knows it.

This is the tail that every cause runs through (a change in the store, a restart, drift, a link flap, a timer): wanted,
found, difference, apply.  Causes only say what is wanted (``want…``), what was seen (``observe``) or that nothing is
certain any more (``doubt``); ``sync`` does the work, and ``difference`` stops before it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from spanlan.kernel.messages import DropFdb, DropNeighbour, SetFdb, SetNeighbour, Step
from spanlan.kernel.monitor import Event
from spanlan.kernel.routes import DropRoute, RouteStep, SetRoute, spell
from spanlan.model.host import Ground, Wanted
from spanlan.model.mac import format_mac

EntryStep: TypeAlias = Step | RouteStep


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    ``index``: of the link that carries the children.  ``changes``: to the links, as text.  ``written``, ``dropped``,
    ``failed``: numbers of entries.  ``pending``: how many are left (failed, or beyond the limit).  ``reasons``: why
    entries failed or the links are not as wanted, each once, with an example.
    """

    index: int
    changes: tuple[str, ...]
    written: int
    dropped: int
    failed: int
    pending: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What a sync would do.

    ``index``: of the link that carries the children, None if it is not there.  ``link``: how the links differ, as text.
    ``steps``: to be carried out on the entries, see :func:`describe`.
    """

    index: int | None
    link: tuple[str, ...]
    steps: tuple[EntryStep, ...]


class SegmentState(Protocol):
    """What is wanted of one segment in this host's kernel, and how far the kernel is from it.

    Not thread-safe: it belongs to the one writer, all but :meth:`concerns`.
    """

    @property
    def index(self) -> int | None:
        """The interface index of the link that carries the children, None while it is not known to be there."""

    @property
    def settled(self) -> bool:
        """Whether a sync would find nothing to do, as far as is known."""

    @property
    def pending(self) -> int:
        """How many entries are not in the kernel as they are wanted."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many entries are wanted, by their sort."""

    def want_ground(self, ground: Ground) -> None:
        """Want the segment to stand on this.  The kind of ground cannot change: Broken."""

    def want_entries(self, wanted: Wanted) -> None:
        """Want these entries too; takes what concerns it, ignores the rest.  Costs only what changed."""

    def concerns(self, event: Event) -> bool:
        """Whether the event may be about this segment, without taking it in.  From any thread."""

    def observe(self, event: Event) -> bool:
        """Take in what the monitor saw; whether there is something to sync now."""

    def doubt(self) -> None:
        """Nothing is certain any more: the next sync looks at everything (also for a timer)."""

    def sync(self, limit: int | None = None) -> SyncReport:
        """Make the kernel as wanted, as far as it goes; at most ``limit`` entries in this call.

        Entries that fail stay pending and are in the report.  Raises Refuse if something foreign is in the way, Retry
        if a link is not there (yet), Broken without CAP_NET_ADMIN; then the next sync begins from the start.
        """

    def difference(self) -> Difference:
        """What :meth:`sync` would do, after a fresh look at the kernel; changes nothing there."""

    def remove(self, keep: Collection[str] = ()) -> bool:
        """Remove what is ours; whether the link that carried the children went.

        ``keep``: names of links that other segments still want.
        """


def describe(step: EntryStep) -> str:
    """A step in words, for logs and reports."""
    match step:
        case SetNeighbour(address, mac):
            return f"neighbour {address} -> {format_mac(mac)}"
        case DropNeighbour(address):
            return f"neighbour {address} -> gone"
        case SetFdb(mac, vtep):
            return f"FDB {format_mac(mac)} -> {vtep}"
        case DropFdb(mac):
            return f"FDB {format_mac(mac)} -> gone"
        case SetRoute(destination, way):
            return f"route {destination} {spell(way)}"
        case DropRoute(destination):
            return f"route {destination} -> gone"
