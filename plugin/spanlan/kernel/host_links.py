"""The host's own child on a parent: through it the host reaches its containers, and they reach the host.

The kernel lets no packet pass between a parent and the children on it, so the host takes a child of its own, in its own
namespace, with an address of its own (prefix length 32 or 128: what is reached through it, the routes say).

What is set on this one link, and why (Documentation/networking/ip-sysctl.rst):

``rp_filter`` 2.  With 1 the host drops what comes in over another link than the one that leads back to its sender:
    containers of other hosts reach this link over the LAN, and the way back to them leads over the parent.  The
    stricter of this and ``all`` would count, were 2 not the greater number: the kernel takes the maximum.
``arp_filter`` 1.  Otherwise the host answers on this link, too, whoever asks for an address of the host's that is on
    another link; on macvlan, with the wrong MAC.  So it answers those only whom it reaches through this link: its own
    containers, which thereby reach the host also by its ordinary IPv4 address.
``accept_ra`` 0, and no IPv6 address by itself.  The host gets no address and no route from routers it hears here.

IP forwarding is *not* needed, neither here nor for ipvlan L3: what comes in for a child is handed to it before the host
routes anything (drivers/net/ipvlan/ipvlan_core.c, ``ipvlan_handle_mode_l3``; with l3s ``ipvlan_l3_rcv``, after the
host's PREROUTING and through its INPUT), and what a child sends leaves by the host's routes as if the host had sent it
(``ipvlan_process_v4_outbound``), looked up for the parent alone: a route over another link is not found.
"""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Gone
from spanlan.kernel import children, existence, netlink
from spanlan.kernel.existence import EnsuredLink
from spanlan.kernel.found import FoundLink
from spanlan.model.address import IPAddress, ip_address
from spanlan.model.host import HostLink

# A way in which the link differs, in words, and what puts it right: it returns a flaw if it cannot.
_Mend: TypeAlias = tuple[str, Callable[[], str | None]]

_FAMILIES: Final = {4: 2, 6: 10}
_NODAD: Final = 0x02  # linux/if_addr.h, IFA_F_NODAD
_NOPREFIXROUTE: Final = 0x200  # IFA_F_NOPREFIXROUTE
_SETTINGS: Final = (("ipv4", "rp_filter", "2"), ("ipv4", "arp_filter", "1"), ("ipv6", "accept_ra", "0"))
_NOT_OURS_TO_SAY: Final = frozenset({errno.EPERM, errno.ENODEV})  # (EACCES means: IPv6 is off on that link)


def ensure(link: HostLink) -> EnsuredLink:
    """See :meth:`spanlan.kernel.links.Links.ensure_host_link`."""
    name = link.child.name
    with netlink.open_routes(f"make the host's own link {name}") as routes:
        found, reasons = _look(routes, link)
        changes = []
        told = found is not None and not reasons
        if found is None or reasons:
            changes.append(f"made anew: {', '.join(reasons)}" if found else "made")
            children.make(link.child)
            found = existence.find(routes, name)
            if found is None:
                raise Gone(f"make the host's own link {name}: it vanished again")
        flaws = []
        for text, mend in _mends(routes, found, link):
            flaw = mend()
            if flaw:
                flaws.append(flaw)
            elif told:
                changes.append(text)
    return EnsuredLink(found.index, tuple(changes), tuple(flaws))


def find(link: HostLink) -> tuple[int | None, tuple[str, ...]]:
    """See :meth:`spanlan.kernel.links.Links.find_host_link`."""
    with netlink.open_routes(f"look at the host's own link {link.child.name}") as routes:
        found, reasons = _look(routes, link)
        if found is None:
            return None, ("not there",)
        return found.index, tuple(reasons or [text for text, _ in _mends(routes, found, link)])


# -- inside --------------------------------------------------------------------------------------------------------


def _look(routes: Any, link: HostLink) -> tuple[FoundLink | None, list[str]]:
    """The link, and how it differs in what is only fixed by making it anew."""
    found = existence.find(routes, link.child.name)
    if found is None:
        return None, []
    existence.refuse_foreign(found)
    parent = existence.index_of(link.child.parent)
    return found, children.fixed_differences(found, link.child, parent)


