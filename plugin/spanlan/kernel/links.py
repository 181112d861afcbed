"""Links: those that we own, and the children that we hand over.

The one door to links for the rest of the house; how each kind is made, compared and mended is in the module of its
name.  A link that exists is compared, not trusted, and a link without our mark is never changed or removed, whatever
it is called.
"""

import logging

from spanlan.errors import Refuse
from spanlan.kernel import children, existence, host_links, isolated, netlink, vlans, vxlans
from spanlan.kernel.existence import EnsuredLink
from spanlan.kernel.found import FoundLink, read_link
from spanlan.kernel.uppers import uppers_of
from spanlan.model.host import ChildLink, HostLink, IsolatedLink, VlanLink, VxlanLink

__all__ = ["EnsuredLink", "Links"]

_log = logging.getLogger(__name__)


class Links:
    """The links of the calling thread's network namespace.  Holds nothing, so any thread may call any method."""

    def ensure_vxlan(self, link: VxlanLink) -> EnsuredLink:
        """Make the VXLAN device if it is not there, and put right what differs if it is.

        ``nolearning proxy``, up, without an IPv6 address of its own.  (IPv6 itself is on, also where the host has it
        off by default: the ND proxy and the neighbour table of the device need it.  An MTU below 1280 leaves the
        device without it, RFC 8200 section 5.)
        Raises Refuse if a foreign device is in the way or the MTU does not fit, Broken without CAP_NET_ADMIN.
        """
        return vxlans.ensure(link)

    def find_vxlan(self, link: VxlanLink) -> tuple[int | None, tuple[str, ...]]:
        """The index of the device (None if it is not there) and how it differs from ``link``; changes nothing.

        Raises Refuse if a foreign device has the name.
        """
        return vxlans.find(link)

    def ensure_vlan(self, link: VlanLink) -> EnsuredLink:
        """Make the VLAN link if it is not there, put right what differs if it is ours, use it as it is if it is not.

        Its MTU is the parent's, less 4 bytes if the parent is a VLAN link itself (see :mod:`spanlan.kernel.vlans`).
        While the parent is down the link cannot be up: a flaw, which goes when the parent comes up.
        Raises Refuse if the parent is not there, if the name belongs to something else, or if the parent has this VLAN
        under another name; Broken without CAP_NET_ADMIN or without 802.1Q in the kernel.
        """
        return vlans.ensure(link)

    def find_vlan(self, link: VlanLink) -> tuple[int | None, tuple[str, ...]]:
        """The index of the VLAN link (None if it is not there) and how it differs from ``link``; changes nothing.

        Raises Refuse if a foreign link with the name is something else.
        """
        return vlans.find(link)

    def ensure_isolated(self, link: IsolatedLink) -> EnsuredLink:
        """Make a link that leads nowhere, or put ours right: a dummy, or a bridge without ports in a kernel without.

        Raises Refuse if a foreign link has the name, Broken without CAP_NET_ADMIN.
        """
        return isolated.ensure(link)

    def find_isolated(self, link: IsolatedLink) -> tuple[int | None, tuple[str, ...]]:
        """The index of the isolated link (None if it is not there) and how it differs; changes nothing.

        Raises Refuse if a foreign link has the name.
        """
        return isolated.find(link)

    def make_child(self, link: ChildLink) -> int:
        """Make the child of ``link.parent`` and return its index; it is left down, dockerd brings it up.

        One that is already there and equal is kept; one of ours that differs is replaced.
        Raises Refuse if a foreign link has the name, if other children of the parent do not go with this one (they are
        named, also those in containers), or if the MTU does not fit; Retry while the parent is not there or down;
        Broken if the kernel has no links of that kind.
        """
        return children.make(link)

    def is_carried(self, link: ChildLink) -> bool:
        """Whether some container has this link, in whatever namespace: by its MAC, and up.

        Children without a MAC of their own (ipvlan, passthru) are told apart by their alias, up or not, and count
        once they are in a namespace other than this one.
        """
        return children.is_carried(link)

    def ensure_host_link(self, link: HostLink) -> EnsuredLink:
        """Make the host's own child if it is not there, and put right what differs if it is: its addresses too.

        Addresses come and go one by one; a link that must be another one (parent, mode) is made anew, and what hung on
        it, such as routes, is gone then.  (What is set on it and why: :mod:`spanlan.kernel.host_links`.)
        Raises Refuse and Retry as :meth:`make_child` does.
        """
        return host_links.ensure(link)

    def find_host_link(self, link: HostLink) -> tuple[int | None, tuple[str, ...]]:
        """The index of the host's own child (None if it is not there) and how it differs; changes nothing.

        Raises Refuse if a foreign link has the name.
        """
        return host_links.find(link)

    def delete(self, name: str) -> bool:
        """Remove a link of ours; whether it was there.  The kernel takes about 16 ms to let a link go.

        Raises Refuse if the link is not ours, or if somebody else put links of his own on it: they would go with it.
        """
        with netlink.open_routes(f"delete the link {name}") as routes:
            found = existence.find(routes, name)
            if found is None:
                return False
            existence.refuse_foreign(found)
            if found.kind in {"vlan", "dummy", "bridge"}:
                _refuse_used(found)
            return existence.remove(routes, found.index)

    def ours(self) -> list[FoundLink]:
        """All links that carry our mark, of any kind."""
        with netlink.open_routes("list the links") as routes:
            links = netlink.whole_dump(lambda: map(read_link, routes.get_links()))
        return [link for link in links if link.ours]


def _refuse_used(found: FoundLink) -> None:
    """The kernel removes a parent's children with it; other people's containers must not lose theirs through us."""
    foreign = [user for user in uppers_of(found.index) if not user.ours]
    if foreign:
        raise Refuse(
            f"delete the link {found.name}: it stays, because links that spanlan did not make are on it:"
            f" {', '.join(map(str, foreign))}; remove those first"
        )
