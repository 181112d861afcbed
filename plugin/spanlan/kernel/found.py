"""Links as they were found, and how a daemon without memory knows its own.

The mark is the link's alias (``ip link`` prints it): it starts with ``spanlan ``, and the drivers write what follows.
The kernel takes no alias in the message that makes a link, but it does take a device group, so a link is born in
:data:`BIRTH_GROUP` and leaves it when it gets its alias: a daemon that is killed in between still finds what it made.

Pure: turns pyroute2's messages into values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spanlan.model.address import IPAddress, ip_address
from spanlan.model.mac import Mac

MARK: Final = "spanlan "
BIRTH_GROUP: Final = 0x7370616E  # "span"

# linux/if.h and linux/if_arp.h
_IFF_UP: Final = 1
_IFF_LOOPBACK: Final = 1 << 3
_IFF_NOARP: Final = 1 << 7
_IFF_LOWER_UP: Final = 1 << 16
_ARPHRD_ETHER: Final = 1
_NO_ADDRESSES: Final = 1  # linux/if_link.h, IN6_ADDR_GEN_MODE_NONE


@dataclass(frozen=True, slots=True)
class FoundLink:
    """A link of this namespace.

    ``parent``: index of the link below, None without one here.  ``master``: index of the bridge or bond that it is a
    port of.  ``carrier``: the cable, or the peer, is there.  ``ethernet``, ``loopback``: what its frames are.
    ``resolves``: it asks for MACs, by ARP and ND.
    ``makes_addresses``: the kernel gives it an IPv6 address by itself.  ``refuses_ipv6``: IPv6 is switched off on it.
    ``details``: attributes of its kind.
    """

    name: str
    index: int
    kind: str
    alias: str
    ours: bool
    parent: int | None
    mac: Mac
    mtu: int
    up: bool
    makes_addresses: bool
    refuses_ipv6: bool
    details: Mapping[str, Any]
    master: int | None = None
    carrier: bool = True
    ethernet: bool = True
    loopback: bool = False
    resolves: bool = True


@dataclass(frozen=True, slots=True)
class FoundVxlan:
    """A VXLAN device of this namespace, whoever made it.  ``local``: None for one that has no address of its own."""

    name: str
    index: int
    vni: int
    port: int
    local: IPAddress | None
    ours: bool


def read_link(message: Any) -> FoundLink:
    """The link that an RTM_NEWLINK message of pyroute2 describes."""
    info = message.get("IFLA_LINKINFO")
    kind = (info and info.get("IFLA_INFO_KIND")) or ""
    data = info and info.get("IFLA_INFO_DATA")
    details = dict(data["attrs"]) if data and "attrs" in data else {}
    alias = message.get("IFLA_IFALIAS") or ""
    parent = details.get("IFLA_VXLAN_LINK") if kind == "vxlan" else message.get("IFLA_LINK")
    if message.get("IFLA_LINK_NETNSID") is not None:
        parent = None  # an index of another namespace
    ipv6 = (message.get("IFLA_AF_SPEC") or {}).get("AF_INET6")
    mode = ipv6.get("IFLA_INET6_ADDR_GEN_MODE") if ipv6 else None
    settings = ipv6.get("IFLA_INET6_CONF") if ipv6 else None
    return FoundLink(
        name=message.get("IFLA_IFNAME"),
        index=message["index"],
        kind=kind,
        alias=alias,
        ours=alias.startswith(MARK) or (not alias and message.get("IFLA_GROUP") == BIRTH_GROUP),
        parent=parent or None,
        mac=Mac(bytes.fromhex((message.get("IFLA_ADDRESS") or "").replace(":", ""))),
        mtu=message.get("IFLA_MTU") or 0,
        up=bool(message["flags"] & _IFF_UP),
        refuses_ipv6=bool(settings and settings["disable_ipv6"]),
        makes_addresses=mode is not None and mode != _NO_ADDRESSES,
        details=details,
        master=message.get("IFLA_MASTER") or None,
        carrier=bool(message["flags"] & _IFF_LOWER_UP),
        ethernet=message["ifi_type"] == _ARPHRD_ETHER,
        loopback=bool(message["flags"] & _IFF_LOOPBACK),
        resolves=not message["flags"] & _IFF_NOARP,
    )


def read_vxlan(link: FoundLink) -> FoundVxlan:
    """The VXLAN device that ``link`` is."""
    return FoundVxlan(
        name=link.name,
        index=link.index,
        vni=link.details.get("IFLA_VXLAN_ID", 0),
        port=link.details.get("IFLA_VXLAN_PORT", 0),
        local=local_of(link),
        ours=link.ours,
    )


def local_of(link: FoundLink) -> IPAddress | None:
    """The address that a VXLAN device sends from."""
    text = link.details.get("IFLA_VXLAN_LOCAL") or link.details.get("IFLA_VXLAN_LOCAL6")
    return ip_address(text) if text else None
