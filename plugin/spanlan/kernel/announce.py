"""Unsolicited announcements: an address is now here, with this MAC.

When an address moves to another host, its neighbours on the LAN go on sending to the old MAC, and switches to the old
port, until their caches run out.  An ARP announcement (RFC 5227 section 3) and an unsolicited neighbour advertisement
(RFC 4861 section 7.2.6) tell them at once.  dockerd sends them itself since release 28; this is for older ones.

The frames must leave by the container's own interface: only then do the parent's other children on this host hear them
too.  That is in a network namespace of its own, so the sending is done by a thread that goes there and ends there: no
other thread ever leaves its namespace.  Needs CAP_NET_RAW, and CAP_SYS_ADMIN for a namespace that is not ours.

It must never send more than a few frames, nor for an address that the caller does not name.
"""

import ctypes
import errno
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from spanlan.errors import Broken, Gone, Retry, SpanlanError
from spanlan.kernel import netlink
from spanlan.kernel.found import FoundLink, read_link
from spanlan.model.address import IPAddress
from spanlan.model.mac import Mac

_CLONE_NEWNET: Final = 0x40000000
_ETH_P_IP6: Final = 0x86DD
_ETH_P_ARP: Final = 0x0806
_BROADCAST: Final = b"\xff" * 6
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")  # RFC 2464 section 7, of ff02::1
_ALL_NODES: Final = IPv6Address("ff02::1").packed
_ETHERNET: Final = struct.Struct("!6s6sH")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826: hardware, protocol, their lengths, operation, sender, target
_ARP_REQUEST: Final = 1
_IPV6: Final = struct.Struct("!IHBB16s16s")  # RFC 8200 section 3
_IPV6_VERSION: Final = 6 << 28
_ICMPV6: Final = 58
_HOP_LIMIT: Final = 255  # RFC 4861 section 7.1.2: proof that no router was in between
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")  # RFC 4861 section 4.4, with a target link-layer address option
_NEIGHBOUR_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 1 << 29

_LOOK_AGAIN: Final = 0.02  # seconds between looks for an interface that is on its way
_MOST_REPEATS: Final = 3  # RFC 4861, MAX_NEIGHBOR_ADVERTISEMENT
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What to announce, and where.

    ``alias``: of the link that the addresses are on; unlike its name it does not change when dockerd takes the link
    over.  ``mac``: None for the link's own, which is right for every kind of child.
    """

    alias: str
    addresses: tuple[IPAddress, ...]
    mac: Mac | None = None


def announce(
    announcement: Announcement,
    namespace: str | None = None,
    *,
    patience: float = 20.0,
    repeats: int = 2,
    pause: float = 0.5,
) -> int:
    """Send announcements out of a link, and say how many frames went; blocks until it is done.

    ``namespace``: path of the network namespace that the link is in or will come to (a SandboxKey), None for ours.
    ``patience``: seconds to wait for that namespace, for dockerd makes it only when the container's first process
    starts, after Join; and for the link to be there and up.  ``repeats``: times that each address is announced
    (1 to 3, in case a frame is lost), ``pause`` seconds apart.  None is sent on a link without ARP (ipvlan L3, L3S).
    Raises Gone if the namespace is not there in time, or the link vanishes during the sending; Retry if the link is not
    up in time; Broken without the capabilities.
    """
    if not announcement.addresses:
        return 0
    worker = _Worker(announcement, namespace, patience, min(max(repeats, 1), _MOST_REPEATS), pause)
    thread = threading.Thread(target=worker.run, name="announce", daemon=True)
    thread.start()
    thread.join()
    if worker.error is not None:
        raise worker.error
    return worker.sent


@dataclass(slots=True)
class _Worker:
    announcement: Announcement
    namespace: str | None
    patience: float
    repeats: int
    pause: float
    sent: int = 0
    error: BaseException | None = field(default=None)
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.patience

    def run(self) -> None:
        try:
            if self.namespace is not None:
                self._enter(self.namespace)
            link = self._link()
            if link is not None:
                self._send(link)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
            self.error = error

    def _enter(self, namespace: str) -> None:
        """Move the calling thread into the namespace once it is there; at first its file may be a plain one."""
        while True:
            try:
                _enter(namespace)
            except Gone:
                if time.monotonic() >= self.deadline:
                    raise
                time.sleep(_LOOK_AGAIN)
            else:
                return

    def _link(self) -> FoundLink | None:
        """The link, once it is up; None if it is one without ARP."""
        while True:
            found = _find(self.announcement.alias)
            if found is not None and not found.resolves:
                return None
            if found is not None and found.up:
                return found
            if time.monotonic() >= self.deadline:
                where = f" in {self.namespace}" if self.namespace else ""
                state = "not there" if found is None else "still down"
                raise Retry(f"announce {self.announcement.alias}: its link is {state}{where}")
            time.sleep(_LOOK_AGAIN)

    def _send(self, link: FoundLink) -> None:
        mac = self.announcement.mac or link.mac
        frames = [frame_for(address, mac) for address in self.announcement.addresses]
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as opened:
                opened.bind((link.name, 0))
                for turn in range(self.repeats):
                    if turn:
                        time.sleep(self.pause)
                    for frame in frames:
                        opened.send(frame)
                        self.sent += 1
        except OSError as error:
            raise _explain(error, f"announce {self.announcement.alias} on {link.name}", "CAP_NET_RAW") from error


def frame_for(address: IPAddress, mac: Mac) -> bytes:
    """The Ethernet frame that announces ``address`` with ``mac`` to all on the link."""
    if isinstance(address, IPv4Address):
        body = _ARP.pack(1, 0x0800, 6, 4, _ARP_REQUEST, mac, address.packed, bytes(6), address.packed)
        return _ETHERNET.pack(_BROADCAST, mac, _ETH_P_ARP) + body
    pseudo_header = (
        address.packed + _ALL_NODES + struct.pack("!II", _ADVERTISEMENT.size, _ICMPV6)
    )  # RFC 8200 section 8.1
    blank = _advertisement(address, mac, 0)
    body = _advertisement(address, mac, _checksum(pseudo_header + blank))
    header = _IPV6.pack(_IPV6_VERSION, len(body), _ICMPV6, _HOP_LIMIT, address.packed, _ALL_NODES)
    return _ETHERNET.pack(_ALL_NODES_MAC, mac, _ETH_P_IP6) + header + body


def _advertisement(address: IPv6Address, mac: Mac, checksum: int) -> bytes:
    return _ADVERTISEMENT.pack(_NEIGHBOUR_ADVERTISEMENT, 0, checksum, _OVERRIDE, address.packed, 2, 1, mac)


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _find(alias: str) -> FoundLink | None:
    with netlink.open_routes(f"look for the link of {alias}") as routes:
        links = netlink.whole_dump(lambda: map(read_link, routes.get_links()))
    return next((link for link in links if link.alias == alias), None)


def _enter(path: str) -> None:
    """Move the calling thread, which must end there, into a network namespace."""
    tried = f"enter the network namespace {path}"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _explain(error, tried, "CAP_SYS_ADMIN") from error
    try:
        if _libc.setns(handle, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise _explain(OSError(number, os.strerror(number)), tried, "CAP_SYS_ADMIN")
    finally:
        os.close(handle)


def _explain(error: OSError, tried: str, capability: str) -> SpanlanError:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return Broken(f"{tried}: {error.strerror}; spanlan needs {capability}")
    if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EINVAL}:
        return Gone(f"{tried}: it is not there (any more)")
    return Retry(f"{tried}: {error.strerror}")
