"""IP addresses and networks of either family.  Past the door of the daemon no address is a string."""

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

__all__ = ["IPAddress", "IPNetwork", "ip_address", "ip_network", "lies_in", "overlaps", "sortable", "sortable_number"]


def overlaps(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether two networks share an address; networks of different families never do."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def lies_in(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Whether all of ``inner`` belongs to ``outer``."""
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def sortable(address: IPAddress) -> str:
    """A spelling whose alphabetical order is the numerical one: ``010.042.000.005``, or IPv6 without ``::``.

    Store keys use it, so that "the next addresses in use from here" is one range read.
    """
    if isinstance(address, IPv4Address):
        return ".".join(f"{octet:03d}" for octet in address.packed)
    return address.exploded


def sortable_number(text: str) -> int:
    """The number of the address that :func:`sortable` spelled as ``text``; ValueError if it cannot have."""
    if ":" in text:
        return int(text.replace(":", ""), 16)
    number = 0
    for octet in text.split("."):
        number = number << 8 | int(octet)
    return number


def from_sortable(text: str) -> IPAddress:
    """The address that :func:`sortable` spelled.  Raises ValueError for anything else."""
    if "." in text and ":" not in text:
        return IPv4Address(".".join(str(int(octet, 10)) for octet in text.split(".")))
    return IPv6Address(text)
