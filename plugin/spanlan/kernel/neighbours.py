"""Neighbour and FDB entries of a VXLAN device: written in batches, read in one dump.

See :mod:`spanlan.kernel.messages` for which is which, :mod:`spanlan.kernel.batches` for how.

Entries of other kinds (learned, stale, of a bridge, with a detour, multicast) are neither returned nor touched.
"""

import errno
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from spanlan.errors import Gone
from spanlan.kernel import batches, netlink
from spanlan.kernel.messages import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    RTM_NEWNEIGH,
    DropFdb,
    DropNeighbour,
    Encoder,
    Entry,
    SetFdb,
    SetNeighbour,
    Step,
    ask_fdb,
    ask_neighbours,
    decode_address,
    decode_entry,
)
from spanlan.model.address import IPAddress
from spanlan.model.mac import Mac

__all__ = [
    "DropFdb",
    "DropNeighbour",
    "Failure",
    "SetFdb",
    "SetNeighbour",
    "Step",
    "dump_fdb",
    "dump_neighbours",
    "write",
]

Failure: TypeAlias = batches.Refusal[Step]


def write(interface: int, steps: Sequence[Step], *, receive_buffer: int = 8 << 20) -> list[Failure]:
    """Carry out ``steps`` on an interface (by its index), in order; returns those that failed.

    Setting replaces what is there; dropping what is not there is no failure.  Takes 1 to 3 microseconds a step.
    Raises Gone if the interface is gone (how far it came does not matter then), Broken without CAP_NET_ADMIN, Retry
    if the kernel cannot answer.
    """
    if not steps:
        return []
    failures: list[Failure] = []
    tried = f"write entries of interface {interface}"
    for refusal in batches.write(Encoder(interface).encode, steps, tried, receive_buffer=receive_buffer):
        if refusal.errno in {errno.ENODEV, errno.ENXIO}:
            raise Gone(f"{tried}: it is gone")
        if refusal.errno in {errno.EPERM, errno.EACCES}:
            raise netlink.explain(refusal.errno, refusal.reason, tried)
        if refusal.errno != errno.ENOENT or not isinstance(refusal.step, DropNeighbour | DropFdb):
            failures.append(refusal)
    return failures


def dump_neighbours(interface: int) -> dict[IPAddress, Mac]:
    """The permanent neighbour entries of an interface, of both families.

    Empty if there is no such interface.  Raises Retry if the table would not hold still.
    """
    found: dict[IPAddress, Mac] = {}
    for family in (AF_INET, AF_INET6):
        for kind, where, ours, destination, mac in _dump(ask_neighbours(family, interface, 1), interface):
            if kind == family and where == interface and ours and destination and mac:
                found[decode_address(destination)] = Mac(mac)
    return found


def dump_fdb(interface: int) -> dict[Mac, IPAddress]:
    """The permanent FDB entries of an interface: which unicast MAC is behind which VTEP.

    Empty if there is no such interface.  Raises Retry if the table would not hold still.
    """
    found: dict[Mac, IPAddress] = {}
    vteps: dict[bytes, IPAddress] = {}  # many entries, few VTEPs: one object for each
    for kind, where, ours, destination, mac in _dump(ask_fdb(interface, 1), interface):
        if kind == AF_BRIDGE and where == interface and ours and destination and mac:
            vtep = vteps.get(destination)
            if vtep is None:
                vtep = vteps[destination] = decode_address(destination)
            found[Mac(mac)] = vtep
    return found


def _dump(request: bytes, interface: int) -> Iterator[Entry]:
    for buffer, start, length in batches.dump(request, RTM_NEWNEIGH, f"read the entries of interface {interface}"):
        entry = decode_entry(buffer, start, length)
        if entry is not None:
            yield entry
