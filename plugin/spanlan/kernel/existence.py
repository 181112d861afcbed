"""A link, of whatever kind: whether it is there, whose it is, its mark, and its end.

What :mod:`spanlan.kernel.vxlans`, ``vlans``, ``isolated`` and ``children`` have in common.  Functions take an open
pyroute2 handle and let its NetlinkError through, so that they can be used inside one
:func:`spanlan.kernel.netlink.open_routes`.  Nothing here may touch a link without our mark.
"""

import errno
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Gone, Refuse
from spanlan.kernel import netlink
from spanlan.kernel.found import MARK, FoundLink, read_link

_log = logging.getLogger(__name__)

_NO_IPV6_ADDRESS: Final = {
    "attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]],  # linux/if_link.h, IN6_ADDR_GEN_MODE_NONE
}
_NAME_BYTES: Final = 15
_NO_SUCH_KIND: Final = frozenset({"Unknown device type", "Unknown device type.", "Operation not supported", ""})


@dataclass(frozen=True, slots=True)
class EnsuredLink:
    """A link that is there.

    ``changes``: what was done to it, as text; empty if it was right.  After a change its entries may be gone, and
    ``index`` may be another one.  ``flaws``: what is not as wanted and could not be changed; the link is there anyhow.
    ``ours``: False for one that somebody else made and that is used as it is; it is never changed and never removed.
    """

    index: int
    changes: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()
    ours: bool = True


def find(routes: Any, name: str) -> FoundLink | None:
    """The link of that name, None if there is none."""
    index = index_of(name)  # 300 times cheaper than asking pyroute2, and mostly the answer is no
    if index is None:
        return None
    try:
        return read_link(routes.link("get", index=index)[0])
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def index_of(name: str) -> int | None:
    """The index of the link of that name (or alternative name), None if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def christen(routes: Any, name: str, alias: str) -> int:
    """Give a new link its mark, in exchange for that of its birth; returns its index."""
    index = index_of(name)
    if index is None:
        raise Gone(f"make the link {name}: it vanished again")
    routes.link("set", index=index, ifalias=alias, group=0)
    return index


def without_ipv6_address(routes: Any, index: int) -> None:
    """Keep the kernel from giving the link an IPv6 address by itself."""
    try:
        routes.link("set", index=index, IFLA_AF_SPEC=_NO_IPV6_ADDRESS)
    except NetlinkError as error:
        if error.code != errno.EAFNOSUPPORT:  # a kernel without IPv6 makes no such address
            raise


def allow_ipv6(name: str) -> bool:
    """Switch IPv6 on for one link; whether it could be done.

    There is no netlink message for it, and in a container /proc/sys may be read-only.  Then IPv6 neighbours fail with
    the kernel's own words, and a segment that has none does not suffer.
    """
    try:
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0", encoding="ascii")
    except OSError as error:
        _log.debug("%s: IPv6 cannot be switched on: %s", name, error)
        return False
    return True


def remove(routes: Any, index: int) -> bool:
    """Remove the link; whether it was there."""
    try:
        routes.link("del", index=index)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return False
        raise
    return True


def refuse_foreign(found: FoundLink) -> None:
    """Raise Refuse for a link that does not carry our mark."""
    if not found.ours:
        raise Refuse(
            f"the link {found.name} was not made by spanlan (its alias does not start with {MARK!r}); it is left alone:"
            " rename or remove it if spanlan is to use that name"
        )


def checked_name(name: str) -> str:
    """The name of a link to be made; Refuse if the kernel would not take it."""
    if not 1 <= len(name.encode()) <= _NAME_BYTES:
        raise Refuse(f"the link name {name} must be 1 to {_NAME_BYTES} bytes long")
    return name


def is_unknown_kind(error: NetlinkError) -> bool:
    """Whether the kernel said that it has no links of that kind: its module is not there.

    The same errno also stands for things that a known kind cannot do; those have words of their own.
    """
    return bool(error.code == errno.EOPNOTSUPP and netlink.words(error) in _NO_SUCH_KIND)
