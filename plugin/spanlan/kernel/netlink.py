"""The door to the kernel: sockets, and what its errors mean to us.

Two ways in, and why there are two.  Links, addresses and routes go through pyroute2 (:func:`open_routes`): they are
few, and its encoder knows every attribute.  Neighbours and FDB entries come by the hundred thousand and go through a
plain AF_NETLINK socket (:func:`open_socket`), because that encoder costs a hundred times what the kernel needs.

A handle is opened for each call and lives in the network namespace of the calling thread: no handle is shared, so no
lock is needed and nothing is left behind.  (Measured: 0.2 to 0.6 ms for pyroute2, 0.02 ms for the plain socket.)

This is the only place that turns an errno into one of our errors.  It must never retry a write: that is for the sync
loop, which knows what is still wanted.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from spanlan.errors import Broken, Gone, Refuse, Retry, SpanlanError
from spanlan.kernel import kinds as _kinds  # noqa: F401 - teaches pyroute2

T = TypeVar("T")

# linux/netlink.h, socket level and options that the socket module does not name
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33

_RECEIVE_BUFFER: Final = 8 << 20
_SEND_BUFFER: Final = 1 << 20
_DUMP_ATTEMPTS: Final = 8

_NOT_PERMITTED: Final = frozenset({errno.EPERM, errno.EACCES})
_NOT_THERE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.ENXIO, errno.EADDRNOTAVAIL})
_NOT_NOW: Final = frozenset(
    {errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT}
)
_NOT_SO: Final = frozenset(
    {errno.EEXIST, errno.EADDRINUSE, errno.EINVAL, errno.ERANGE, errno.ENETUNREACH, errno.ENAMETOOLONG}
)


def explain(number: int, text: str, tried: str) -> SpanlanError:
    """The error of ours that stands for an errno, with what was tried and what the kernel said.

    ``text``: the kernel's own words (extended acknowledgement), or empty.
    """
    said = text or os.strerror(number)
    if number in _NOT_PERMITTED:
        return Broken(f"{tried}: {said}; spanlan needs CAP_NET_ADMIN in the host's network namespace")
    if number in _NOT_THERE:
        return Gone(f"{tried}: {said}")
    if number in _NOT_NOW:
        return Retry(f"{tried}: {said}")
    if number in _NOT_SO:
        return Refuse(f"{tried}: the kernel refuses: {said}")
    if number == errno.EOPNOTSUPP:
        return Broken(f"{tried}: {said}; this kernel cannot do it (is the module for that kind of link there?)")
    return Broken(f"{tried}: {said}")


def words(error: NetlinkError) -> str:
    """What the kernel said, without the number."""
    return str(error.args[1]) if len(error.args) > 1 else os.strerror(error.code)


@contextmanager
def open_routes(tried: str) -> Iterator[Any]:
    """A pyroute2 handle in the calling thread's namespace; ``tried`` says what is being done, for error messages.

    Raises Refuse, Retry, Gone or Broken for whatever errno comes up in the block and was not handled there.
    """
    try:
        with IPRoute(ext_ack=True, strict_check=True) as handle:
            yield handle
    except NetlinkDumpInterrupted as error:
        raise Retry(f"{tried}: the kernel's tables changed while they were read") from error
    except NetlinkError as error:
        raise explain(error.code, words(error), tried) from error
    except OSError as error:
        raise explain(error.errno or 0, error.strerror or str(error), tried) from error


def whole_dump(read: Callable[[], Iterable[T]]) -> list[T]:
    """Read a dump until one comes through without the table having changed in the middle of it.

    Raises NetlinkDumpInterrupted (which :func:`open_routes` turns into Retry) if none does.
    """
    for _ in range(_DUMP_ATTEMPTS - 1):
        try:
            return list(read())
        except NetlinkDumpInterrupted:
            continue
    return list(read())


def open_socket(
    *, groups: Iterable[int] = (), receive_buffer: int = _RECEIVE_BUFFER, timeout: float | None = 10.0
) -> socket.socket:
    """A plain rtnetlink socket in the calling thread's namespace; close it.

    ``groups``: multicast groups (RTNLGRP_*) to join.  ``receive_buffer``: bytes; what does not fit is lost, and the
    next read says ENOBUFS.  ``timeout``: seconds that a read may take, None for a socket that does not block.
    Raises Broken if the kernel gives none.
    """
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:
        raise explain(error.errno or 0, error.strerror or "", "open a netlink socket") from error
    try:
        _enlarge(opened, _SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
        _enlarge(opened, _SO_SNDBUFFORCE, socket.SO_SNDBUF, _SEND_BUFFER)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        opened.bind((0, 0))
        for group in groups:
            opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        if timeout is None:
            opened.setblocking(False)
        else:
            opened.settimeout(timeout)
    except OSError as error:
        opened.close()
        raise explain(error.errno or 0, error.strerror or "", "set up a netlink socket") from error
    return opened


def _enlarge(opened: socket.socket, force: int, polite: int, size: int) -> None:
    """Set a buffer beyond the system's limit; without CAP_NET_ADMIN the limit holds, which is slower but works."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, polite, size)
