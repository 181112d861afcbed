"""Routes of this host that are ours: to the containers of other hosts, and to our own.

They carry a protocol number of their own (rtnetlink(7), rtm_protocol), by which a daemon without memory knows them and
touches no others.  It is 90, which nobody else claims in iproute2's list; ``ip route`` prints a name instead once
/etc/iproute2/rt_protos.d/spanlan.conf holds the line

    90 spanlan

The metric is that of a route which somebody types in (0, for IPv6 1024): if there is one to the same destination the
kernel refuses ours, and the message says whose is in the way, instead of one silently winning.  (Routes of DHCP
and NetworkManager have metrics of 100 and more; in IPv4 ours win.)
"""

import errno
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Refuse
from spanlan.kernel import existence, netlink
from spanlan.kernel.parents import name_of
from spanlan.model.address import IPNetwork, ip_address, ip_network, lies_in
from spanlan.model.host import NextHop, OnLink

ROUTE_PROTOCOL: Final = 90
MAIN_TABLE: Final = 254  # linux/rtnetlink.h, RT_TABLE_MAIN

_FAMILIES: Final = {4: 2, 6: 10}  # IP version: address family
_UNICAST: Final = 1  # RTN_UNICAST
_SCOPE_LINK: Final = 253  # RT_SCOPE_LINK
_ANY_SCOPE: Final = 255  # RT_SCOPE_NOWHERE, which stands for any when a route is deleted
_METRICS: Final = {4: 0, 6: 1024}
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class RoutesReport:
    """What was done to the routes.

    ``changes``: each as text.  ``failed``: the destinations whose route is not as wanted, and why.
    """

    changes: tuple[str, ...]
    failed: Mapping[IPNetwork, str]


def ensure_routes(
    wanted: Mapping[IPNetwork, NextHop], *, within: Collection[IPNetwork] | None = None, table: int = MAIN_TABLE
) -> RoutesReport:
    """Make our routes exactly those that are wanted; other people's are not touched.

    ``within``: only routes to somewhere in these networks are ours to judge (a segment's pools, so that each segment
    sees to its own); None: all.  A route that cannot be set is in the report and does not keep others from being set.
    Raises Refuse for a wanted route that does not lie ``within``, Retry if the table does not hold still, Broken
    without CAP_NET_ADMIN.
    """
    for destination in wanted:
        if not _concerns(destination, within):
            raise Refuse(f"the route to {destination} lies outside of {', '.join(map(str, within or ()))}")
    changes = []
    failed = {}
    with netlink.open_routes("write the routes") as routes:
        there = _read(routes, table, within)
        for destination, hop in there.items():
            if destination not in wanted:
                _drop(routes, destination, table)
                changes.append(f"route {destination} {_spell(hop)}: gone")
        for destination, hop in wanted.items():
            if there.get(destination) == hop:
                continue
            try:
                _put(routes, destination, hop, table, replace=destination in there)
            except NetlinkError as error:
                if error.code in {errno.EPERM, errno.EACCES}:
                    raise
                failed[destination] = _explain(routes, error, destination, hop, table)
            else:
                before = f"{_spell(there[destination])} -> " if destination in there else ""
                changes.append(f"route {destination} {before}{_spell(hop)}")
    return RoutesReport(tuple(changes), failed)


def find_routes(*, within: Collection[IPNetwork] | None = None, table: int = MAIN_TABLE) -> dict[IPNetwork, NextHop]:
    """The routes of ours that are there.  Raises Retry if the table does not hold still."""
    with netlink.open_routes("read the routes") as routes:
        return _read(routes, table, within)


def route_differences(
    wanted: Mapping[IPNetwork, NextHop], *, within: Collection[IPNetwork] | None = None, table: int = MAIN_TABLE
) -> tuple[str, ...]:
    """What :func:`ensure_routes` would do, as text; changes nothing."""
    there = find_routes(within=within, table=table)
    gone = [
        f"route {destination} {_spell(hop)}: gone" for destination, hop in there.items() if destination not in wanted
    ]
    return tuple(gone) + tuple(
        f"route {destination} {_spell(there[destination]) + ' -> ' if destination in there else ''}{_spell(hop)}"
        for destination, hop in wanted.items()
        if there.get(destination) != hop
    )


