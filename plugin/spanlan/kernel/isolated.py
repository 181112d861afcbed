"""Isolated links: parents that lead nowhere, for networks that stay on one host.

A dummy where the kernel has one.  Where it has not, a bridge without ports, which does the same: what its children send
to strangers it floods to its ports, and there are none; the host itself hears nothing of it.  (A veth pair would do
as well, but its other end is one more link, in the host's hands, and the host answers on it.)
"""

import logging
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from spanlan.kernel import existence, netlink
from spanlan.kernel.existence import EnsuredLink
from spanlan.kernel.found import BIRTH_GROUP, FoundLink
from spanlan.model.host import IsolatedLink

_log = logging.getLogger(__name__)

_KINDS: Final = ("dummy", "bridge")


def ensure(link: IsolatedLink) -> EnsuredLink:
    """See :meth:`spanlan.kernel.links.Links.ensure_isolated`."""
    with netlink.open_routes(f"make the isolated link {link.name}") as routes:
        found = existence.find(routes, link.name)
        if found is None:
            return EnsuredLink(_make(routes, link), ("made",))
        existence.refuse_foreign(found)
        if found.kind in _KINDS:
            return _mend(routes, found, link)
        reason = f"it is a {found.kind or 'plain'} link, not {_KINDS[0]}"
        _log.warning("%s is made anew, the containers on it lose their link: %s", link.name, reason)
        existence.remove(routes, found.index)
        return EnsuredLink(_make(routes, link), (f"made anew: {reason}",))


def find(link: IsolatedLink) -> tuple[int | None, tuple[str, ...]]:
    """See :meth:`spanlan.kernel.links.Links.find_isolated`."""
    with netlink.open_routes(f"look at the isolated link {link.name}") as routes:
        found = existence.find(routes, link.name)
        if found is None:
            return None, ("not there",)
        existence.refuse_foreign(found)
        if found.kind not in _KINDS:
            return found.index, (f"it is a {found.kind or 'plain'} link, not {_KINDS[0]}",)
        return found.index, tuple(_differences(found, link))


def _make(routes: Any, link: IsolatedLink) -> int:
    for kind in _KINDS:
        try:
            routes.link("add", ifname=existence.checked_name(link.name), kind=kind, mtu=link.mtu, group=BIRTH_GROUP)
        except NetlinkError as error:
            if kind == _KINDS[-1] or not existence.is_unknown_kind(error):
                raise
        else:
            break
    index = existence.christen(routes, link.name, link.alias)
    try:
        existence.without_ipv6_address(routes, index)
        routes.link("set", index=index, state="up")
    except NetlinkError:
        existence.remove(routes, index)
        raise
    return index


def _differences(found: FoundLink, link: IsolatedLink) -> list[str]:
    differences = []
    if found.alias != link.alias:
        differences.append(f"alias: {found.alias} -> {link.alias}")
    if found.mtu != link.mtu:
        differences.append(f"mtu: {found.mtu} -> {link.mtu}")
    if found.makes_addresses:
        differences.append("IPv6 address of its own: on -> off")
    if not found.up:
        differences.append("state: down -> up")
    return differences


def _mend(routes: Any, found: FoundLink, link: IsolatedLink) -> EnsuredLink:
    changes = _differences(found, link)
    if found.makes_addresses:
        existence.without_ipv6_address(routes, found.index)
    if changes:
        routes.link("set", index=found.index, ifalias=link.alias, group=0, mtu=link.mtu, state="up")
    return EnsuredLink(found.index, tuple(changes))
