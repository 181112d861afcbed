"""MAC addresses, as the six bytes that netlink wants."""

import hashlib
import re
from typing import NewType

from spanlan.model.address import IPAddress

Mac = NewType("Mac", bytes)

_LENGTH = 6
_SPELLING = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}", re.IGNORECASE | re.ASCII)
_MULTICAST = 0x01
_LOCAL = 0x02


def parse_mac(text: str) -> Mac:
    """Parse ``02:42:ac:11:00:02`` (or with dashes).  Raises ValueError for anything that is not a unicast MAC."""
    if not _SPELLING.fullmatch(text):
        raise ValueError("a MAC address such as 02:42:ac:11:00:02")
    octets = bytes.fromhex(text.replace(text[2], ""))
    if octets[0] & _MULTICAST or not any(octets):
        raise ValueError("a unicast MAC address (the lowest bit of its first octet is 0)")
    return Mac(octets)


def format_mac(mac: Mac) -> str:
    """The usual spelling: lower-case hex, separated by colons."""
    return mac.hex(":")


def derive_mac(segment: str, address: IPAddress) -> Mac:
    """The MAC of the endpoint that holds ``address`` on ``segment``.

    Locally administered and unicast (IEEE 802 section 8.2).  It depends on nothing else, so that an address which
    moves to another host keeps its MAC and no neighbour cache has to learn anything.
    """
    digest = hashlib.blake2b(f"{segment}\0{address}".encode(), digest_size=_LENGTH).digest()
    first = (digest[0] | _LOCAL) & ~_MULTICAST
    return Mac(bytes([first]) + digest[1:])
