"""What changes in the kernel behind our back, as small values.

A monitor is read by one thread; it starts none.  Our own writes are seen here too (the kernel tells everybody), and
that does no harm: what was seen is compared with what is wanted, by value.  When more happens than can be read,
:class:`Overrun` says so, and only a dump tells the truth again.

It must never write.
"""

import errno
import os
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias

from spanlan.kernel import netlink
from spanlan.kernel.messages import (
    AF_BRIDGE,
    HEADER,
    NLM_F_REPLACE,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    decode_address,
    decode_address_interface,
    decode_entry,
    decode_link,
)
from spanlan.kernel.route_messages import RTM_DELROUTE, RTM_NEWROUTE, Way, decode_route
from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.mac import Mac

# linux/rtnetlink.h: RTNLGRP_LINK, RTNLGRP_NEIGH (FDB entries come here too), RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE,
# RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE
_GROUPS: Final = (1, 3, 5, 7, 9, 11)
_READ: Final = 1 << 16
_READS: Final = 512  # so many at a time, so that events() returns also in a storm


class LinkGone(NamedTuple):
    """The link was removed, or moved to another namespace."""

    interface: int
    name: str


class LinkChanged(NamedTuple):
    """The link is new, or something about it changed (its name too), or the kernel only says that it might have.

    ``settings``: what else is set on it, see :class:`spanlan.kernel.messages.LinkMessage`; two equal events in a row
    mean that nothing was set in between.
    """

    interface: int
    name: str
    mtu: int
    up: bool
    settings: bytes = b""


class NeighbourSeen(NamedTuple):
    """The permanent neighbour entry for ``address`` is now ``mac``; None: there is none (any more)."""

    interface: int
    address: IPAddress
    mac: Mac | None


class FdbSeen(NamedTuple):
    """The permanent FDB entry for ``mac`` is now ``vtep``; None: there is none (any more)."""

    interface: int
    mac: Mac
    vtep: IPAddress | None


class AddressesChanged(NamedTuple):
    """An IP address came to or went from the interface."""

    interface: int


class RouteSeen(NamedTuple):
    """The route of ours to ``destination`` now leads this ``way``; None: there is none (any more).

    Somebody else's route that replaced another one is told as none, because it may have been ours.
    """

    destination: IPNetwork
    way: Way | None


class Overrun(NamedTuple):
    """Events were lost."""


Event: TypeAlias = LinkGone | LinkChanged | NeighbourSeen | FdbSeen | AddressesChanged | RouteSeen | Overrun


class Monitor:
    """Events of the network namespace in which it was opened.

    ``interface`` in an event is the interface's index.  ``of_interest``: asked with it for each neighbour and FDB
    event; what it denies is thrown away early, since a busy host's own ARP cache makes many.  Links and addresses are
    always reported, routes only if they are ours.  (The kernel says nothing of an IPv4 route that goes because its link
    went down or away, or because an address went.)
    """

    def __init__(self, of_interest: Callable[[int], bool] | None = None, *, receive_buffer: int = 32 << 20) -> None:
        self._of_interest = of_interest
        self._socket = netlink.open_socket(groups=_GROUPS, receive_buffer=receive_buffer, timeout=None)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._guard = threading.Lock()
        self._reading = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed: no more events come."""
        return self._closed

    def events(self, timeout: float) -> list[Event]:
        """What has happened since; waits up to ``timeout`` seconds for something to happen.

        Returns an empty list when nothing did, and at once when the monitor is closed.
        """
        with self._guard:
            if self._closed:
                return []
            self._reading = True
        try:
            self._poll.poll(timeout * 1000)
            return [] if self.closed else self._read()
        finally:
            with self._guard:
                self._reading = False
                if self.closed:
                    self._release()

    def close(self) -> None:
        """Stop; wakes the thread that is waiting in :meth:`events`.  From any thread, any number of times."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            if self._reading:
                os.eventfd_write(self._wake, 1)
            else:
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        self._socket.close()
        os.close(self._wake)

    def _read(self) -> list[Event]:
        events: list[Event] = []
        for _ in range(_READS):
            try:
                buffer = self._socket.recv(_READ)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise netlink.explain(error.errno or 0, str(error), "watch the kernel") from error
                events.append(Overrun())
                continue
            self._parse(buffer, events)
        return events

    def _parse(self, buffer: bytes, events: list[Event]) -> None:
        at = 0
        while at < len(buffer):
            length, kind, flags, _, _ = HEADER.unpack_from(buffer, at)
            event: Event | None = None
            if kind in {RTM_NEWNEIGH, RTM_DELNEIGH}:
                event = self._entry(buffer, at, length, there=kind == RTM_NEWNEIGH)
            elif kind in {RTM_NEWLINK, RTM_DELLINK}:
                link = decode_link(buffer, at, length)
                if link is not None:
                    event = LinkGone(link.interface, link.name) if kind == RTM_DELLINK else LinkChanged(*link)
            elif kind in {RTM_NEWADDR, RTM_DELADDR}:
                event = AddressesChanged(decode_address_interface(buffer, at))
            elif kind in {RTM_NEWROUTE, RTM_DELROUTE}:
                replacing = kind == RTM_NEWROUTE and bool(flags & NLM_F_REPLACE)
                route = decode_route(buffer, at, length, replacing=replacing)
                if route is not None:
                    event = RouteSeen(route.destination, route.way if kind == RTM_NEWROUTE else None)
            if event is not None:
                events.append(event)
            at += (length + 3) & ~3

    def _entry(self, buffer: bytes, at: int, length: int, *, there: bool) -> Event | None:
        entry = decode_entry(buffer, at, length)
        if entry is None:
            return None
        family, interface, ours, destination, mac = entry
        if self._of_interest is not None and not self._of_interest(interface):
            return None
        if family == AF_BRIDGE and there and ours and destination is None:
            # Before Linux 6.13 rtnetlink repeats what the VXLAN driver has told already, and leaves the VTEP out
            # (rtnl_fdb_add).  Taken for an entry without one, each write of ours would call for the next.
            return None
        there = there and ours
        if family == AF_BRIDGE:
            return FdbSeen(interface, Mac(mac or b""), decode_address(destination) if there and destination else None)
        return NeighbourSeen(interface, decode_address(destination or b""), Mac(mac) if there and mac else None)
