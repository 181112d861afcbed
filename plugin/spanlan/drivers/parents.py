"""Parents of children on the LAN: a NIC, a VLAN of it that is made on demand, or a link of our own that leads nowhere.

A parent is named by ``-o parent=``.  ``eth0.10`` names VLAN 10 of ``eth0``, as Docker's own drivers have it, unless a
link of that very name is there; ``-o vlan=10`` says the same of a parent with any name, and ``-o vlan=100.10`` puts
VLAN 10 into an 802.1ad service tag 100 (QinQ).
"""

from collections.abc import Sequence

from spanlan.drivers.common import digest
from spanlan.errors import Refuse
from spanlan.model.host import IsolatedLink, LanAttachment, Parent, VlanLink
from spanlan.model.local import Network

LONGEST_NAME = 15  # bytes of a link's name, IFNAMSIZ less the closing zero
FIRST_VLAN, LAST_VLAN = 1, 4094  # IEEE 802.1Q-2018 section 9.6: 0 and 4095 are reserved
HIGHEST_PRIORITY = 7  # PCP has three bits
_CHILD_KINDS = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap"})


def vlan_ids(text: str) -> tuple[int, ...]:
    """A parser for ``10``, or ``100.10`` with the outer (802.1ad) tag first."""
    parts = text.split(".")
    if len(parts) <= 2 and all(part.isascii() and part.isdigit() for part in parts):  # noqa: PLR2004 - outer and inner
        ids = tuple(int(part) for part in parts)
        if all(FIRST_VLAN <= each <= LAST_VLAN for each in ids):
            return ids
    raise ValueError(f"a VLAN from {FIRST_VLAN} to {LAST_VLAN}, or OUTER.INNER for QinQ")


vlan_ids.values = "1 to 4094, or OUTER.INNER"  # type: ignore[attr-defined]


def priorities(text: str) -> tuple[tuple[int, int], ...]:
    """A parser for ``0:1,6:5``: packets of priority 0 go out with priority bits 1, those of 6 with 5; sorted."""
    pairs: dict[int, int] = {}
    for pair in text.split(","):
        inner, colon, outer = pair.partition(":")
        if not (colon and inner.isascii() and inner.isdigit() and outer.isascii() and outer.isdigit()):
            break
        if int(outer) > HIGHEST_PRIORITY or int(inner) >= 2**32 or int(inner) in pairs:
            break
        pairs[int(inner)] = int(outer)
    else:
        return tuple(sorted(pairs.items()))
    raise ValueError("pairs FROM:TO such as 0:1,6:5, each FROM once and TO from 0 to 7")


priorities.values = "FROM:TO,…"  # type: ignore[attr-defined]


def split(parent: str) -> tuple[str, tuple[int, ...] | None]:
    """``eth0`` and 10 of ``eth0.10``; the name as it is, and None, if it says no VLAN."""
    base, dot, last = parent.rpartition(".")
    if not (dot and base and last.isascii() and last.isdigit()):
        return parent, None
    if not FIRST_VLAN <= int(last) <= LAST_VLAN:
        raise Refuse(f"option parent={parent}: a VLAN is a number from {FIRST_VLAN} to {LAST_VLAN}, not {last}")
    return base, (int(last),)


def vlan_links(nic: Parent, vlans: Sequence[int], qos: tuple[tuple[int, int], ...]) -> tuple[VlanLink, ...]:
    """The links for VLANs of a NIC, the outer one first.

    Raises Refuse for a VLAN on a link that is a VLAN of the same kind itself: switches would not know which is which.
    """
    if vlans and nic.vlan is not None and (len(vlans) > 1 or nic.vlan_protocol != "802.1ad"):
        outer = f"-o parent={nic.below or 'NIC'} -o vlan={nic.vlan}.{vlans[-1]}"
        raise Refuse(
            f"option vlan={'.'.join(map(str, vlans))}: {nic.name} is VLAN {nic.vlan} itself ({nic.vlan_protocol}), and "
            f"a VLAN in a VLAN needs an outer tag of 802.1ad; give {outer}, or a NIC that is no VLAN as parent"
        )
    links: list[VlanLink] = []
    below = nic.name
    for depth, vlan in enumerate(vlans):
        inner = depth == len(vlans) - 1
        name = _vlan_name(below, vlan)
        links.append(
            VlanLink(
                name=name,
                alias=f"spanlan vlan={vlan}",
                parent=below,
                vlan=vlan,
                protocol="802.1q" if inner else "802.1ad",
                egress_qos=qos if inner else (),
            )
        )
        below = name
    return tuple(links)


