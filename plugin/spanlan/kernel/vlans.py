"""VLAN links (IEEE 802.1Q): made on demand, compared with what is wanted, mended.

The kernel fixes parent, VLAN id and protocol when a link is made; the map of priorities, the MTU and the state can be
changed.  A link that is there already and is not ours is used if it is that VLAN of that parent, and then left alone.

MTU.  A NIC takes one tag beyond its MTU, so a VLAN link has its parent's MTU.  For the second tag of QinQ (a VLAN link
on a VLAN link) most NICs have no room: the inner link gets 4 bytes less, and 1500 again once the NIC has 1504.  The
kernel itself lowers the MTU of a VLAN link when its parent's falls below; that it rises again is for us.

A VLAN link of ours is there for the containers: the host gets no IPv6 address on it and heeds no router there, which
would otherwise happen by itself as soon as some router of that VLAN speaks.
"""

import errno
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Refuse, SpanlanError
from spanlan.kernel import existence, netlink
from spanlan.kernel.existence import EnsuredLink
from spanlan.kernel.found import BIRTH_GROUP, FoundLink, read_link
from spanlan.kernel.kinds import VLAN_PROTOCOLS, VLAN_TAG
from spanlan.model.host import VlanLink

_log = logging.getLogger(__name__)

_PROTOCOL_NAMES: Final = {number: name for name, number in VLAN_PROTOCOLS.items()}
_TAGGED_KINDS: Final = frozenset({"vlan", "macsec"})  # their frames have grown already when ours are tagged


def protocol_of(found: FoundLink) -> str | None:
    """The protocol of a VLAN link (802.1q, 802.1ad), None for another link."""
    return _PROTOCOL_NAMES.get(found.details.get("IFLA_VLAN_PROTOCOL", 0)) if found.kind == "vlan" else None


def ensure(link: VlanLink) -> EnsuredLink:
    """See :meth:`spanlan.kernel.links.Links.ensure_vlan`."""
    with netlink.open_routes(f"make the VLAN link {link.name}") as routes:
        parent = _parent_of(routes, link)
        found = existence.find(routes, link.name)
        if found is None:
            return _make(routes, link, parent, "made")
        reasons = _fixed_differences(found, link, parent)
        if not found.ours:
            return _use(found, link, reasons)
        if not reasons:
            return _mend(routes, found, link, parent)
        reason = ", ".join(reasons)
        _log.warning("%s is made anew, the containers on it lose their link: %s", link.name, reason)
        existence.remove(routes, found.index)
        return _make(routes, link, parent, f"made anew: {reason}")


def find(link: VlanLink) -> tuple[int | None, tuple[str, ...]]:
    """See :meth:`spanlan.kernel.links.Links.find_vlan`."""
    with netlink.open_routes(f"look at the VLAN link {link.name}") as routes:
        found = existence.find(routes, link.name)
        if found is None:
            return None, ("not there",)
        parent = _parent_of(routes, link)
        reasons = _fixed_differences(found, link, parent)
        if not found.ours:
            return found.index, _use(found, link, reasons).flaws
        return found.index, tuple(reasons + _changeable_differences(found, link, parent))


# -- made ----------------------------------------------------------------------------------------------------------


def _make(routes: Any, link: VlanLink, parent: FoundLink, what: str) -> EnsuredLink:
    """Make the link, and leave nothing behind if it cannot be made as wanted."""
    try:
        routes.link(
            "add",
            ifname=existence.checked_name(link.name),
            kind="vlan",
            link=parent.index,
            vlan_id=link.vlan,
            vlan_protocol=VLAN_PROTOCOLS[link.protocol],
            mtu=_mtu_on(parent) if parent.kind in _TAGGED_KINDS else None,  # None: the kernel takes the parent's
            group=BIRTH_GROUP,
            **_qos_argument(dict(link.egress_qos)),
        )
    except NetlinkError as error:
        raise _explain(routes, error, link, parent) from error
    index = existence.christen(routes, link.name, link.alias)
    try:
        existence.without_ipv6_address(routes, index)
        _ignore_routers(link.name)
        flaw = _bring_up(routes, index, link)
    except NetlinkError:
        existence.remove(routes, index)
        raise
    return EnsuredLink(index, (what,), (flaw,) if flaw else ())


def _explain(routes: Any, error: NetlinkError, link: VlanLink, parent: FoundLink) -> SpanlanError:
    """What it means that the kernel does not make the link."""
    what = f"make the VLAN link {link.name}: "
    if error.code == errno.EEXIST:
        return Refuse(what + _taken(routes, link, parent))
    if existence.is_unknown_kind(error):
        return Refuse(f"{what}this kernel has no VLANs ({link.protocol}): modprobe 8021q")
    if error.code == errno.EOPNOTSUPP:
        return Refuse(f"{what}{parent.name} can carry no VLANs ({netlink.words(error)}): give another -o parent=")
    return netlink.explain(error.code, netlink.words(error), f"make the VLAN link {link.name}")


def _taken(routes: Any, link: VlanLink, parent: FoundLink) -> str:
    for other in netlink.whole_dump(lambda: map(read_link, routes.get_links())):
        if not _fixed_differences(other, link, parent):
            whose = "made by spanlan and renamed" if other.ours else "not made by spanlan"
            return (
                f"VLAN {link.vlan} ({link.protocol}) of {parent.name} is there under the name {other.name} ({whose}):"
                f" give the network -o parent={other.name}, or rename or remove that link"
            )
    return (
        f"VLAN {link.vlan} ({link.protocol}) of {parent.name} is in use by a link that was moved to another network"
        " namespace: move it back or give the network another VLAN"
    )