def _mends(routes: Any, found: FoundLink, link: HostLink) -> Iterator[_Mend]:
    """How the link differs in what can be changed in place."""
    index, name = found.index, found.name
    mtu = link.child.mtu
    if mtu is None:
        parent = existence.find(routes, link.child.parent)
        mtu = found.mtu if parent is None else parent.mtu
    if found.mtu != mtu:
        yield f"mtu: {found.mtu} -> {mtu}", _set(routes, index, mtu=mtu)
    if found.makes_addresses:
        yield "IPv6 address of its own: on -> off", lambda: existence.without_ipv6_address(routes, index)
    if found.refuses_ipv6 and any(address.version == 6 for address in link.addresses):  # noqa: PLR2004
        yield "IPv6: off -> on", lambda: _allow_ipv6(name)
    for family, word, value in _SETTINGS:
        path = Path(f"/proc/sys/net/{family}/conf/{name}/{word}")
        there = _read(path)
        if there not in {None, value}:
            yield f"{word}: {there} -> {value}", _written(path, value)
    if not found.up:
        yield "state: down -> up", lambda: _bring_up(routes, index, link)
    there_now = _addresses(routes, index)
    wanted = {(address, address.max_prefixlen) for address in link.addresses}
    for address, length in sorted(there_now - wanted, key=str):
        yield f"address {address}/{length}: gone", _without(routes, index, address, length)
    for address, length in sorted(wanted - there_now, key=str):
        yield f"address {address}/{length}", _with(routes, link, index, address)


def _set(routes: Any, index: int, **settings: Any) -> Callable[[], None]:
    def change() -> None:
        routes.link("set", index=index, **settings)

    return change


def _bring_up(routes: Any, index: int, link: HostLink) -> str | None:
    try:
        routes.link("set", index=index, state="up")
    except NetlinkError as error:
        if error.code != errno.ENETDOWN:
            raise
        parent = link.child.parent
        return f"{link.child.name} is down because its parent {parent} is: ip link set {parent} up"
    return None


def _allow_ipv6(name: str) -> str | None:
    if existence.allow_ipv6(name):
        return None
    return f"IPv6 is off on {name} and cannot be switched on: sysctl net.ipv6.conf.{name}.disable_ipv6=0"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _written(path: Path, value: str) -> Callable[[], str | None]:
    def change() -> str | None:
        try:
            path.write_text(value, encoding="ascii")
        except OSError as error:  # in a container /proc/sys may be read-only
            _, _, _, *words = path.parts
            return f"{path.name} cannot be set ({error.strerror}): sysctl {'.'.join(words)}={value}"
        return None

    return change


def _addresses(routes: Any, index: int) -> set[tuple[IPAddress, int]]:
    messages = netlink.whole_dump(lambda: routes.get_addr(index=index))
    return {
        (ip_address(message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")), message["prefixlen"])
        for message in messages
        if message["index"] == index
    }


def _without(routes: Any, index: int, address: IPAddress, length: int) -> Callable[[], None]:
    def change() -> None:
        try:
            routes.addr("del", index=index, address=str(address), prefixlen=length, family=_FAMILIES[address.version])
        except NetlinkError as error:
            if error.code != errno.EADDRNOTAVAIL:  # the kernel took it away meanwhile
                raise

    return change


def _with(routes: Any, link: HostLink, index: int, address: IPAddress) -> Callable[[], str | None]:
    def change() -> str | None:
        try:
            routes.addr(
                "add",
                index=index,
                address=str(address),
                prefixlen=address.max_prefixlen,
                family=_FAMILIES[address.version],
                flags=_NOPREFIXROUTE | (_NODAD if address.version == 6 else 0),  # noqa: PLR2004
            )
        except NetlinkError as error:
            if error.code in _NOT_OURS_TO_SAY:
                raise
            return (
                f"the host's address {address} cannot be put on {link.child.name}: {netlink.words(error)};"
                " until it can, the host and its containers do not reach each other by it"
            )
        return None

    return change
