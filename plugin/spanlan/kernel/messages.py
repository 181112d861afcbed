"""Neighbour, FDB and link messages of rtnetlink, as bytes.

Neighbour entries and FDB entries travel in the same message (RTM_NEWNEIGH) and are easily confused.  They answer
different questions of one packet on its way out of a VXLAN device:

    neighbour   "which MAC has 10.42.0.5?"      family AF_INET or AF_INET6, NDA_DST is the container's address
    FDB         "behind which VTEP is that MAC?"  family AF_BRIDGE, NDA_DST is the VTEP's address

Pure functions over bytes: no socket is opened here.  Layouts are those of linux/rtnetlink.h, linux/neighbour.h and
linux/if_link.h (kernel headers); numbers are in host byte order, addresses as on the wire.
"""

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, TypeAlias

from spanlan.model.address import IPAddress
from spanlan.model.mac import Mac

AF_INET: Final = 2
AF_BRIDGE: Final = 7
AF_INET6: Final = 10

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30

NLM_F_REQUEST: Final = 0x01
NLM_F_ACK: Final = 0x04
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_REPLACE: Final = 0x100
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_ACK_TLVS: Final = 0x200

_NUD_NOARP: Final = 0x40
_NUD_PERMANENT: Final = 0x80
_NTF_SELF: Final = 0x02
_NTF_PROXY: Final = 0x08

_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
# An FDB entry that carries one of these sends the packet elsewhere than to its VTEP on our VNI and port.
_NDA_DETOURS: Final = frozenset({6, 7, 8, 13})  # NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_NH_ID
_NDA_IFINDEX: Final = 8

_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFF_UP: Final = 1
# What else of a link somebody may set and spanlan compares: ADDRESS, LINK, LINKINFO, IFALIAS, GROUP.  All the rest of a
# link's message counts something, or tells the time.
_IFLA_SET: Final = frozenset({1, 5, 18, 20, 27})
_IFLA_AF_SPEC: Final = 26
_IFLA_INET6_SET: Final = frozenset({2, 8})  # CONF, ADDR_GEN_MODE
_ATTRIBUTE_TYPE: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_MULTICAST: Final = 0x01
_NO_MAC: Final = bytes(6)
_FAMILIES: Final = frozenset({AF_INET, AF_INET6})

HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE: Final = struct.Struct("=HH")  # nlattr: length, type
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # ndmsg: family, ifindex, state, flags, type
_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_NUMBER: Final = struct.Struct("=I")
_BODY: Final = HEADER.size + _NEIGHBOUR.size
_LINK_BODY: Final = HEADER.size + _LINK.size

_DUMP_NEIGHBOURS: Final = struct.Struct("=IHHII BxxxiHBB HHI")
_DUMP_FDB: Final = struct.Struct("=IHHII BxxxiHBB")

# A whole message, made of the parts that differ and those that do not: the header's length, type and flags; the number;
# the rest of the header, the ndmsg and the header of the first attribute; that attribute; the next one's header …
_NEIGHBOUR4: Final = struct.Struct("=8sI20s4s4s6s2x")
_NEIGHBOUR6: Final = struct.Struct("=8sI20s16s4s6s2x")
_ADDRESS4: Final = struct.Struct("=8sI20s4s")
_ADDRESS6: Final = struct.Struct("=8sI20s16s")
_FDB4: Final = struct.Struct("=8sI20s6s2x4s4s")
_FDB6: Final = struct.Struct("=8sI20s6s2x4s16s")
_FDB_KEY: Final = struct.Struct("=8sI20s6s2x")
_START: Final = struct.Struct("=IHH")
_MIDDLE: Final = struct.Struct("=I BxxxiHBB HH")

_STATE_FDB: Final = _NUD_PERMANENT | _NUD_NOARP


class SetNeighbour(NamedTuple):
    """Answer ARP or ND for ``address`` with ``mac``."""

    address: IPAddress
    mac: Mac


class DropNeighbour(NamedTuple):
    """Answer no more for ``address``."""

    address: IPAddress


class SetFdb(NamedTuple):
    """Send frames for ``mac`` to ``vtep``."""

    mac: Mac
    vtep: IPAddress


