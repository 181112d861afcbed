"""Links: VXLAN devices, which we own, and macvlan children, which we hand over.

A link that exists is compared, not trusted.  What can be changed in place is changed; where the kernel does not allow
that, the device is made anew, and the reason is told, because it cuts off the containers on it (the kernel removes the
macvlan children of a device that goes).  A link without our mark is never touched, whatever it is called.
"""

import errno
import logging
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Gone, Refuse, Retry
from spanlan.kernel import facts, netlink
from spanlan.kernel.found import BIRTH_GROUP, MARK, FoundLink, local_of, read_link
from spanlan.model.host import MacvlanLink, VxlanLink
from spanlan.model.mac import format_mac

_log = logging.getLogger(__name__)

_NO_IPV6_ADDRESS: Final = {
    "attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]],  # linux/if_link.h, IN6_ADDR_GEN_MODE_NONE
}
_NAME_BYTES: Final = 15


@dataclass(frozen=True, slots=True)
class EnsuredLink:
    """A device that is there.

    ``changes``: what was done to it, as text; empty if it was right.  After a change its entries may be gone, and
    ``index`` may be another one.  ``flaws``: what is not as wanted and could not be changed; the device works anyhow.
    """

    index: int
    changes: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()


class Links:
    """The links of the calling thread's network namespace.  Holds nothing, so any thread may call any method."""

    def ensure_vxlan(self, link: VxlanLink) -> EnsuredLink:
        """Make the VXLAN device if it is not there, and put right what differs if it is.

        ``nolearning proxy``, up, without an IPv6 address of its own.  (IPv6 itself stays on: the ND proxy and the
        neighbour table of the device need it.  Likewise an MTU below 1280 leaves it without, RFC 8200 section 5.)
        Raises Refuse if a foreign device is in the way or the MTU does not fit, Broken without CAP_NET_ADMIN.
        """
        with netlink.open_routes(f"make the VXLAN device {link.name}") as routes:
            parent = _parent_of(link)
            found = _find(routes, link.name)
            if found is None:
                return EnsuredLink(_make_vxlan(routes, link, parent), ("made",))
            _refuse_foreign(found)
            reasons = fixed_differences(found, link)
            if not reasons:
                try:
                    return _mend_vxlan(routes, found, link, parent)
                except NetlinkError as error:
                    if error.code != errno.EOPNOTSUPP:
                        raise
                    reasons = [netlink.words(error)]
            reason = ", ".join(reasons)
            _log.warning("%s is made anew, its containers lose their link: %s", link.name, reason)
            _remove(routes, found.index)
            return EnsuredLink(_make_vxlan(routes, link, parent), (f"made anew: {reason}",))

    def find_vxlan(self, link: VxlanLink) -> tuple[int | None, tuple[str, ...]]:
        """The index of the device (None if it is not there) and how it differs from ``link``; changes nothing.

        Raises Refuse if a foreign device has the name.
        """
        with netlink.open_routes(f"look at the VXLAN device {link.name}") as routes:
            found = _find(routes, link.name)
            if found is None:
                return None, ("not there",)
            _refuse_foreign(found)
            differences = fixed_differences(found, link)
            differences += [text for text, _ in changeable_differences(found, link, _parent_of(link))]
            return found.index, tuple(differences + _plain_differences(found, link))

    def make_macvlan(self, link: MacvlanLink) -> int:
        """Make the child of ``link.parent`` and return its index; it is left down, dockerd brings it up.

        One that is already there and equal is kept; one of ours that differs is replaced.
        Raises Refuse if a foreign link has the name, Retry while the parent is not there.
        """
        with netlink.open_routes(f"make the link {link.name} on {link.parent}") as routes:
            parent = _index_of(link.parent)
            if parent is None:
                raise Retry(f"make the link {link.name}: its device {link.parent} is not there (yet)")
            found = _find(routes, link.name)
            if found is not None:
                _refuse_foreign(found)
                if _same_macvlan(found, link, parent):
                    return found.index
                _remove(routes, found.index)
            routes.link(
                "add",
                ifname=_checked(link.name),
                kind="macvlan",
                link=parent,
                macvlan_mode="bridge",
                address=format_mac(link.mac),
                mtu=link.mtu,
                group=BIRTH_GROUP,
            )
            return _christen(routes, link.name, link.alias)

    def delete(self, name: str) -> bool:
        """Remove a link of ours; whether it was there.  The kernel takes about 16 ms to let a link go.

        Raises Refuse if the link is not ours.
        """
        with netlink.open_routes(f"delete the link {name}") as routes:
            found = _find(routes, name)
            if found is None:
                return False
            _refuse_foreign(found)
            return _remove(routes, found.index)

    def ours(self) -> list[FoundLink]:
        """All links that carry our mark, of any kind."""
        with netlink.open_routes("list the links") as routes:
            links = netlink.whole_dump(lambda: map(read_link, routes.get_links()))
        return [link for link in links if link.ours]


