"""The parent of a segment on the LAN in this host's kernel: VLAN links, an isolated link, or a NIC that is not ours.

The lowest part of :class:`spanlan.kernel.lan.LanState`, and of its shape: causes are told (``observe``, ``doubt``), and
``sync`` does the work.  A link of ours is mended or made anew; a foreign one is only looked at, and what is wrong with
it is reported in words.

Not thread-safe: it belongs to the one writer.
"""

from collections.abc import Collection, Sequence
from typing import assert_never

from spanlan.errors import Refuse, Retry
from spanlan.kernel import parents
from spanlan.kernel.existence import EnsuredLink
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import AddressesChanged, Event, LinkChanged, LinkGone, Overrun
from spanlan.kernel.state import Difference, SyncReport
from spanlan.kernel.uppers import uppers_of
from spanlan.model.host import IsolatedLink, Nic, ParentLink, VlanLink


class ParentState:
    """What is wanted of one segment's parent, and whether the kernel has it.

    ``wanted``: the links in the order in which they stand on each other (two for QinQ), the last of which carries the
    children; at least one.
    """

    def __init__(self, wanted: Sequence[ParentLink], links: Links | None = None) -> None:
        self._wanted = tuple(wanted)
        self._links = links or Links()
        self._indices: dict[str, int] = {}
        self._unsure = True
        # The last that was heard of each link.  The kernel repeats it on many occasions, such as a child that comes.
        self._heard: dict[int, LinkChanged] = {}

    @property
    def link(self) -> ParentLink:
        """The link that carries the children."""
        return self._wanted[-1]

    @property
    def index(self) -> int | None:
        """The interface index of the link that carries the children, None while it is not known to be there."""
        return self._indices.get(self.link.name)

    @property
    def settled(self) -> bool:
        """Whether a sync would find nothing to do, as far as is known."""
        return not self._unsure

    # -- causes -----------------------------------------------------------------------------------------------------

    def want_links(self, wanted: Sequence[ParentLink]) -> None:
        """Want the links to be like this.  One of another name is not removed: that is for whoever renames it."""
        if tuple(wanted) != self._wanted:
            self._wanted = tuple(wanted)
            self.doubt()

    def concerns(self, event: Event) -> bool:
        """Whether the event may be about one of these links.  From any thread."""
        match event:
            case LinkGone(interface, name) | LinkChanged(interface, name):
                return name in self._names() or interface in self._indices.values()
            case AddressesChanged(interface):
                return interface == self.index
        return isinstance(event, Overrun)

    def observe(self, event: Event) -> bool:
        """Take in what the monitor saw; whether there is something to sync now."""
        match event:
            case LinkChanged(interface):
                if self.concerns(event) and self._heard.get(interface) != event:
                    self._heard[interface] = event
                    self._unsure = True
            case LinkGone() | Overrun():
                if self.concerns(event):
                    self.doubt()
            case _:
                return False
        return self._unsure

    def doubt(self) -> None:
        """Nothing is certain any more: the next sync looks at the links (also for a timer)."""
        self._unsure = True
        self._heard.clear()

    # -- the tail ---------------------------------------------------------------------------------------------------

    def sync(self) -> SyncReport:
        """Make the links as wanted, or look whether a foreign one is there; ``reasons`` says what is wrong with it.

        In ``changes`` is also what others did: a NIC that is another one now took its children with it.
        Raises Refuse if a foreign link is in the way, if a VLAN's parent is not there or if a NIC was renamed; Retry
        while a NIC is not there; Broken without CAP_NET_ADMIN.
        """
        changes: list[str] = []
        flaws: list[str] = []

        for link in self._wanted:
            ensured = self._ensure(link)
            before = self._indices.get(link.name)
            changes += [self._tell(link, change) for change in ensured.changes]
            if not ensured.ours and before not in {None, ensured.index}:
                changes.append(
                    f"{link.name} is another link now (index {before} -> {ensured.index}); its children went"
                )
            flaws += ensured.flaws
            self._indices = self._indices | {
                link.name: ensured.index
            }  # never changed in place, for other threads read it
        self._unsure = False
        return SyncReport(
            self._indices[self.link.name],
            tuple(changes),
            written=0,
            dropped=0,
            failed=0,
            pending=0,
            reasons=tuple(flaws),
        )

    def difference(self) -> Difference:
        """What :meth:`sync` would do, after a fresh look at the kernel; changes nothing there.

        Raises Refuse if a foreign link has a name of ours.
        """
        self.doubt()
        differences: list[str] = []
        index = None
        for link in self._wanted:
            index, found = self._find(link)
            if index is not None:
                self._indices = self._indices | {link.name: index}
            differences += [self._tell(link, difference) for difference in found]
        return Difference(index, tuple(differences), ())

    def remove(self, keep: Collection[str] = ()) -> bool:
        """Remove the links of ours on which nothing sits any more; whether the one that carried the children went.

        ``keep``: names of links that stay, with all that they stand on.

        A VLAN link may carry other networks, and the outer link of QinQ other VLANs: whoever shares them is to ask only
        when the last network goes, and what sits on them still, here or in containers, keeps them all the same.
        """
        self.doubt()
        gone = False
        for link in reversed(self._wanted):
            if link.name in keep:
                break
            found = None if isinstance(link, Nic) else parents.look(link.name)
            if found is None:
                continue
            if not found.ours or found.master or any(uppers_of(found.index)):
                break
            removed = self._links.delete(link.name)
            gone = gone or (removed and link is self.link)
            self._indices = {name: index for name, index in self._indices.items() if name != link.name}
        return gone

    # -- inside -----------------------------------------------------------------------------------------------------

    def _names(self) -> set[str]:
        return {link.name for link in self._wanted} | {
            link.parent for link in self._wanted if isinstance(link, VlanLink)
        }

    def _tell(self, link: ParentLink, text: str) -> str:
        """With the link's name, if there is more than one."""
        return text if link is self.link else f"{link.name}: {text}"

    def _ensure(self, link: ParentLink) -> EnsuredLink:
        match link:
            case VlanLink():
                return self._links.ensure_vlan(link)
            case IsolatedLink():
                return self._links.ensure_isolated(link)
            case Nic():
                return self._look(link.name)
            case _:
                assert_never(link)

    def _find(self, link: ParentLink) -> tuple[int | None, tuple[str, ...]]:
        match link:
            case VlanLink():
                return self._links.find_vlan(link)
            case IsolatedLink():
                return self._links.find_isolated(link)
            case Nic():
                found = parents.look(link.name)
                return (None, ("not there",)) if found is None else (found.index, _flaws(link.name, up=found.up))
            case _:
                assert_never(link)

    def _look(self, name: str) -> EnsuredLink:
        found = parents.look(name)
        if found is not None:
            return EnsuredLink(found.index, (), _flaws(name, up=found.up), ours=False)
        index = self._indices.get(name)
        now = None if index is None else parents.name_of(index)
        if now is not None:
            raise Refuse(
                f"the parent {name} is called {now} now; containers that run are not affected, new ones cannot start:"
                f" give it its name back (ip link set {now} name {name}, or ip link property add dev {now}"
                f" altname {name})"
            )
        raise Retry(f"the parent {name} is not there (any more): the network works again once it is")


def _flaws(name: str, *, up: bool) -> tuple[str, ...]:
    return () if up else (f"the parent {name} is down: ip link set {name} up",)
