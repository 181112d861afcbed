"""Links: VXLAN devices, which we own, and macvlan children, which we hand over.

A link that exists is compared, not trusted.  What can be changed in place is changed; where the kernel does not allow
that, the device is made anew, and the reason is told, because it cuts off the containers on it (the kernel removes the
macvlan children of a device that goes).  A link without our mark is never touched, whatever it is called.
"""

import errno
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Gone, Refuse, Retry
from spanlan.kernel import comparison, facts, netlink
from spanlan.kernel.found import BIRTH_GROUP, MARK, FoundLink, read_link
from spanlan.model.host import MacvlanLink, VxlanLink
from spanlan.model.mac import format_mac

_log = logging.getLogger(__name__)

_NO_IPV6_ADDRESS: Final = {
    "attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]],  # linux/if_link.h, IN6_ADDR_GEN_MODE_NONE
}
_NAME_BYTES: Final = 15
_PROBE: Final = "slp-"


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

        ``nolearning proxy``, up, without an IPv6 address of its own.  (IPv6 itself is on, also where the host has it
        off by default: the ND proxy and the neighbour table of the device need it.  An MTU below 1280 leaves the
        device without it, RFC 8200 section 5.)
        Raises Refuse if a foreign device is in the way or the MTU does not fit, Broken without CAP_NET_ADMIN.
        """
        with netlink.open_routes(f"make the VXLAN device {link.name}") as routes:
            parent = _parent_of(link)
            found = _find(routes, link.name)
            if found is None:
                return EnsuredLink(_make_vxlan(routes, link, parent), ("made",))
            _refuse_foreign(found)
            reasons = comparison.fixed_differences(found, link)
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
            differences = comparison.fixed_differences(found, link)
            differences += [text for text, _ in comparison.changeable_differences(found, link, _parent_of(link))]
            return found.index, tuple(differences + comparison.plain_differences(found, link))

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

    def is_carried(self, link: MacvlanLink) -> bool:
        """Whether some container has a link with this MAC on this parent, and has it up, in whatever namespace.

        Its link cannot be seen from here, but no second one with its MAC can be brought up (macvlan_addr_busy() in
        drivers/net/macvlan.c): that is tried.
        """
        with netlink.open_routes(f"look for a link like {link.name} on {link.parent}") as routes:
            parent = _index_of(link.parent)
            if parent is None:
                return False
            probe = _checked(f"{_PROBE}{link.name[len(_PROBE) :]}")
            routes.link(
                "add",
                ifname=probe,
                kind="macvlan",
                link=parent,
                macvlan_mode="bridge",
                address=format_mac(link.mac),
                group=BIRTH_GROUP,
            )
            index = _christen(routes, probe, f"{MARK}probe")
            try:
                _without_ipv6_address(routes, index)
                routes.link("set", index=index, state="up")
            except NetlinkError as error:
                if error.code != errno.EADDRINUSE:
                    raise
                return True
            finally:
                _remove(routes, index)
            return False

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


def _checksums(link: VxlanLink) -> dict[str, bool]:
    """Checksums of the outer UDP header.

    Over IPv6 a packet without one must be taken (RFC 7348 section 5), whatever this host sends: the other host may
    send none, and devices that differ in this cannot share a port.
    """
    if link.local.version == 4:  # noqa: PLR2004
        return {"vxlan_udp_csum": link.udp_csum}
    return {"vxlan_udp_zero_csum6_tx": not link.udp_csum, "vxlan_udp_zero_csum6_rx": True}


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
            **comparison.local_argument(link),
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
        if found.refuses_ipv6:
            _allow_ipv6(link.name)
        _bring_up(routes, index, link)
    except (NetlinkError, Refuse):
        _remove(routes, index)
        raise
    return index


def _mend_vxlan(routes: Any, found: FoundLink, link: VxlanLink, parent: int) -> EnsuredLink:
    changes = []
    for text, change in comparison.changeable_differences(found, link, parent):
        routes.link("set", index=found.index, kind="vxlan", **change)
        changes.append(text)
    if found.alias != link.alias:
        routes.link("set", index=found.index, ifalias=link.alias, group=0)
        changes.append(f"alias: {found.alias} -> {link.alias}")
    if found.makes_addresses:
        _without_ipv6_address(routes, found.index)
        changes.append("IPv6 address of its own: on -> off")
    if found.refuses_ipv6 and _allow_ipv6(link.name):
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


def _allow_ipv6(name: str) -> bool:
    """Switch IPv6 on for one link; whether it could be done.

    There is no netlink message for it, and in a container /proc/sys may be read-only.  Then IPv6 neighbours fail with
    the kernel's own words, and a segment that has none does not suffer.
    """
    try:
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0", encoding="ascii")
    except OSError as error:
        _log.debug("%s: IPv6 cannot be switched on: %s", name, error)
        return False
    return True


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
