"""Route messages of rtnetlink, as bytes: those that carry our protocol number, to single destinations by a single way.

Pure functions over bytes: no socket is opened here.  Layouts are those of linux/rtnetlink.h; numbers are in host byte
order, addresses as on the wire.
"""

import struct
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple, TypeAlias

from spanlan.kernel.messages import (
    AF_INET,
    AF_INET6,
    ATTRIBUTE,
    HEADER,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    decode_address,
)
from spanlan.model.address import IPAddress, IPNetwork

ROUTE_PROTOCOL: Final = 90

RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26

_NLM_F_EXCL: Final = 0x200
_MAIN: Final = 254  # RT_TABLE_MAIN
_UNICAST: Final = 1  # RTN_UNICAST
_ANY_KIND: Final = 0  # RTN_UNSPEC
_UNIVERSE: Final = 0  # RT_SCOPE_UNIVERSE
_ON_LINK: Final = 253  # RT_SCOPE_LINK
_ANY_SCOPE: Final = 255  # RT_SCOPE_NOWHERE, which stands for any when a route is deleted
_RTM_F_CLONED: Final = 0x200

_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_PREFSRC: Final = 7
_RTA_TABLE: Final = 15
# A route with one of these leads elsewhere, or to several places: MULTIPATH, VIA, ENCAP, NH_ID.
_RTA_DETOURS: Final = frozenset({9, 18, 22, 30})
_TYPE: Final = 0x3FFF

METRICS: Final = {AF_INET: 0, AF_INET6: 1024}
_WIDTHS: Final = {AF_INET: 4, AF_INET6: 16}

_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags
_BODY: Final = HEADER.size + _ROUTE.size
_NUMBER: Final = struct.Struct("=I")


class Way(NamedTuple):
    """Where a route leads: over ``interface`` (its index), by ``gateway`` if it is not on the link itself.

    ``source``: the address that this host's own packets start from, None for the kernel's choice.
    """

    interface: int
    gateway: IPAddress | None = None
    source: IPAddress | None = None


ELSEWHERE: Final = Way(0)


class SetRoute(NamedTuple):
    """Lead packets for ``destination`` this ``way``; only with ``replace`` may there be a route to it already."""

    destination: IPNetwork
    way: Way
    replace: bool = False


class DropRoute(NamedTuple):
    """Have no route of ours to ``destination``."""

    destination: IPNetwork


RouteStep: TypeAlias = SetRoute | DropRoute


class RouteMessage(NamedTuple):
    """A route of the main table.

    ``way``: None for somebody else's; :data:`ELSEWHERE` for one that carries our number and leads as ours never do.
    """

    destination: IPNetwork
    way: Way | None


def encode(step: RouteStep, sequence: int) -> bytes:
    """The message for ``step``, with its number."""
    destination = step.destination
    family = AF_INET if isinstance(destination, IPv4Network) else AF_INET6
    attributes = _attribute(_RTA_DST, destination.network_address.packed)
    if METRICS[family]:
        attributes += _attribute(_RTA_PRIORITY, _NUMBER.pack(METRICS[family]))
    if isinstance(step, DropRoute):
        message, flags, scope, kind = RTM_DELROUTE, NLM_F_REQUEST, _ANY_SCOPE, _ANY_KIND
    else:
        message, kind = RTM_NEWROUTE, _UNICAST
        flags = NLM_F_REQUEST | NLM_F_CREATE | (NLM_F_REPLACE if step.replace else _NLM_F_EXCL)
        on_link = step.way.gateway is None and family == AF_INET
        scope = _ON_LINK if on_link else _UNIVERSE
        attributes += _attribute(_RTA_OIF, _NUMBER.pack(step.way.interface))
        if step.way.gateway is not None:
            attributes += _attribute(_RTA_GATEWAY, step.way.gateway.packed)
        if step.way.source is not None:
            attributes += _attribute(_RTA_PREFSRC, step.way.source.packed)
    body = _ROUTE.pack(family, destination.prefixlen, 0, 0, _MAIN, ROUTE_PROTOCOL, scope, kind, 0) + attributes
    return HEADER.pack(HEADER.size + len(body), message, flags, sequence, 0) + body


def ask_routes(family: int, sequence: int) -> bytes:
    """A request for all routes of ours of one family; a kernel that cannot choose (before 4.20) sends all routes."""
    body = _ROUTE.pack(family, 0, 0, 0, _MAIN, ROUTE_PROTOCOL, 0, 0, 0)
    return HEADER.pack(HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, sequence, 0) + body


def decode_route(buffer: bytes, start: int, length: int, *, replacing: bool = False) -> RouteMessage | None:
    """Read a route message; None for what is not ours.

    With ``replacing`` also somebody else's route is told (without a way) that may have taken the place of ours: when
    one is replaced, the kernel says nothing of the old one.
    """
    family, width, _, tos, table, protocol, _, kind, flags = _ROUTE.unpack_from(buffer, start + HEADER.size)
    ours = protocol == ROUTE_PROTOCOL
    if table != _MAIN or tos or flags & _RTM_F_CLONED or not (ours or replacing) or family not in _WIDTHS:
        return None
    found = dict(_attributes(buffer, start + _BODY, start + length))
    metric = _number(found.get(_RTA_PRIORITY))
    if metric != METRICS[family]:
        return None
    network = IPv4Network if family == AF_INET else IPv6Network
    destination: IPNetwork = network((found.get(_RTA_DST, bytes(_WIDTHS[family])), width))
    if not ours:
        return RouteMessage(destination, None)
    if kind != _UNICAST or found.keys() & _RTA_DETOURS:
        return RouteMessage(destination, ELSEWHERE)
    gateway, source = found.get(_RTA_GATEWAY), found.get(_RTA_PREFSRC)
    way = Way(
        _number(found.get(_RTA_OIF)),
        None if gateway is None else decode_address(gateway),
        None if source is None else decode_address(source),
    )
    return RouteMessage(destination, way)


def _attributes(buffer: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at < end:
        size, kind = ATTRIBUTE.unpack_from(buffer, at)
        yield kind & _TYPE, buffer[at + ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(_NUMBER.unpack(value)[0])


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value
