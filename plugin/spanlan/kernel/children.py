"""Children of a parent: macvlan and ipvlan links, made for one container each and handed over.

What the kernel leaves to its users is seen to here: the mode and flag of ipvlan belong to the parent, and a child that
is made with others changes them for all children, silently (drivers/net/ipvlan/ipvlan_main.c, ``ipvlan_link_new``).  So
whoever sits on the parent already is asked first, also in containers and whoever made them.
"""

import errno
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, assert_never

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.errors import Refuse, Retry
from spanlan.kernel import existence, netlink
from spanlan.kernel.found import BIRTH_GROUP, MARK, FoundLink
from spanlan.kernel.kinds import IPVLAN_FLAGS, IPVLAN_MODES
from spanlan.kernel.uppers import CHILD_KINDS, UpperLink, uppers_of
from spanlan.model.host import ChildLink, IpvlanLink, MacvlanLink
from spanlan.model.mac import format_mac

_log = logging.getLogger(__name__)

_IPVLAN_MODE_NUMBERS: Final = {name: number for number, name in IPVLAN_MODES.items()}
_IPVLAN_FLAG_NUMBERS: Final = {name: number for number, name in IPVLAN_FLAGS.items()}
_ENOTSUPP: Final = 524  # include/linux/errno.h: not for user space, and yet seen there
_PROBE: Final = "slp-"
_NAMED: Final = 5  # so many children are named in a message

_one_at_a_time = threading.Lock()  # between looking at a parent's ipvlan mode and making a child with it


def make(link: ChildLink) -> int:
    """See :meth:`spanlan.kernel.links.Links.make_child`."""
    kind = _kind(link)
    with netlink.open_routes(f"make the {kind} link {link.name} on {link.parent}") as routes:
        parent = existence.find(routes, link.parent)
        if parent is None:
            raise Retry(f"make the {kind} link {link.name}: its parent {link.parent} is not there (yet)")
        found = existence.find(routes, link.name)
        if found is not None:
            existence.refuse_foreign(found)
            if _same(found, link, parent):
                return found.index
        _check_parent(link, parent)
        with _one_at_a_time if kind == "ipvlan" else nullcontext():
            if isinstance(link, IpvlanLink):
                _refuse_other_modes(link, parent, except_for=found)
            if found is not None:
                existence.remove(routes, found.index)
            with _explained(link, parent):
                routes.link(
                    "add",
                    ifname=existence.checked_name(link.name),
                    kind=kind,
                    link=parent.index,
                    mtu=link.mtu,
                    group=BIRTH_GROUP,
                    **_arguments(link),
                )
        return existence.christen(routes, link.name, link.alias)


def is_carried(link: ChildLink) -> bool:
    """See :meth:`spanlan.kernel.links.Links.is_carried`.

    A link in a container cannot be seen from here by its MAC, but no second one with its MAC can be brought up
    (macvlan_addr_busy() in drivers/net/macvlan.c): that is tried.  One without a MAC of its own is looked for by its
    alias, which goes into the container with it.
    """
    if isinstance(link, IpvlanLink) or link.mac is None:
        parent = existence.index_of(link.parent)
        return parent is not None and any(
            child.alias == link.alias and child.namespace is not None for child in uppers_of(parent, CHILD_KINDS)
        )
    with netlink.open_routes(f"look for a link like {link.name} on {link.parent}") as routes:
        parent = existence.index_of(link.parent)
        if parent is None:
            return False
        probe = existence.checked_name(f"{_PROBE}{link.name[len(_PROBE) :]}")
        routes.link(
            "add",
            ifname=probe,
            kind="macvlan",
            link=parent,
            macvlan_mode="bridge",
            address=format_mac(link.mac),
            group=BIRTH_GROUP,
        )
        index = existence.christen(routes, probe, f"{MARK}probe")
        try:
            existence.without_ipv6_address(routes, index)
            routes.link("set", index=index, state="up")
        except NetlinkError as error:
            if error.code != errno.EADDRINUSE:
                raise
            return True
        finally:
            existence.remove(routes, index)
        return False


def _kind(link: ChildLink) -> str:
    return "macvlan" if isinstance(link, MacvlanLink) else "ipvlan"


def _arguments(link: ChildLink) -> dict[str, Any]:
    """What only links of that kind have, as pyroute2's arguments."""
    match link:
        case MacvlanLink(mac=mac):
            return {"macvlan_mode": link.mode} | ({} if mac is None else {"address": format_mac(mac)})
        case IpvlanLink():
            return {"ipvlan_mode": _IPVLAN_MODE_NUMBERS[link.mode], "ipvlan_flags": _IPVLAN_FLAG_NUMBERS[link.flag]}
        case _:
            assert_never(link)


def _same(found: FoundLink, link: ChildLink, parent: FoundLink) -> bool:
    return found.mtu == (link.mtu or parent.mtu) and not fixed_differences(found, link, parent.index)


