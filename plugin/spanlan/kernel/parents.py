"""Parents: what there is to know of a NIC before children are put on it.  Reads only."""

import socket
from pathlib import Path

from spanlan.errors import Refuse
from spanlan.kernel import existence, facts, netlink, vlans
from spanlan.kernel.found import FoundLink, read_link
from spanlan.kernel.uppers import CHILD_KINDS, uppers_of
from spanlan.model.host import Parent


def look(name: str) -> FoundLink | None:
    """The link of that name (or alternative name), None if there is none.  Does not look at who sits on it."""
    with netlink.open_routes(f"look at the link {name}") as routes:
        return existence.find(routes, name)


def parent(name: str) -> Parent | None:
    """The link of that name (or alternative name) and who sits on it; None if there is none.

    Children in containers count, as far as the kernel tells (see :mod:`spanlan.kernel.uppers`).
    """
    found = look(name)
    return None if found is None else _describe(found)


def name_of(index: int) -> str | None:
    """The present name of the link with that index, None if there is none."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


def names() -> list[str]:
    """The names of the links that could be parents, for messages: what is neither the loopback nor ours."""
    with netlink.open_routes("list the links") as routes:
        links = netlink.whole_dump(lambda: map(read_link, routes.get_links()))
    return sorted(link.name for link in links if not (link.ours or link.name == "lo"))


def default_parent() -> Parent:
    """The link that the default route points to.  Raises Refuse if there is none."""
    with netlink.open_routes("find the parent") as routes:
        index = facts.default_interface(routes)
        if index is None:
            raise Refuse("there is no default route that would show the parent: name it with -o parent=")
        return _describe(read_link(routes.link("get", index=index)[0]))


def _describe(found: FoundLink) -> Parent:
    children = list(uppers_of(found.index, CHILD_KINDS))
    device = Path("/sys/class/net", found.name)
    return Parent(
        name=found.name,
        index=found.index,
        kind=found.kind,
        mtu=found.mtu,
        up=found.up,
        loopback=found.loopback,
        wireless=(device / "wireless").exists() or (device / "phy80211").exists(),
        master=name_of(found.master) if found.master else None,
        vlan=found.details.get("IFLA_VLAN_ID") if found.kind == "vlan" else None,
        children=frozenset((child.kind, child.mode) for child in children),
        ipvlan_flag=next((child.flag for child in children if child.flag), None),
        mac=found.mac if found.ethernet else None,
        carrier=found.carrier,
        ethernet=found.ethernet and not found.loopback,
        below=name_of(found.parent) if found.parent and found.kind in {"vlan", *CHILD_KINDS} else None,
        vlan_protocol=vlans.protocol_of(found),
        ours=found.ours,
    )