class DropFdb(NamedTuple):
    """Send frames for ``mac`` nowhere."""

    mac: Mac


Step: TypeAlias = SetNeighbour | DropNeighbour | SetFdb | DropFdb


class Encoder:
    """Makes the messages that carry out steps on one interface, named by its index.

    Each costs about a microsecond: all that does not depend on the step is made once.
    """

    __slots__ = ("_drops_address4", "_drops_address6", "_fdb", "_fdb_key", "_neighbour4", "_neighbour6")

    def __init__(self, interface: int) -> None:
        permanent = (interface, _NUD_PERMANENT, 0, 0)
        self._neighbour4 = _MIDDLE.pack(0, AF_INET, *permanent, 8, _NDA_DST)
        self._neighbour6 = _MIDDLE.pack(0, AF_INET6, *permanent, 20, _NDA_DST)
        self._drops_address4 = _MIDDLE.pack(0, AF_INET, interface, 0, 0, 0, 8, _NDA_DST)
        self._drops_address6 = _MIDDLE.pack(0, AF_INET6, interface, 0, 0, 0, 20, _NDA_DST)
        self._fdb = _MIDDLE.pack(0, AF_BRIDGE, interface, _STATE_FDB, _NTF_SELF, 0, 10, _NDA_LLADDR)
        self._fdb_key = _MIDDLE.pack(0, AF_BRIDGE, interface, 0, _NTF_SELF, 0, 10, _NDA_LLADDR)

    def encode(self, step: Step, sequence: int) -> bytes:
        """The message for ``step``, with its number; :func:`acknowledged` makes it ask for an answer."""
        if isinstance(step, SetFdb):
            mac, vtep = step
            if isinstance(vtep, IPv4Address):
                return _FDB4.pack(_SET48, sequence, self._fdb, mac, _DST4, vtep.packed)
            return _FDB6.pack(_SET60, sequence, self._fdb, mac, _DST6, vtep.packed)
        if isinstance(step, SetNeighbour):
            address, mac = step
            if isinstance(address, IPv4Address):
                return _NEIGHBOUR4.pack(_SET48, sequence, self._neighbour4, address.packed, _LLADDR, mac)
            return _NEIGHBOUR6.pack(_SET60, sequence, self._neighbour6, address.packed, _LLADDR, mac)
        return self._encode_drop(step, sequence)

    def _encode_drop(self, step: DropNeighbour | DropFdb, sequence: int) -> bytes:
        if isinstance(step, DropFdb):
            return _FDB_KEY.pack(_DROP40, sequence, self._fdb_key, step.mac)
        if isinstance(step.address, IPv4Address):
            return _ADDRESS4.pack(_DROP36, sequence, self._drops_address4, step.address.packed)
        return _ADDRESS6.pack(_DROP48, sequence, self._drops_address6, step.address.packed)


def acknowledged(message: bytes) -> bytes:
    """The same message, asking for an answer also when it succeeds."""
    length, kind, flags = _START.unpack_from(message)
    return _START.pack(length, kind, flags | NLM_F_ACK) + message[_START.size :]


_WRITE: Final = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE
_SET48: Final = _START.pack(48, RTM_NEWNEIGH, _WRITE)
_SET60: Final = _START.pack(60, RTM_NEWNEIGH, _WRITE)
_DROP36: Final = _START.pack(36, RTM_DELNEIGH, NLM_F_REQUEST)
_DROP40: Final = _START.pack(40, RTM_DELNEIGH, NLM_F_REQUEST)
_DROP48: Final = _START.pack(48, RTM_DELNEIGH, NLM_F_REQUEST)
_DST4: Final = ATTRIBUTE.pack(8, _NDA_DST)
_DST6: Final = ATTRIBUTE.pack(20, _NDA_DST)
_LLADDR: Final = ATTRIBUTE.pack(10, _NDA_LLADDR)


def ask_neighbours(family: int, interface: int, sequence: int) -> bytes:
    """A request for all neighbour entries of one family on one interface."""
    return _DUMP_NEIGHBOURS.pack(
        *(36, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence, 0, family, 0, 0, 0, 0, 8, _NDA_IFINDEX, interface)
    )


