"""Neighbour and FDB entries of a VXLAN device: written in batches, read in one dump.

See :mod:`spanlan.kernel.messages` for which is which.  Messages are numbered and sent 256 at a time, and only the last
one asks for an acknowledgement: the kernel works through the whole batch, answers every failed message with an error
that carries its number, and ends with the acknowledgement of the last.  One bad entry costs one error, not the batch.

Entries of other kinds (learned, stale, of a bridge, with a detour, multicast) are neither returned nor touched.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from spanlan.errors import Gone, Retry
from spanlan.kernel import netlink
from spanlan.kernel.messages import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    ATTRIBUTE,
    HEADER,
    NLM_F_ACK_TLVS,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_NEWNEIGH,
    DropFdb,
    DropNeighbour,
    Encoder,
    Entry,
    SetFdb,
    SetNeighbour,
    Step,
    acknowledged,
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

_BATCH: Final = 256
_READ: Final = 1 << 18  # bytes; a dump comes in pieces of at most 32 KiB
_DUMP_ATTEMPTS: Final = 8
_NLMSGERR_ATTR_MSG: Final = 1
_NUMBER: Final = struct.Struct("=i")
_HEAD: Final = struct.Struct("=IH")  # of the message: length, type
_ENDS: Final = frozenset({NLMSG_DONE, NLMSG_ERROR})


class Failure(NamedTuple):
    """A step that the kernel refused, with its errno and its words."""

    step: Step
    errno: int
    reason: str


def write(interface: int, steps: Sequence[Step], *, receive_buffer: int = 8 << 20) -> list[Failure]:
    """Carry out ``steps`` on an interface (by its index), in order; returns those that failed.

    Setting replaces what is there; dropping what is not there is no failure.  Takes 1 to 3 microseconds a step.
    Raises Gone if the interface is gone (how far it came does not matter then), Broken without CAP_NET_ADMIN, Retry
    if the kernel cannot answer.
    """
    if not steps:
        return []
    failures: list[Failure] = []
    size = _BATCH
    done = 0
    encoder = Encoder(interface)
    tried = f"write entries of interface {interface}"
    connection = netlink.open_socket(receive_buffer=receive_buffer)
    try:
        while done < len(steps):
            batch = steps[done : done + size]
            try:
                failures += _write_batch(connection, encoder, batch, tried)
            except TimeoutError as error:
                raise Retry(f"{tried}: the kernel did not answer") from error
            except OSError as error:
                # Too many errors for the buffer, some answers are lost.  Every step may be repeated, so do that in
                # smaller batches, on a new socket that no late answer can reach.
                if error.errno != errno.ENOBUFS or size == 1:
                    raise netlink.explain(error.errno or 0, str(error), tried) from error
                size = max(1, size // 8)
                connection.close()
                connection = netlink.open_socket(receive_buffer=receive_buffer)
                continue
            done += len(batch)
    finally:
        connection.close()
    return failures


def _write_batch(connection: socket.socket, encoder: Encoder, batch: Sequence[Step], tried: str) -> list[Failure]:
    last = len(batch)
    encode = encoder.encode
    messages = [encode(step, sequence) for sequence, step in enumerate(batch, 1)]
    messages[-1] = acknowledged(messages[-1])
    connection.send(b"".join(messages))
    failures: list[Failure] = []
    while True:
        for sequence, number, reason in _answers(connection.recv(_READ)):
            step = batch[sequence - 1]
            if number in {errno.ENODEV, errno.ENXIO}:
                raise Gone(f"{tried}: it is gone")
            if number in {errno.EPERM, errno.EACCES}:
                raise netlink.explain(number, reason, tried)
            if number and not (number == errno.ENOENT and isinstance(step, DropNeighbour | DropFdb)):
                failures.append(Failure(step, number, reason or os.strerror(number)))
            if sequence == last:
                return failures


def _answers(buffer: bytes) -> Iterator[tuple[int, int, str]]:
    """The acknowledgements in ``buffer``: sequence number, errno (0 for success), the kernel's words if it has any."""
    at = 0
    while at < len(buffer):
        length, kind, flags, sequence, _ = HEADER.unpack_from(buffer, at)
        if kind == NLMSG_ERROR:
            number = -_NUMBER.unpack_from(buffer, at + 16)[0]
            yield sequence, number, _words(buffer, at + 36, at + length) if flags & NLM_F_ACK_TLVS else ""
        at += (length + 3) & ~3


def _words(buffer: bytes, at: int, end: int) -> str:
    while at < end:
        size, kind = ATTRIBUTE.unpack_from(buffer, at)
        if kind == _NLMSGERR_ATTR_MSG:
            return buffer[at + 4 : at + size].rstrip(b"\0").decode(errors="replace")
        at += (size + 3) & ~3
    return ""


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
    """All entries that answer a request, once the table held still while they were read."""
    tried = f"read the entries of interface {interface}"
    for _ in range(_DUMP_ATTEMPTS):
        connection = netlink.open_socket()
        try:
            connection.send(request)
            pieces = _read_dump(connection, tried)
        except TimeoutError as error:
            raise Retry(f"{tried}: the kernel did not answer") from error
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                continue
            raise netlink.explain(error.errno or 0, str(error), tried) from error
        finally:
            connection.close()
        if pieces is not None:
            return _entries(pieces)
    raise Retry(f"{tried}: they changed faster than they could be read")


def _read_dump(connection: socket.socket, tried: str) -> list[bytes] | None:
    """The pieces of a dump, or None if the table changed in the middle of it."""
    pieces: list[bytes] = []
    whole = True
    while True:
        piece = connection.recv(_READ)
        pieces.append(piece)
        at = 0
        while at < len(piece):
            length, kind, flags, _, _ = HEADER.unpack_from(piece, at)
            if flags & NLM_F_DUMP_INTR:
                whole = False
            if kind in _ENDS:
                number = -_NUMBER.unpack_from(piece, at + 16)[0]
                if number:
                    raise netlink.explain(number, "", tried)
                return pieces if whole else None
            at += (length + 3) & ~3


def _entries(pieces: list[bytes]) -> Iterator[Entry]:
    for piece in pieces:
        at = 0
        while at < len(piece):
            length, kind = _HEAD.unpack_from(piece, at)
            if kind == RTM_NEWNEIGH:
                entry = decode_entry(piece, at, length)
                if entry is not None:
                    yield entry
            at += (length + 3) & ~3
