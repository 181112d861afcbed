"""What this machine offers: its underlay, its networks, and who is already there.

Reads only.  Answers hold for the moment they were asked: nothing is kept.
"""

import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Refuse
from spanlan.kernel import netlink
from spanlan.kernel.found import FoundLink, FoundVxlan, read_link, read_vxlan
from spanlan.model.address import IPAddress, IPNetwork, ip_address, ip_network
from spanlan.model.host import Underlay

_AF_INET: Final = 2
_AF_INET6: Final = 10
_UNIVERSE: Final = 0  # linux/rtnetlink.h, RT_SCOPE_UNIVERSE
_TABLE_LOCAL: Final = 255  # RT_TABLE_LOCAL
_UNICAST: Final = 1  # RTN_UNICAST
# linux/if_addr.h: temporary (on IPv4: secondary, which is fine), failed duplicate address detection, deprecated
_IFA_F_TEMPORARY: Final = 0x01
_IFA_F_DADFAILED: Final = 0x08
_IFA_F_DEPRECATED: Final = 0x20
_PASSING6: Final = _IFA_F_TEMPORARY | _IFA_F_DADFAILED | _IFA_F_DEPRECATED

_HINT: Final = (
    "set -o parent= (or SPANLAN_UNDERLAY, for all networks) to the interface, or the address, that reaches the other "
    "hosts"
)


def underlay(name_or_address: str | None = None) -> Underlay:
    """The interface by that name, or with that address; None: the one that the default route points to.

    The address that was named comes first, then IPv4, then IPv6, each in the kernel's order.
    Raises Refuse if there is none, or if it has no address that could be a VTEP.
    """
    with netlink.open_routes("find the underlay") as routes:
        named = _address(name_or_address)
        if name_or_address is None:
            index = default_interface(routes)
            if index is None:
                raise Refuse(f"there is no default route that would show the underlay: {_HINT}")
            link = _link(routes, index=index)
        elif named is not None:
            found = next((index for index, address in _addresses(routes) if address == named), None)
            if found is None:
                raise Refuse(f"no interface of this host has the address {named}: {_HINT}")
            link = _link(routes, index=found)
        else:
            link = _link(routes, ifname=name_or_address)
        addresses = [address for index, address in _addresses(routes) if index == link.index]
    if not addresses:
        raise Refuse(
            f"the interface {link.name} has no address of global scope for the tunnels: give it one, or {_HINT}"
        )
    addresses.sort(key=lambda address: (address != named, address.version))
    return Underlay(interface=link.name, mtu=link.mtu, addresses=tuple(addresses))


def addresses(interface: str) -> tuple[IPAddress, ...]:
    """The addresses of this host on an interface to which other hosts could send; none if it is not there."""
    with netlink.open_routes(f"list the addresses of {interface}") as routes:
        indices = routes.link_lookup(ifname=interface)
        return tuple(address for index, address in _addresses(routes) if index in indices)


def vxlan_devices() -> list[FoundVxlan]:
    """All VXLAN devices of this namespace, whoever made them.

    A device that was made here and moved elsewhere keeps its VNI and port here, and is not seen.
    """
    with netlink.open_routes("list the VXLAN devices") as routes:
        links = netlink.whole_dump(lambda: map(read_link, routes.get_links()))
    return [read_vxlan(link) for link in links if link.kind == "vxlan"]


def networks() -> list[IPNetwork]:
    """The networks that this host uses: its addresses' and its routes', without default routes and link-local ones.

    For the choice of a pool that collides with none of them.
    """
    with netlink.open_routes("list the routes") as routes:
        found = {network for family in (_AF_INET, _AF_INET6) for network in _routes(routes, family)}
        found |= {
            ip_network(f"{message.get('IFA_ADDRESS')}/{message['prefixlen']}", strict=False)
            for message in netlink.whole_dump(routes.get_addr)
            if message.get("IFA_ADDRESS")
        }
    usable = (network for network in found if not (network.is_link_local or network.is_multicast))
    return sorted(usable, key=lambda network: (network.version, int(network.network_address), network.prefixlen))


def udp_port_owner(port: int, version: int) -> str | None:
    """Who listens on a UDP port over IPv4 or IPv6 (``version``), in words; None if nobody does.

    A VXLAN device of this namespace counts as nobody, since devices share a port.  One whose device was moved
    to another namespace looks like a program without a name.
    """
    table = Path("/proc/thread-self/net/udp" if version == 4 else "/proc/thread-self/net/udp6")  # noqa: PLR2004
    wanted = f":{port:04X}"
    try:
        rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    except FileNotFoundError:
        return None
    sockets = {row[9] for row in rows if row[1].endswith(wanted)}
    if not sockets:
        return None
    name = _process_with(sockets)
    if name is None and any(device.port == port for device in vxlan_devices()):
        return None
    return name or "a program that cannot be seen from here"


def default_interface(routes: Any) -> int | None:
    """The index of the interface that the default route points to, IPv4's before IPv6's; None without one."""
    for family in (_AF_INET, _AF_INET6):
        found = [
            (message.get("RTA_PRIORITY") or 0, _interface_of(message))
            for message in netlink.whole_dump(partial(routes.get_default_routes, family))
        ]
        usable = [(metric, index) for metric, index in found if index is not None]
        if usable:
            return min(usable)[1]
    return None


# -- inside ------------------------------------------------------------------------------------------------------


def _process_with(sockets: set[str]) -> str | None:
    links = {f"socket:[{inode}]" for inode in sockets}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for handle in (process / "fd").iterdir():
                if os.readlink(handle) in links:  # noqa: PTH115 - Path.readlink costs three times as much, per handle
                    return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # it ended, or is none of our business
    return None


def _address(text: str | None) -> IPAddress | None:
    try:
        return ip_address(text) if text is not None else None
    except ValueError:
        return None


def _link(routes: Any, **which: Any) -> FoundLink:
    try:
        return read_link(routes.link("get", **which)[0])
    except NetlinkError as error:
        if error.code in {errno.ENODEV, errno.ERANGE, errno.EINVAL}:
            raise Refuse(f"there is no interface {which.get('ifname', which)}: {_HINT}") from error
        raise


def _addresses(routes: Any) -> Iterator[tuple[int, IPAddress]]:
    """Interface and address, for all addresses of this host that another host could send to."""
    for message in netlink.whole_dump(routes.get_addr):
        text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
        if not text or message["scope"] != _UNIVERSE:
            continue
        flags = message.get("IFA_FLAGS") or message["flags"]
        if message["family"] == _AF_INET6 and flags & _PASSING6:
            continue
        yield message["index"], ip_address(text)


def _interface_of(message: Any) -> int | None:
    hops = message.get("RTA_MULTIPATH")
    index: int | None = hops[0]["oif"] if hops else message.get("RTA_OIF")
    return index


def _routes(routes: Any, family: int) -> Iterator[IPNetwork]:
    for message in netlink.whole_dump(lambda: routes.get_routes(family=family)):
        destination = message.get("RTA_DST")
        table = message.get("RTA_TABLE") or message["table"]
        if destination and message["dst_len"] and message["type"] == _UNICAST and table != _TABLE_LOCAL:
            yield ip_network(f"{destination}/{message['dst_len']}", strict=False)