def isolated_link(segment: str) -> IsolatedLink:
    """The parent of a network that names none."""
    return IsolatedLink(f"sli-{digest(segment)}", f"spanlan segment={segment}")


def refuse_unfit(nic: Parent) -> None:
    """Raise Refuse for a link that no child can sit on."""
    if nic.loopback:
        raise Refuse(f"option parent={nic.name}: the loopback leads nowhere; name a NIC")
    if nic.master is not None:
        raise Refuse(
            f"option parent={nic.name}: it is a port of {nic.master}, which takes its packets; name {nic.master}"
        )
    if not nic.ethernet:
        raise Refuse(
            f"option parent={nic.name}: its frames carry no MAC address, so no container's link can sit on it; use "
            "-o mode=vxlan, which crosses any IP network"
        )
    if nic.kind in _CHILD_KINDS:
        below = f" ({nic.below})" if nic.below else ""
        raise Refuse(f"option parent={nic.name}: it is a {nic.kind} link itself; name the one below it{below}")
    if nic.ours:
        instead = f" below it and the VLAN, as in -o parent={nic.below} -o vlan={nic.vlan}" if nic.vlan else ""
        raise Refuse(
            f"option parent={nic.name}: spanlan made that link for other networks, and removes it with them; name "
            f"{'the' if instead else 'a'} NIC{instead}"
        )


def refuse_other_mtu(mtu: int | None, nic: Parent) -> None:
    """Raise Refuse for an MTU that the parent does not carry."""
    if mtu is not None and mtu > nic.mtu:
        raise Refuse(f"option mtu={mtu}: {nic.name} carries at most {nic.mtu}; ask for that or less, or raise its MTU")


def sharing(attachment: LanAttachment, others: Sequence[Network]) -> list[tuple[Network, LanAttachment]]:
    """The networks of this host whose children sit on the same parent."""
    return [
        (other, other.attachment)
        for other in others
        if isinstance(other.attachment, LanAttachment) and other.attachment.parent == attachment.parent
    ]


def refuse_other_kind(attachment: LanAttachment, others: Sequence[Network]) -> None:
    """Raise Refuse where macvlan and ipvlan would share a parent: the kernel lets only one of them have a NIC."""
    for other, there in sharing(attachment, others):
        if there.kind != attachment.kind:
            raise Refuse(
                f"option mode={attachment.kind}: {attachment.parent} carries {there.kind} network "
                f"{other.network_id[:12]}, and one parent has either macvlan or ipvlan children; use another parent, a "
                f"VLAN of it (-o vlan=), or mode={there.kind}"
            )


def modes_upon(attachment: LanAttachment, there: Parent | None) -> list[str]:
    """The modes of the children that sit on the parent already, our own among them.

    Raises Refuse if they are of the other kind: Docker's own drivers make such links, too.
    """
    children = sorted(there.children) if there is not None else []
    for kind, _ in children:
        if kind != attachment.kind:
            raise Refuse(
                f"option mode={attachment.kind}: {attachment.parent} carries {kind} links that spanlan did not make, "
                f"and one parent has either macvlan or ipvlan children; use another parent, a VLAN of it (-o vlan=), "
                f"or mode={kind}"
            )
    return [mode for _, mode in children]


def refuse_other_settings(attachment: LanAttachment, others: Sequence[Network]) -> None:
    """Raise Refuse for a VLAN link that another network of this host wants otherwise."""
    mine = {link.name: link for link in attachment.links}
    for other in others:
        if not isinstance(other.attachment, LanAttachment):
            continue
        for there in other.attachment.links:
            here = mine.get(there.name)
            if not (isinstance(here, VlanLink) and isinstance(there, VlanLink)):
                continue
            shared = f"{here.name} is shared with network {other.network_id[:12]}"
            if here.protocol != there.protocol:
                raise Refuse(
                    f"option vlan=: {shared}, where its tag is {there.protocol}, and it would have to be "
                    f"{here.protocol}; choose another VLAN, or another parent"
                )
            if here.egress_qos != there.egress_qos:
                raise Refuse(
                    f"option vlan_qos=: {shared}, which has {_spell(there.egress_qos)} where this one asks for "
                    f"{_spell(here.egress_qos)}; give the same"
                )


def _vlan_name(below: str, vlan: int) -> str:
    """``eth0.10`` as people expect it, or a short name of our own where that would be too long for a link."""
    name = f"{below}.{vlan}"
    return name if len(name.encode()) <= LONGEST_NAME else f"slv-{digest(below, 6)}.{vlan}"


def _spell(qos: Sequence[tuple[int, int]]) -> str:
    return ",".join(f"{inner}:{outer}" for inner, outer in qos) or "none"
