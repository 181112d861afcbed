"""One segment that this host follows: what the store says of it, and what of that is not in the kernel yet.

Three threads meet here.  The segment's watch feeds the view; the kernel's monitor reports what it saw; the loop takes
what both left, works out what is wanted, and alone writes.  Everything they share is behind one lock, which nobody
holds across I/O.
"""

import contextlib
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from spanlan.drivers.base import Driver
from spanlan.errors import Broken, SpanlanError
from spanlan.kernel.monitor import Event
from spanlan.model.address import IPAddress, from_sortable
from spanlan.model.cluster import Endpoint, Member, Segment
from spanlan.model.host import Attachment, Ground, Wanted
from spanlan.model.mac import Mac
from spanlan.model.view import SegmentView, Touched
from spanlan.store import codec, keys
from spanlan.store.base import Changes, Deleted, Entry, InSync, Lost, Snapshot, WatchEvent

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    """What the loop shall see to in one pass.

    ``ground``: the links that it needs; ``wanted``: entries to want anew.  ``seen``: what the kernel reported.
    ``doubt``: compare everything.
    """

    generation: int
    ground: Ground
    wanted: Wanted
    seen: list[Event] = field(default_factory=list)
    doubt: bool = False


class Took(NamedTuple):
    """What an event of the watch came to.

    ``dirty``: the kernel may have to change.  ``members``: hosts may have joined or left.  ``ours``: something of this
    host is gone from the store, or may be; whether by our own doing, this class does not know.
    """

    dirty: bool
    members: bool
    ours: bool = False