def fixed_differences(found: FoundLink, link: ChildLink, parent: int | None) -> list[str]:
    """How a link that was found differs from ``link`` apart from its MTU; ``parent``: the index of the right one."""
    kind = _kind(link)
    if found.kind != kind:
        return [f"it is a {found.kind or 'plain'} link, not {kind}"]
    pairs: list[tuple[str, object, object]] = [("alias", found.alias, link.alias), ("parent", found.parent, parent)]
    if isinstance(link, MacvlanLink):
        mode = found.details.get("IFLA_MACVLAN_MODE")
        pairs.append(("mode", mode, link.mode))
        if link.mac is not None and found.mac != link.mac:
            pairs.append(("MAC", format_mac(found.mac), format_mac(link.mac)))
    else:
        pairs.append(("mode", IPVLAN_MODES.get(found.details.get("IFLA_IPVLAN_MODE", 0)), link.mode))
        pairs.append(("flag", IPVLAN_FLAGS.get(found.details.get("IFLA_IPVLAN_FLAGS", 0)), link.flag))
    return [f"{word} is {there}, must be {wanted}" for word, there, wanted in pairs if there != wanted]


# -- asked first ---------------------------------------------------------------------------------------------------


def _check_parent(link: ChildLink, parent: FoundLink) -> None:
    """What the kernel would let pass, or would say without a word of cure."""
    what = f"make the {_kind(link)} link {link.name}: "
    if parent.kind in CHILD_KINDS:
        raise Refuse(
            f"{what}{parent.name} is itself a {parent.kind} link, and the kernel would use the link below it:"
            " give that one as -o parent="
        )
    if isinstance(link, MacvlanLink) and link.mode == "passthru" and link.mac is not None:
        raise Refuse(
            f"{what}with macvlan_mode=passthru a MAC of its own would become that of {parent.name} too:"
            " leave the MAC out, or give another macvlan_mode"
        )
    if parent.ours and parent.kind == "vxlan":
        return  # a VXLAN device's state and MTU are mended by themselves
    if not parent.up:
        raise Retry(f"{what}its parent {parent.name} is down: ip link set {parent.name} up")
    if link.mtu is not None and link.mtu > parent.mtu:
        raise Refuse(
            f"{what}an MTU of {link.mtu} does not fit on {parent.name}, which has {parent.mtu}:"
            f" give the network -o mtu={parent.mtu} or less, or raise the MTU of the NIC"
        )


def _refuse_other_modes(link: IpvlanLink, parent: FoundLink, *, except_for: FoundLink | None) -> None:
    """All children of a parent have one mode and flag, so the first that is found speaks for all."""
    for child in uppers_of(parent.index, ("ipvlan", "ipvtap")):
        if except_for is not None and child.namespace is None and child.index == except_for.index:
            continue
        if (child.mode, child.flag) != (link.mode, link.flag):
            raise Refuse(
                f"make the ipvlan link {link.name}: the ipvlan links on {parent.name} have mode {child.mode} and flag"
                f" {child.flag}, such as {_owner(child)}; {link.mode} and {link.flag} would change them for all."
                " Give the network the same ipvlan_mode and ipvlan_flag, or a parent of its own (a VLAN, for example)"
            )
        return


# -- explained afterwards ------------------------------------------------------------------------------------------


@contextmanager
def _explained(link: ChildLink, parent: FoundLink) -> Iterator[None]:
    """Say what it means when the kernel does not make a child."""
    try:
        yield
    except NetlinkError as error:
        kind = _kind(link)
        what = f"make the {kind} link {link.name}: "
        if error.code == errno.EBUSY:
            raise Refuse(what + _busy(kind, parent)) from error
        if existence.is_unknown_kind(error):
            raise Refuse(f"{what}this kernel has no {kind}: modprobe {kind}") from error
        if error.code in {errno.EOPNOTSUPP, _ENOTSUPP}:
            mode = f" {link.mode}" if isinstance(link, IpvlanLink) else ""
            raise Refuse(f"{what}this kernel has no {kind}{mode} ({netlink.words(error)})") from error
        if error.code == errno.EINVAL:
            raise Refuse(what + _invalid(link, parent, netlink.words(error))) from error
        raise


def _busy(kind: str, parent: FoundLink) -> str:
    """Only one can take a NIC's frames: its macvlan children, its ipvlan children, a bridge or a bond."""
    others = [child for child in uppers_of(parent.index, CHILD_KINDS) if child.kind[:3] != kind[:3]]
    if others:
        return (
            f"{parent.name} has {others[0].kind} links already, {_several(others)}, and a parent can have only one"
            f" kind: use {others[0].kind} here too, or another parent (a VLAN of it, for example)"
        )
    if parent.master is not None:
        return f"{parent.name} is a port of a bridge or bond: give that one as -o parent="
    return f"{parent.name} is in use already (by a bridge, a bond, macvlan or ipvlan, maybe of a container)"


def _invalid(link: ChildLink, parent: FoundLink, words: str) -> str:
    if parent.loopback or not parent.ethernet:
        sort = "the loopback" if parent.loopback else "no Ethernet link"
        return f"{parent.name} is {sort}: give a NIC as -o parent="
    children = list(uppers_of(parent.index, ("macvlan", "macvtap"))) if isinstance(link, MacvlanLink) else []
    if any(child.mode == "passthru" for child in children):
        return f"{parent.name} belongs to {_several(children)} alone (passthru): give another -o parent="
    if children and isinstance(link, MacvlanLink) and link.mode == "passthru":
        return (
            f"passthru takes the whole of {parent.name}, which has children already, {_several(children)}:"
            " give another -o parent= or macvlan_mode"
        )
    return f"the kernel refuses: {words}"


def _several(children: list[UpperLink]) -> str:
    named = ", ".join(_owner(child) for child in children[:_NAMED])
    return f"{named} and {len(children) - _NAMED} more" if len(children) > _NAMED else named


def _owner(child: UpperLink) -> str:
    return f"{child}{'' if child.ours else ' not made by spanlan'}"
