"""VXLAN devices: made, compared with what is wanted, mended.

A device that exists is compared, not trusted.  What can be changed in place is changed; where the kernel does not allow
that, the device is made anew, and the reason is told, because it cuts off the containers on it (the kernel removes the
macvlan children of a device that goes).
"""

import errno
import logging
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Refuse
from spanlan.kernel import comparison, existence, facts, netlink
from spanlan.kernel.existence import EnsuredLink
from spanlan.kernel.found import BIRTH_GROUP, FoundLink, read_link
from spanlan.model.host import VxlanLink

_log = logging.getLogger(__name__)


def ensure(link: VxlanLink) -> EnsuredLink:
    """See :meth:`spanlan.kernel.links.Links.ensure_vxlan`."""
    with netlink.open_routes(f"make the VXLAN device {link.name}") as routes:
        parent = _parent_of(link)
        found = existence.find(routes, link.name)
        if found is None:
            return EnsuredLink(_make(routes, link, parent), ("made",))
        existence.refuse_foreign(found)
        reasons = comparison.fixed_differences(found, link)
        if not reasons:
            try:
                return _mend(routes, found, link, parent)
            except NetlinkError as error:
                if error.code != errno.EOPNOTSUPP:
                    raise
                reasons = [netlink.words(error)]
        reason = ", ".join(reasons)
        _log.warning("%s is made anew, its containers lose their link: %s", link.name, reason)
        existence.remove(routes, found.index)
        return EnsuredLink(_make(routes, link, parent), (f"made anew: {reason}",))


def find(link: VxlanLink) -> tuple[int | None, tuple[str, ...]]:
    """See :meth:`spanlan.kernel.links.Links.find_vxlan`."""
    with netlink.open_routes(f"look at the VXLAN device {link.name}") as routes:
        found = existence.find(routes, link.name)
        if found is None:
            return None, ("not there",)
        existence.refuse_foreign(found)
        differences = comparison.fixed_differences(found, link)
        differences += [text for text, _ in comparison.changeable_differences(found, link, _parent_of(link))]
        return found.index, tuple(differences + comparison.plain_differences(found, link))


def _checksums(link: VxlanLink) -> dict[str, bool]:
    """Checksums of the outer UDP header.

    Over IPv6 a packet without one must be taken (RFC 7348 section 5), whatever this host sends: the other host may
    send none, and devices that differ in this cannot share a port.
    """
    if link.local.version == 4:  # noqa: PLR2004
        return {"vxlan_udp_csum": link.udp_csum}
    return {"vxlan_udp_zero_csum6_tx": not link.udp_csum, "vxlan_udp_zero_csum6_rx": True}


def _make(routes: Any, link: VxlanLink, parent: int) -> int:
    """Make the device, and leave nothing behind if it cannot be made as wanted."""
    try:
        routes.link(
            "add",
            ifname=existence.checked_name(link.name),
            kind="vxlan",
            vxlan_id=link.vni,
            vxlan_link=parent,
            vxlan_port=link.port,
            vxlan_ttl=link.ttl,
            vxlan_tos=link.tos,
            vxlan_learning=False,
            vxlan_proxy=True,
            mtu=link.mtu,
            group=BIRTH_GROUP,
            **comparison.local_argument(link),
            **_checksums(link),
        )
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise Refuse(_vni_taken(link)) from error
        raise
    index = existence.christen(routes, link.name, link.alias)
    try:
        existence.without_ipv6_address(routes, index)
        found = read_link(routes.link("get", index=index)[0])
        if found.mtu != link.mtu:
            raise _too_big(link, found.mtu)  # the kernel does not say so when a device is made: it takes what fits
        if found.refuses_ipv6:
            existence.allow_ipv6(link.name)
        _bring_up(routes, index, link)
    except (NetlinkError, Refuse):
        existence.remove(routes, index)
        raise
    return index


def _mend(routes: Any, found: FoundLink, link: VxlanLink, parent: int) -> EnsuredLink:
    changes = []
    for text, change in comparison.changeable_differences(found, link, parent):
        routes.link("set", index=found.index, kind="vxlan", **change)
        changes.append(text)
    if found.alias != link.alias:
        routes.link("set", index=found.index, ifalias=link.alias, group=0)
        changes.append(f"alias: {found.alias} -> {link.alias}")
    if found.makes_addresses:
        existence.without_ipv6_address(routes, found.index)
        changes.append("IPv6 address of its own: on -> off")
    if found.refuses_ipv6 and existence.allow_ipv6(link.name):
        changes.append("IPv6: off -> on")
    flaw = _mend_mtu(routes, found, link)
    if found.mtu != link.mtu and not flaw:
        changes.append(f"mtu: {found.mtu} -> {link.mtu}")
    if not found.up:
        _bring_up(routes, found.index, link)
        changes.append("state: down -> up")
    return EnsuredLink(found.index, tuple(changes), (flaw,) if flaw else ())


def _mend_mtu(routes: Any, found: FoundLink, link: VxlanLink) -> str | None:
    """Set the MTU, or say why it cannot be: no reason to take a working device down."""
    if found.mtu == link.mtu:
        return None
    try:
        routes.link("set", index=found.index, mtu=link.mtu)
    except NetlinkError as error:
        if error.code != errno.EINVAL:
            raise
        return (
            f"{link.name}: its MTU is {found.mtu} and should be {link.mtu}, which does not fit on the underlay"
            f" {link.parent}; raise the MTU of {link.parent} or give the network a smaller one (-o mtu=)"
        )
    return None


def _bring_up(routes: Any, index: int, link: VxlanLink) -> None:
    """Only now the device opens its UDP port, and finds out whether it can."""
    try:
        routes.link("set", index=index, state="up")
    except NetlinkError as error:
        if error.code == errno.EADDRINUSE:
            raise Refuse(_port_taken(link)) from error
        raise


def _too_big(link: VxlanLink, largest: int) -> Refuse:
    return Refuse(
        f"{link.name}: an MTU of {link.mtu} does not fit on the underlay {link.parent}, at most {largest} does:"
        f" give the network -o mtu={largest} or less, or raise the MTU of {link.parent}"
    )


def _vni_taken(link: VxlanLink) -> str:
    for other in facts.vxlan_devices():
        if (other.vni, other.port) == (link.vni, link.port):
            whose = "another network of spanlan" if other.ours else "not made by spanlan"
            return (
                f"VNI {link.vni} on port {link.port} is in use by the device {other.name} ({whose}):"
                " give the network another one with -o vni= or -o vxlan_port=, or remove that device"
            )
    return (
        f"VNI {link.vni} on port {link.port} is in use by a device that was moved to another network namespace (Docker"
        " Swarm's overlay networks do so): give the network another one with -o vni= or -o vxlan_port="
    )


def _port_taken(link: VxlanLink) -> str:
    version = link.local.version
    holders = [
        f"the device {other.name}"
        for other in facts.vxlan_devices()
        if other.port == link.port and not other.ours and (other.local is None or other.local.version == version)
    ]
    holder = ", ".join(holders) or facts.udp_port_owner(link.port, version) or "another program"
    return (
        f"UDP port {link.port} is in use by {holder}, with which {link.name} cannot share it:"
        " give the network another port with -o vxlan_port=, on all hosts"
    )


def _parent_of(link: VxlanLink) -> int:
    parent = existence.index_of(link.parent)
    if parent is None:
        raise Refuse(f"make the VXLAN device {link.name}: its underlay {link.parent} is not there (-o parent=)")
    return parent