def ask_fdb(interface: int, sequence: int) -> bytes:
    """A request for all FDB entries of one interface (in the FDB's own request the index stands in the header)."""
    return _DUMP_FDB.pack(28, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence, 0, AF_BRIDGE, interface, 0, 0, 0)


# Family, interface index, whether it is of the sort that spanlan writes (permanent, no detour), destination, MAC.
# A plain tuple: a dump makes one for each of 100,000 messages.
Entry: TypeAlias = tuple[int, int, bool, bytes | None, bytes | None]


def decode_entry(buffer: bytes, start: int, length: int) -> Entry | None:
    """Read the RTM_NEWNEIGH or RTM_DELNEIGH message of ``length`` bytes at ``start``.

    Family AF_BRIDGE makes it an FDB entry, whose destination is the VTEP; otherwise it is a neighbour, whose
    destination is the container's address.
    None for what spanlan has no use for: proxy entries, the FDB of a bridge, and multicast or all-zero MACs.
    """
    family, interface, state, flags, _ = _NEIGHBOUR.unpack_from(buffer, start + 16)
    destination: bytes | None = None
    mac: bytes | None = None
    ours = bool(state & _NUD_PERMANENT)
    at = start + _BODY
    end = start + length
    unpack = ATTRIBUTE.unpack_from
    while at < end:
        size, kind = unpack(buffer, at)
        if kind == _NDA_DST:
            destination = buffer[at + 4 : at + size]
        elif kind == _NDA_LLADDR:
            mac = buffer[at + 4 : at + size]
            if destination and family != AF_BRIDGE:
                break
        elif kind in _NDA_DETOURS:
            ours = False
        at += (size + 3) & ~3
    if family == AF_BRIDGE:
        if not flags & _NTF_SELF or mac is None or len(mac) != len(_NO_MAC) or mac[0] & _MULTICAST or mac == _NO_MAC:
            return None
    elif destination is None or flags & _NTF_PROXY or family not in _FAMILIES:
        return None
    return family, interface, ours, destination, mac


def decode_address(packed: bytes) -> IPAddress:
    """An address of either family from its four or sixteen bytes."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004


class LinkMessage(NamedTuple):
    """An RTM_NEWLINK or RTM_DELLINK message, as far as the monitor uses it.

    ``settings``: what else is set on the link, as the kernel spells it; only good for comparing.
    """

    interface: int
    name: str
    mtu: int
    up: bool
    settings: bytes


def decode_link(buffer: bytes, start: int, length: int) -> LinkMessage | None:
    """Read a link message; None for those that a bridge sends about its ports."""
    family, _, index, flags, _ = _LINK.unpack_from(buffer, start + 16)
    if family != 0:
        return None
    name = ""
    mtu = 0
    settings = b""
    for kind, begin, end in _attributes(buffer, start + _LINK_BODY, start + length):
        if kind == _IFLA_IFNAME:
            name = buffer[begin:end].rstrip(b"\0").decode(errors="replace")
        elif kind == _IFLA_MTU:
            mtu = _NUMBER.unpack_from(buffer, begin)[0]
        elif kind in _IFLA_SET:
            settings += buffer[begin - 4 : end]
        elif kind == _IFLA_AF_SPEC:
            settings += _ipv6_settings(buffer, begin, end)
    return LinkMessage(index, name, mtu, bool(flags & _IFF_UP), settings)


def _ipv6_settings(buffer: bytes, start: int, end: int) -> bytes:
    return b"".join(
        buffer[begin - 4 : until]
        for family, first, last in _attributes(buffer, start, end)
        if family == AF_INET6
        for kind, begin, until in _attributes(buffer, first, last)
        if kind in _IFLA_INET6_SET
    )


def _attributes(buffer: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of the content, of each attribute."""
    while at < end:
        size, kind = ATTRIBUTE.unpack_from(buffer, at)
        yield kind & _ATTRIBUTE_TYPE, at + 4, at + size
        at += (size + 3) & ~3


def decode_address_interface(buffer: bytes, start: int) -> int:
    """The interface of an RTM_NEWADDR or RTM_DELADDR message."""
    interface: int = _ADDRESS.unpack_from(buffer, start + 16)[4]
    return interface