# -- inside --------------------------------------------------------------------------------------------------------


def _concerns(destination: IPNetwork, within: Collection[IPNetwork] | None) -> bool:
    return within is None or any(lies_in(destination, network) for network in within)


def _read(routes: Any, table: int, within: Collection[IPNetwork] | None) -> dict[IPNetwork, NextHop]:
    found: dict[IPNetwork, NextHop] = {}
    for version, family in _FAMILIES.items():
        for message in netlink.whole_dump(lambda family=family: routes.get_routes(family=family, table=table)):  # type: ignore[misc]
            if message["proto"] != ROUTE_PROTOCOL or message["type"] != _UNICAST:
                continue
            start = message.get("RTA_DST") or ("0.0.0.0" if version == 4 else "::")  # noqa: PLR2004, S104
            destination = ip_network(f"{start}/{message['dst_len']}")
            if _concerns(destination, within):
                found[destination] = _hop(message)
    return found


def _hop(message: Any) -> NextHop:
    gateway = message.get("RTA_GATEWAY")
    if gateway:
        return ip_address(gateway)
    source = message.get("RTA_PREFSRC")
    index = message.get("RTA_OIF") or 0
    return OnLink(name_of(index) or str(index), ip_address(source) if source else None)


def _put(routes: Any, destination: IPNetwork, hop: NextHop, table: int, *, replace: bool) -> None:
    arguments: dict[str, Any] = {}
    if isinstance(hop, OnLink):
        index = existence.index_of(hop.interface)
        if index is None:
            raise NetlinkError(errno.ENODEV, f"there is no interface {hop.interface}")
        arguments["oif"] = index
        if destination.version == 4:  # noqa: PLR2004
            arguments["scope"] = _SCOPE_LINK
        if hop.source is not None:
            arguments["prefsrc"] = str(hop.source)
    else:
        arguments["gateway"] = str(hop)
    routes.route("replace" if replace else "add", **_key(destination, table), **arguments)


def _drop(routes: Any, destination: IPNetwork, table: int) -> None:
    try:
        routes.route("del", scope=_ANY_SCOPE, **_key(destination, table))
    except NetlinkError as error:
        if error.code not in {errno.ESRCH, errno.ENOENT}:
            raise


def _key(destination: IPNetwork, table: int) -> dict[str, Any]:
    return {
        "family": _FAMILIES[destination.version],
        "dst": str(destination),
        "table": table,
        "priority": _METRICS[destination.version],
        "proto": ROUTE_PROTOCOL,
        "type": _UNICAST,
    }


def _explain(routes: Any, error: NetlinkError, destination: IPNetwork, hop: NextHop, table: int) -> str:
    """Why a route could not be set, and what helps."""
    what = f"route {destination} {_spell(hop)}: "
    said = netlink.words(error) or os.strerror(error.code)
    if error.code == errno.EEXIST:
        other = _other(routes, destination, table)
        return f"{what}{other} is there already: remove it, or give the network another --subnet"
    if error.code == errno.ENODEV:
        return f"{what}{said}"
    if error.code == errno.ENETDOWN:
        return f"{what}the interface is down"
    if error.code in _UNREACHABLE and not isinstance(hop, OnLink):
        return (
            f"{what}{hop} is not on a LAN with this host ({said}): hosts that share an ipvlan L3 network must be"
            " neighbours, or a router between them must know the way"
        )
    return f"{what}{said}"


def _other(routes: Any, destination: IPNetwork, table: int) -> str:
    """The route of somebody else to our destination, in words."""
    for message in netlink.whole_dump(lambda: routes.get_routes(family=_FAMILIES[destination.version], table=table)):
        if message.get("RTA_DST") == str(destination.network_address) and message["dst_len"] == destination.prefixlen:
            return f"one {_spell(_hop(message))} (protocol {message['proto']})"
    return "another one"


def _spell(hop: NextHop) -> str:
    if isinstance(hop, OnLink):
        return f"on {hop.interface}" + (f" from {hop.source}" if hop.source else "")
    return f"via {hop}"
