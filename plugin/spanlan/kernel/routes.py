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
from collections.abc import Collection, Sequence
from typing import Final, TypeAlias

from spanlan.kernel import batches, netlink
from spanlan.kernel.messages import AF_INET, AF_INET6
from spanlan.kernel.parents import look, name_of
from spanlan.kernel.route_messages import (
    ROUTE_PROTOCOL,
    RTM_NEWROUTE,
    DropRoute,
    RouteStep,
    SetRoute,
    Way,
    ask_routes,
    decode_route,
    encode,
)
from spanlan.model.address import IPNetwork, lies_in

__all__ = [
    "ROUTE_PROTOCOL",
    "DropRoute",
    "Failure",
    "RouteStep",
    "SetRoute",
    "Way",
    "concerns",
    "dump_routes",
    "explain",
    "spell",
    "sweep_routes",
    "write",
]

Failure: TypeAlias = batches.Refusal[RouteStep]

_FAMILIES: Final = {4: AF_INET, 6: AF_INET6}
_NOT_PERMITTED: Final = frozenset({errno.EPERM, errno.EACCES})
_NOT_THERE: Final = frozenset({errno.ESRCH, errno.ENOENT})
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL})


def concerns(destination: IPNetwork, within: Collection[IPNetwork]) -> bool:
    """Whether the destination lies in one of these networks."""
    return any(lies_in(destination, network) for network in within)


def dump_routes(within: Collection[IPNetwork] | None = None) -> dict[IPNetwork, Way]:
    """The routes of ours that are there, to somewhere ``within`` these networks; None: all.

    Raises Retry if the table does not hold still.
    """
    found: dict[IPNetwork, Way] = {}
    families = _FAMILIES.values() if within is None else {_FAMILIES[network.version] for network in within}
    for family in families:
        for buffer, start, length in batches.dump(ask_routes(family, 1), RTM_NEWROUTE, "read the routes"):
            route = decode_route(buffer, start, length)
            if route is None or route.way is None:
                continue
            if within is None or concerns(route.destination, within):
                found[route.destination] = route.way
    return found


def write(steps: Sequence[RouteStep]) -> list[Failure]:
    """Carry out ``steps``, in order; returns those that failed.  Dropping what is not there is no failure.

    Raises Broken without CAP_NET_ADMIN, Retry if the kernel cannot answer.
    """
    failures: list[Failure] = []
    if not steps:
        return failures
    for refusal in batches.write(encode, steps, "write the routes"):
        if refusal.errno in _NOT_PERMITTED:
            raise netlink.explain(refusal.errno, refusal.reason, "write the routes")
        if refusal.errno not in _NOT_THERE or isinstance(refusal.step, SetRoute):
            failures.append(refusal)
    return failures


def sweep_routes(keep: Collection[IPNetwork]) -> tuple[str, ...]:
    """Drop the routes of ours to anywhere but ``keep``: remnants of segments that nobody wants; what went, as text."""
    found = {destination: way for destination, way in dump_routes().items() if not concerns(destination, keep)}
    failed = {failure.step.destination for failure in write([DropRoute(destination) for destination in found])}
    return tuple(
        f"route {destination} {spell(way)}: gone" for destination, way in found.items() if destination not in failed
    )


# -- in words ------------------------------------------------------------------------------------------------------


def spell(way: Way) -> str:
    """Where a route leads."""
    if way.gateway is not None:
        return f"via {way.gateway}"
    if not way.interface:
        return "on a link"
    return f"on {name_of(way.interface) or way.interface}" + (f" from {way.source}" if way.source else "")


def explain(failure: Failure) -> str:
    """Why a route is not as wanted, and what helps."""
    step, number, said = failure
    if isinstance(step, DropRoute):
        return f"route {step.destination}: it stays: {said}"
    destination, way, _ = step
    what = f"route {destination} {spell(way)}: "
    if number == errno.EEXIST:
        return f"{what}{_other(destination)} is there already: remove it, or give the network another --subnet"
    name = name_of(way.interface) or str(way.interface)
    if number == errno.ENETDOWN or (number in _UNREACHABLE and _is_down(name)):
        return f"{what}the link {name} is down"
    if number in _UNREACHABLE and way.gateway is not None:
        return (
            f"{what}the host {way.gateway} and this one are not on one LAN, for it is in no network of {name} ({said}):"
            " give both an address in the same subnet on their parents, or let a router between them route to the"
            " containers"
        )
    return f"{what}{said}"


def _is_down(name: str) -> bool:
    """Then none of its networks is there, and the kernel says only that."""
    found = look(name)
    return found is not None and not found.up


def _other(destination: IPNetwork) -> str:
    """The route of somebody else to our destination, in words."""
    with netlink.open_routes("read the routes") as routes:
        family = _FAMILIES[destination.version]
        for message in netlink.whole_dump(lambda: routes.get_routes(family=family)):
            if (message.get("RTA_DST"), message["dst_len"]) == (
                str(destination.network_address),
                destination.prefixlen,
            ):
                gateway = message.get("RTA_GATEWAY")
                where = f"via {gateway}" if gateway else f"on {name_of(message.get('RTA_OIF') or 0) or 'no link'}"
                return f"one {where} (protocol {message['proto']})"
    return "another one"