# -- VXLAN -------------------------------------------------------------------------------------------------------


def fixed_differences(found: FoundLink, link: VxlanLink) -> list[str]:
    """How a device differs from ``link`` in what the kernel fixes when a device is made."""
    if found.kind != "vxlan":
        return [f"it is a {found.kind or 'plain'} link, not vxlan"]
    differences = [
        f"{word} is {found.details.get(attribute)}, must be {int(wanted)}"
        for word, attribute, wanted in _fixed_attributes(link)
        if found.details.get(attribute, 0) != wanted
    ]
    local = local_of(found)
    if local is None or local.version != link.local.version:
        differences.append(f"local is {local}, must be {link.local}")
    return differences


def changeable_differences(found: FoundLink, link: VxlanLink, parent: int) -> list[tuple[str, dict[str, Any]]]:
    """How a device differs from ``link`` in what can be changed in place: as text, and as pyroute2's arguments."""
    pairs: list[tuple[str, object, object, dict[str, Any]]] = [
        ("local", str(local_of(found)), str(link.local), _local(link)),
        ("underlay", found.parent, parent, {"vxlan_link": parent}),
        ("ttl", found.details.get("IFLA_VXLAN_TTL", 0), link.ttl, {"vxlan_ttl": link.ttl}),
        ("tos", found.details.get("IFLA_VXLAN_TOS", 0), link.tos, {"vxlan_tos": link.tos}),
        ("learning", found.details.get("IFLA_VXLAN_LEARNING", 0), 0, {"vxlan_learning": False}),
    ]
    return [(f"{word}: {there} -> {wanted}", change) for word, there, wanted, change in pairs if there != wanted]


def _plain_differences(found: FoundLink, link: VxlanLink) -> list[str]:
    differences = []
    if found.alias != link.alias:
        differences.append(f"alias: {found.alias} -> {link.alias}")
    if found.makes_addresses:
        differences.append("IPv6 address of its own: on -> off")
    if found.mtu != link.mtu:
        differences.append(f"mtu: {found.mtu} -> {link.mtu}")
    if not found.up:
        differences.append("state: down -> up")
    return differences


def _fixed_attributes(link: VxlanLink) -> list[tuple[str, str, int]]:
    attributes = [
        ("vni", "IFLA_VXLAN_ID", link.vni),
        ("port", "IFLA_VXLAN_PORT", link.port),
        ("proxy", "IFLA_VXLAN_PROXY", 1),
    ]
    if link.local.version == 4:  # noqa: PLR2004
        return [*attributes, ("udp_csum", "IFLA_VXLAN_UDP_CSUM", int(link.udp_csum))]
    return [
        *attributes,
        ("zero checksums sent", "IFLA_VXLAN_UDP_ZERO_CSUM6_TX", int(not link.udp_csum)),
        ("zero checksums taken", "IFLA_VXLAN_UDP_ZERO_CSUM6_RX", 1),
    ]


def _checksums(link: VxlanLink) -> dict[str, bool]:
    """Checksums of the outer UDP header.

    Over IPv6 a packet without one must be taken (RFC 7348 section 5), whatever this host sends: the other host may
    send none, and devices that differ in this cannot share a port.
    """
    if link.local.version == 4:  # noqa: PLR2004
        return {"vxlan_udp_csum": link.udp_csum}
    return {"vxlan_udp_zero_csum6_tx": not link.udp_csum, "vxlan_udp_zero_csum6_rx": True}


def _local(link: VxlanLink) -> dict[str, str]:
    return {"vxlan_local" if isinstance(link.local, IPv4Address) else "vxlan_local6": str(link.local)}


