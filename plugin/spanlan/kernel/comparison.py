"""How a VXLAN device that was found differs from the one that is wanted, in words and in what would change it.

Pure: what to do about a difference is for :mod:`spanlan.kernel.vxlans`.
"""

from ipaddress import IPv4Address
from typing import Any

from spanlan.kernel.found import FoundLink, local_of
from spanlan.model.host import VxlanLink


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
        ("local", str(local_of(found)), str(link.local), local_argument(link)),
        ("underlay", found.parent, parent, {"vxlan_link": parent}),
        ("ttl", found.details.get("IFLA_VXLAN_TTL", 0), link.ttl, {"vxlan_ttl": link.ttl}),
        ("tos", found.details.get("IFLA_VXLAN_TOS", 0), link.tos, {"vxlan_tos": link.tos}),
        ("learning", found.details.get("IFLA_VXLAN_LEARNING", 0), 0, {"vxlan_learning": False}),
    ]
    return [(f"{word}: {there} -> {wanted}", change) for word, there, wanted, change in pairs if there != wanted]


def plain_differences(found: FoundLink, link: VxlanLink) -> list[str]:
    """How a device differs from ``link`` in what any link has."""
    differences = []
    if found.alias != link.alias:
        differences.append(f"alias: {found.alias} -> {link.alias}")
    if found.makes_addresses:
        differences.append("IPv6 address of its own: on -> off")
    if found.refuses_ipv6:
        differences.append("IPv6: off -> on")
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


def local_argument(link: VxlanLink) -> dict[str, str]:
    """The address that the device sends from, as pyroute2's argument."""
    return {"vxlan_local" if isinstance(link.local, IPv4Address) else "vxlan_local6": str(link.local)}