class Following:
    """The state of one followed segment.  ``me`` is this host's name."""

    def __init__(self, segment: Segment, attachment: Attachment, driver: Driver, me: str) -> None:
        self.segment = segment
        self.attachment = attachment
        self._driver = driver
        self._me = me
        self._changed = threading.Condition()
        self._view = SegmentView()
        self._touched = Touched()
        self._seen: list[Event] = []
        self._doubt = True
        self._in_sync = False
        self._lost: str | None = "not connected yet"
        self._asked = 1
        self._done = 0
        self._trouble: tuple[int, SpanlanError] | None = None
        self.flaws: tuple[str, ...] = ()  # what is wrong with the links and nobody but a person can mend

    @property
    def ground(self) -> Ground:
        """The links that the segment needs."""
        return self._driver.ground(self.segment, self.attachment)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know about how this host takes part."""
        return self._driver.remarks(self.segment, self.attachment)

    @property
    def in_sync(self) -> bool:
        """Whether all that the store holds has been seen at least once: before that nothing may be swept."""
        return self._in_sync

    @property
    def lost(self) -> str | None:
        """Why the store cannot be watched now, or None if it is."""
        return self._lost

    # -- fed by the watch ------------------------------------------------------------------------------------------

    def take(self, event: WatchEvent) -> Took:
        """Take an event of the segment's watch."""
        members = ours = False
        with self._changed:
            match event:
                case Snapshot(entries=entries):
                    self._touched.merge(self._view.replace(*_decode(entries)))
                    members = True
                case Changes(changes=changes):
                    for change in changes:
                        ours = ours or self._is_loss_of_ours(change)
                        self._touched.merge(self._take_change(change))
                        members = members or _is_member(change)
                case InSync():
                    self._in_sync, self._lost = True, None
                    self._ask()
                    return Took(dirty=True, members=True, ours=True)
                case Lost(reason=reason):
                    self._lost = reason
            dirty = bool(self._touched) and self._in_sync
            if dirty:
                self._ask()
            return Took(dirty, members, ours)

    def withdraw(self, hosts: frozenset[str]) -> bool:
        """Say which hosts are away for good; answers whether the kernel may have to change."""
        with self._changed:
            touched = self._view.withdraw(hosts & self._view.members.keys())
            self._touched.merge(touched)
            if touched:
                self._ask()
            return bool(touched)

    def hosts(self) -> set[str]:
        """The hosts that take part."""
        with self._changed:
            return set(self._view.members)

    def underlay_of(self, host: str) -> tuple[IPAddress, ...] | None:
        """Where the store says that a host is reached, withdrawn or not; None if it takes no part."""
        with self._changed:
            member = self._view.members.get(host)
            return None if member is None else member.underlay

    def reattach(self, segment: Segment, attachment: Attachment) -> None:
        """This host takes part in another way now: everything is worked out again."""
        with self._changed:
            self.segment, self.attachment = segment, attachment
            for endpoint in self._view.endpoints.values():
                self._touched.add(endpoint)
            self._doubt = True
            self._ask()

    def endpoint_with(self, mac: Mac) -> Endpoint | None:
        """An endpoint that has this MAC, if any."""
        with self._changed:
            return next(iter(self._view.holders_of(mac)), None)

    def lacks(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """Those of this host's endpoints that the store does not hold (any more)."""
        with self._changed:
            return [each for each in endpoints if each.address not in self._view.endpoints]

    # -- fed by the kernel's monitor ---------------------------------------------------------------------------------

    def saw(self, event: Event) -> None:
        """The kernel reports something about the device or its entries."""
        with self._changed:
            self._seen.append(event)
            self._ask()

    def doubt(self) -> None:
        """Compare everything with the kernel in the next pass."""
        with self._changed:
            self._doubt = True
            self._ask()

    # -- taken by the loop ---------------------------------------------------------------------------------------------

    def take_work(self) -> Work:
        """All that came in since the last pass, worked out."""
        with self._changed:
            wanted = self._driver.wanted(self._view, self._me, self.segment, self.attachment, self._touched)
            work = Work(self._asked, self.ground, wanted, seen=self._seen, doubt=self._doubt)
            self._touched, self._seen, self._doubt = Touched(), [], False
            return work

    def finished(self, generation: int) -> None:
        """A pass that included everything up to ``generation`` is through."""
        with self._changed:
            self._done = max(self._done, generation)
            self._trouble = None
            self._changed.notify_all()

    def failed(self, generation: int, error: SpanlanError) -> None:
        """A pass did not get through; the next one compares everything, for who knows what was done."""
        with self._changed:
            self._trouble = (generation, error)
            self._doubt = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until a pass that includes all that is known now is through; answers whether one was.

        Raises what such a pass failed with.
        """
        with self._changed:
            target = self._asked

            def decided() -> bool:
                return self._done >= target or (self._trouble is not None and self._trouble[0] >= target)

            self._changed.wait_for(decided, seconds)
            if self._done >= target:
                return True
            if self._trouble is not None and self._trouble[0] >= target:
                raise type(self._trouble[1])(str(self._trouble[1])) from self._trouble[1]
            return False

    def status(self) -> dict[str, object]:
        """What a person asks first about a segment."""
        with self._changed:
            remote = sum(1 for each in self._view.endpoints.values() if each.host != self._me)
            return {
                "mode": self.segment.mode,
                "vni": None if self.segment.tunnel is None else self.segment.tunnel.vni,
                "in_sync": self._in_sync,
                "lost": self._lost,
                "members": sorted(self._view.members),
                "withdrawn": sorted(self._view.withdrawn),
                "endpoints": len(self._view.endpoints),
                "remote_endpoints": remote,
                "trouble": "; ".join([*self.flaws, *([] if self._trouble is None else [str(self._trouble[1])])])
                or None,
            }

    def _ask(self) -> None:
        self._asked += 1

    def _is_loss_of_ours(self, change: Entry | Deleted) -> bool:
        if not isinstance(change, Deleted):
            return False
        kind, name = _kind_and_name(change.key)
        if kind == "members":
            return name == self._me
        with contextlib.suppress(ValueError):
            endpoint = self._view.endpoints.get(from_sortable(name))
            return endpoint is not None and endpoint.host == self._me
        return False

    def _take_change(self, change: Entry | Deleted) -> Touched:
        kind, name = _kind_and_name(change.key)
        try:
            match kind, change:
                case "members", Entry():
                    return self._view.put_member(codec.decode_member(change))
                case "members", Deleted():
                    return self._view.drop_member(name)
                case "endpoints", Entry():
                    return self._view.put_endpoint(codec.decode_endpoint(change))
                case "endpoints", Deleted():
                    return self._view.drop_endpoint(from_sortable(name))
        except (Broken, ValueError) as error:
            log.error("left out of segment %s: %s", self.segment.name, error)  # noqa: TRY400 - the text says it all
        return Touched()


def _kind_and_name(key: str) -> tuple[str, str]:
    _, _, _, kind, name = key.split("/", 4)
    return kind, name


def _is_member(change: Entry | Deleted) -> bool:
    return _kind_and_name(change.key)[0] == "members"


def _decode(entries: Iterable[Entry]) -> tuple[list[Member], list[Endpoint]]:
    members: list[Member] = []
    endpoints: list[Endpoint] = []
    for entry in entries:
        try:
            if _is_member(entry):
                members.append(codec.decode_member(entry))
            else:
                endpoints.append(codec.decode_endpoint(entry))
        except Broken as error:
            log.error("left out: %s", error)  # noqa: TRY400 - the text says it all
    return members, endpoints


def prefix_of(segment: Segment) -> str:
    """What a host watches to follow a segment."""
    return f"{keys.segment(segment.name)}/"