def _make_vxlan(routes: Any, link: VxlanLink, parent: int) -> int:
    """Make the device, and leave nothing behind if it cannot be made as wanted."""
    try:
        routes.link(
            "add",
            ifname=_checked(link.name),
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
            **_local(link),
            **_checksums(link),
        )
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise Refuse(_vni_taken(link)) from error
        raise
    index = _christen(routes, link.name, link.alias)
    try:
        _without_ipv6_address(routes, index)
        found = read_link(routes.link("get", index=index)[0])
        if found.mtu != link.mtu:
            raise _too_big(link, found.mtu)  # the kernel does not say so when a device is made: it takes what fits
        routes.link("set", index=index, state="up")
    except NetlinkError as error:
        _remove(routes, index)
        if error.code == errno.EADDRINUSE:
            raise Refuse(_port_taken(link)) from error
        raise
    except Refuse:
        _remove(routes, index)
        raise
    return index


def _mend_vxlan(routes: Any, found: FoundLink, link: VxlanLink, parent: int) -> EnsuredLink:
    changes = []
    flaws = []
    for text, change in changeable_differences(found, link, parent):
        routes.link("set", index=found.index, kind="vxlan", **change)
        changes.append(text)
    if found.alias != link.alias:
        routes.link("set", index=found.index, ifalias=link.alias, group=0)
        changes.append(f"alias: {found.alias} -> {link.alias}")
    if found.makes_addresses:
        _without_ipv6_address(routes, found.index)
        changes.append("IPv6 address of its own: on -> off")
    if found.mtu != link.mtu:
        try:
            routes.link("set", index=found.index, mtu=link.mtu)
            changes.append(f"mtu: {found.mtu} -> {link.mtu}")
        except NetlinkError as error:
            if error.code != errno.EINVAL:
                raise
            flaws.append(
                f"{link.name}: its MTU is {found.mtu} and should be {link.mtu}, which does not fit on the underlay"
                f" {link.parent}; raise the MTU of {link.parent} or give the network a smaller one (-o mtu=)"
            )
    if not found.up:
        try:
            routes.link("set", index=found.index, state="up")
        except NetlinkError as error:
            if error.code == errno.EADDRINUSE:
                raise Refuse(_port_taken(link)) from error
            raise
        changes.append("state: down -> up")
    return EnsuredLink(found.index, tuple(changes), tuple(flaws))


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


# -- any link ----------------------------------------------------------------------------------------------------


def _same_macvlan(found: FoundLink, link: MacvlanLink, parent: int) -> bool:
    return (
        found.kind == "macvlan"
        and found.details.get("IFLA_MACVLAN_MODE") == "bridge"
        and (found.parent, found.mac, found.mtu, found.alias) == (parent, link.mac, link.mtu, link.alias)
    )


def _parent_of(link: VxlanLink) -> int:
    parent = _index_of(link.parent)
    if parent is None:
        raise Refuse(f"make the VXLAN device {link.name}: its underlay {link.parent} is not there (-o parent=)")
    return parent


def _find(routes: Any, name: str) -> FoundLink | None:
    index = _index_of(name)  # 300 times cheaper than asking pyroute2, and mostly the answer is no
    if index is None:
        return None
    try:
        return read_link(routes.link("get", index=index)[0])
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def _index_of(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _christen(routes: Any, name: str, alias: str) -> int:
    """Give a new link its mark, in exchange for that of its birth; returns its index."""
    index = _index_of(name)
    if index is None:
        raise Gone(f"make the link {name}: it vanished again")
    routes.link("set", index=index, ifalias=alias, group=0)
    return index


def _without_ipv6_address(routes: Any, index: int) -> None:
    try:
        routes.link("set", index=index, IFLA_AF_SPEC=_NO_IPV6_ADDRESS)
    except NetlinkError as error:
        if error.code != errno.EAFNOSUPPORT:  # a kernel without IPv6 makes no such address
            raise


def _remove(routes: Any, index: int) -> bool:
    try:
        routes.link("del", index=index)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return False
        raise
    return True


def _refuse_foreign(found: FoundLink) -> None:
    if not found.ours:
        raise Refuse(
            f"the link {found.name} was not made by spanlan (its alias does not start with {MARK!r}); it is left alone:"
            " rename or remove it if spanlan is to use that name"
        )


def _checked(name: str) -> str:
    if not 1 <= len(name.encode()) <= _NAME_BYTES:
        raise Refuse(f"the link name {name} must be 1 to {_NAME_BYTES} bytes long")
    return name
