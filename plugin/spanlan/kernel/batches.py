"""Many small rtnetlink messages at once: written in batches, read in one dump.

Messages are numbered and sent 256 at a time, and only the last one asks for an acknowledgement: the kernel works
through the whole batch, answers every failed message with an error that carries its number, and ends with the
acknowledgement of the last.  One bad message costs one error, not the batch.

What the messages say is for others; here are sockets, numbers and errors.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from spanlan.errors import Retry
from spanlan.kernel import netlink
from spanlan.kernel.messages import (
    ATTRIBUTE,
    HEADER,
    NLM_F_ACK_TLVS,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    acknowledged,
)

S = TypeVar("S")

_BATCH: Final = 256
_READ: Final = 1 << 18  # bytes; a dump comes in pieces of at most 32 KiB
_DUMP_ATTEMPTS: Final = 8
_NLMSGERR_ATTR_MSG: Final = 1
_NUMBER: Final = struct.Struct("=i")
_HEAD: Final = struct.Struct("=IH")  # of a message: length, type
_ENDS: Final = frozenset({NLMSG_DONE, NLMSG_ERROR})


class Refusal(NamedTuple, Generic[S]):
    """A step that the kernel refused, with its errno and its words."""

    step: S
    errno: int
    reason: str


def write(
    encode: Callable[[S, int], bytes], steps: Sequence[S], tried: str, *, receive_buffer: int = 8 << 20
) -> Iterator[Refusal[S]]:
    """Carry out ``steps``, in order, as far as this is iterated over; yields those that were refused.

    ``encode`` makes the message of a step, with its number.  Every step must bear being carried out twice.
    Raises Retry if the kernel does not answer, and what its errno stands for if it does not listen.
    """
    size = _BATCH
    done = 0
    connection = netlink.open_socket(receive_buffer=receive_buffer)
    try:
        while done < len(steps):
            batch = steps[done : done + size]
            try:
                refusals = _write_batch(connection, encode, batch)
            except TimeoutError as error:
                raise Retry(f"{tried}: the kernel did not answer") from error
            except OSError as error:
                # Too many errors for the buffer, some answers are lost: again in smaller batches, on a new socket
                # that no late answer can reach.
                if error.errno != errno.ENOBUFS or size == 1:
                    raise netlink.explain(error.errno or 0, str(error), tried) from error
                size = max(1, size // 8)
                connection.close()
                connection = netlink.open_socket(receive_buffer=receive_buffer)
                continue
            done += len(batch)
            yield from refusals
    finally:
        connection.close()


def dump(request: bytes, kind: int, tried: str) -> Iterator[tuple[bytes, int, int]]:
    """All messages of type ``kind`` that answer a request, once the table held still while they were read.

    Each as a buffer, and where in it the message starts and how long it is.  Raises Retry if it would not hold still.
    """
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
            return _messages(pieces, kind)
    raise Retry(f"{tried}: they changed faster than they could be read")


# -- inside --------------------------------------------------------------------------------------------------------


def _write_batch(connection: socket.socket, encode: Callable[[S, int], bytes], batch: Sequence[S]) -> list[Refusal[S]]:
    last = len(batch)
    messages = [encode(step, sequence) for sequence, step in enumerate(batch, 1)]
    messages[-1] = acknowledged(messages[-1])
    connection.send(b"".join(messages))
    refusals: list[Refusal[S]] = []
    while True:
        for sequence, number, reason in _answers(connection.recv(_READ)):
            if number:
                refusals.append(Refusal(batch[sequence - 1], number, reason or os.strerror(number)))
            if sequence == last:
                return refusals


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


def _messages(pieces: list[bytes], wanted: int) -> Iterator[tuple[bytes, int, int]]:
    for piece in pieces:
        at = 0
        while at < len(piece):
            length, kind = _HEAD.unpack_from(piece, at)
            if kind == wanted:
                yield piece, at, length
            at += (length + 3) & ~3