# -- compared ------------------------------------------------------------------------------------------------------


def _fixed_differences(found: FoundLink, link: VlanLink, parent: FoundLink) -> list[str]:
    """How a link differs from ``link`` in what the kernel fixes when it is made."""
    if found.kind != "vlan":
        return [f"it is a {found.kind or 'plain'} link, not vlan"]
    pairs = [
        ("parent", found.parent, parent.index),
        ("VLAN id", found.details.get("IFLA_VLAN_ID"), link.vlan),
        ("protocol", protocol_of(found), link.protocol),
    ]
    return [f"{word} is {there}, must be {wanted}" for word, there, wanted in pairs if there != wanted]


def _changeable_differences(found: FoundLink, link: VlanLink, parent: FoundLink) -> list[str]:
    """How a link of ours differs from ``link`` in what can be changed in place; in the words of :func:`_mend`."""
    differences = []
    if found.alias != link.alias:
        differences.append(f"alias: {found.alias} -> {link.alias}")
    there, wanted = _qos_of(found), _qos(link)
    if there != wanted:
        differences.append(f"egress QoS: {_spell(there)} -> {_spell(wanted)}")
    if found.mtu != _mtu_on(parent):
        differences.append(f"mtu: {found.mtu} -> {_mtu_on(parent)}")
    if found.makes_addresses:
        differences.append("IPv6 address of its own: on -> off")
    if not found.up:
        differences.append("state: down -> up")
    return differences


def _mend(routes: Any, found: FoundLink, link: VlanLink, parent: FoundLink) -> EnsuredLink:
    changes = _changeable_differences(found, link, parent)
    if not changes:
        return EnsuredLink(found.index)
    if found.alias != link.alias:
        routes.link("set", index=found.index, ifalias=link.alias, group=0)
    there, wanted = _qos_of(found), _qos(link)
    if there != wanted:
        # An entry cannot be removed, but 0 is what a priority without entry gets, and such entries are not listed.
        routes.link("set", index=found.index, kind="vlan", **_qos_argument(dict.fromkeys(there, 0) | wanted))
    if found.mtu != _mtu_on(parent):
        routes.link("set", index=found.index, mtu=_mtu_on(parent))
    if found.makes_addresses:
        existence.without_ipv6_address(routes, found.index)
        _ignore_routers(link.name)
    flaw = None if found.up else _bring_up(routes, found.index, link)
    if flaw:
        changes.pop()
    return EnsuredLink(found.index, tuple(changes), (flaw,) if flaw else ())


def _use(found: FoundLink, link: VlanLink, reasons: list[str]) -> EnsuredLink:
    """A foreign link, as it is."""
    if reasons:
        raise Refuse(
            f"the link {link.name} was not made by spanlan and is something else: {', '.join(reasons)};"
            " rename or remove it, or give the network another -o parent= or -o vlan="
        )
    flaws = []
    if not found.up:
        flaws.append(f"{link.name} is down and not ours to bring up: ip link set {link.name} up")
    there, wanted = _qos_of(found), _qos(link)
    if wanted and there != wanted:
        flaws.append(
            f"the egress QoS of {link.name} is {_spell(there)}, not {_spell(wanted)}, and not ours to change:"
            f" ip link set {link.name} type vlan egress {_spell(wanted)}"
        )
    return EnsuredLink(found.index, (), tuple(flaws), ours=False)


# -- inside --------------------------------------------------------------------------------------------------------


def _parent_of(routes: Any, link: VlanLink) -> FoundLink:
    parent = existence.find(routes, link.parent)
    if parent is None:
        raise Refuse(f"make the VLAN link {link.name}: its parent {link.parent} is not there (-o parent=)")
    return parent


def _mtu_on(parent: FoundLink) -> int:
    return parent.mtu - VLAN_TAG if parent.kind in _TAGGED_KINDS else parent.mtu


def _bring_up(routes: Any, index: int, link: VlanLink) -> str | None:
    """Bring the link up, or say why it cannot be: the kernel does it itself when the parent comes up."""
    try:
        routes.link("set", index=index, state="up")
    except NetlinkError as error:
        if error.code != errno.ENETDOWN:
            raise
        return f"{link.name} is down because its parent {link.parent} is: ip link set {link.parent} up"
    return None


def _ignore_routers(name: str) -> None:
    """Heed no router advertisements; there is no netlink message for it, and /proc/sys may be read-only."""
    try:
        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra").write_text("0", encoding="ascii")
    except OSError as error:
        _log.debug("%s: router advertisements cannot be switched off: %s", name, error)


def _qos(link: VlanLink) -> dict[int, int]:
    return {priority: bits for priority, bits in link.egress_qos if bits}


def _qos_of(found: FoundLink) -> dict[int, int]:
    table = found.details.get("IFLA_VLAN_EGRESS_QOS")
    entries = [value for _, value in table["attrs"]] if table else []
    return {entry["from"]: entry["to"] for entry in entries if entry["to"]}


def _qos_argument(qos: Mapping[int, int]) -> dict[str, Any]:
    entries = [("IFLA_VLAN_QOS_MAPPING", {"from": priority, "to": bits}) for priority, bits in sorted(qos.items())]
    return {"vlan_egress_qos": {"attrs": entries}} if entries else {}


def _spell(qos: Mapping[int, int]) -> str:
    return " ".join(f"{priority}:{bits}" for priority, bits in sorted(qos.items())) or "none"
