"""One segment in this host's kernel: its VXLAN device, its neighbours, its FDB.

See :mod:`spanlan.kernel.state` for what is common to it and :class:`spanlan.kernel.lan.LanState`.

Not thread-safe: it belongs to the one writer.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from spanlan.errors import Broken, Gone, Retry
from spanlan.kernel import neighbours
from spanlan.kernel.links import Links
from spanlan.kernel.messages import DropFdb, DropNeighbour, SetFdb, SetNeighbour, Step
from spanlan.kernel.monitor import Event, FdbSeen, LinkChanged, LinkGone, NeighbourSeen, Overrun
from spanlan.kernel.neighbours import Failure
from spanlan.kernel.reconcile import Steps, Table
from spanlan.kernel.state import Difference, SyncReport, describe
from spanlan.model.address import IPAddress
from spanlan.model.host import Ground, Overlay, VxlanLink, Wanted
from spanlan.model.mac import Mac

K = TypeVar("K")
V = TypeVar("V")


class OverlayState:
    """What is wanted of one segment's overlay, and how far the kernel is from it."""

    def __init__(self, link: VxlanLink, links: Links | None = None) -> None:
        self._link = link
        self._links = links or Links()
        self._index: int | None = None
        self._device_unsure = True
        self._entries_unsure = True
        self._flaws: tuple[str, ...] = ()  # told in every report until the device is looked at again
        # The last that was heard of each link that matters here.  The kernel repeats it on many occasions, such as a
        # child that comes or goes, and to look at the device then costs more than the child.
        self._heard: dict[int, LinkChanged] = {}
        self.neighbours: Table[IPAddress, Mac] = Table()
        self.fdb: Table[Mac, IPAddress] = Table()

    @property
    def link(self) -> VxlanLink:
        """The device that is wanted."""
        return self._link

    @property
    def index(self) -> int | None:
        """The interface index of the device, None while it is not known to be there."""
        return self._index

    @property
    def settled(self) -> bool:
        """Whether a sync would find nothing to do, as far as is known."""
        return not (self._device_unsure or self._entries_unsure or self.pending)

    @property
    def pending(self) -> int:
        """How many entries are not in the kernel as they are wanted."""
        return self.neighbours.pending + self.fdb.pending

    @property
    def counts(self) -> Mapping[str, int]:
        """How many entries are wanted, by their sort."""
        return {"neighbours": len(self.neighbours), "fdb": len(self.fdb)}

    # -- causes -----------------------------------------------------------------------------------------------------

    def want(self, overlay: Overlay) -> None:
        """Want exactly this.  Costs a comparison per entry; for one change use the methods below."""
        self.want_link(overlay.link)
        self.neighbours.want_all(overlay.neighbours)
        self.fdb.want_all(overlay.fdb)

    def want_ground(self, ground: Ground) -> None:
        """Want the device to be like this.  Raises Broken for the ground of a segment without a device."""
        if not isinstance(ground, VxlanLink):
            raise Broken(f"the device {self._link.name} cannot become a link on the LAN")
        self.want_link(ground)

    def want_entries(self, wanted: Wanted) -> None:
        """Want these neighbours and FDB entries too; None: no such entry.  Routes are none of a tunnel's."""
        for address, mac in wanted.neighbours.items():
            self.neighbours.want(address, mac)
        for mac, vtep in wanted.fdb.items():
            self.fdb.want(mac, vtep)

    def want_link(self, link: VxlanLink) -> None:
        """Want the device to be like this.  One of another name is not removed: that is for whoever renames it."""
        if link != self._link:
            self._link = link
            self.doubt()

    def want_neighbour(self, address: IPAddress, mac: Mac | None) -> None:
        """Want ARP and ND for ``address`` to be answered with ``mac``; None: not to be answered."""
        self.neighbours.want(address, mac)

    def want_fdb(self, mac: Mac, vtep: IPAddress | None) -> None:
        """Want frames for ``mac`` to be sent to ``vtep``; None: nowhere."""
        self.fdb.want(mac, vtep)

    def concerns(self, event: Event) -> bool:
        """Whether the event may be about this segment.  From any thread."""
        match event:
            case NeighbourSeen(interface) | FdbSeen(interface):
                return interface == self._index
            case LinkGone(interface, name) | LinkChanged(interface, name):
                return interface == self._index or name in {self._link.name, self._link.parent}
        return isinstance(event, Overrun)

    def observe(self, event: Event) -> bool:
        """Take in what the monitor saw; whether there is something to sync now."""
        match event:
            case NeighbourSeen(interface, address, mac) if interface == self._index:
                self.neighbours.observe(address, mac)
            case FdbSeen(interface, mac, vtep) if interface == self._index:
                self.fdb.observe(mac, vtep)
            case LinkGone(interface) if interface == self._index:
                self.doubt()
            case LinkChanged(interface, name) if interface == self._index or name in {
                self._link.name,
                self._link.parent,
            }:
                if self._heard.get(interface) != event:
                    self._heard[interface] = event
                    self._device_unsure = True
            case Overrun():
                self.doubt()
            case _:
                return False
        return not self.settled

    def doubt(self) -> None:
        """Nothing is certain any more: the next sync looks at the device and reads its entries (also for a timer)."""
        self._device_unsure = True
        self._entries_unsure = True
        self._heard.clear()

    # -- the tail ---------------------------------------------------------------------------------------------------

    def sync(self, limit: int | None = None) -> SyncReport:
        """Make the kernel as wanted, as far as it goes; at most ``limit`` entries in this call.

        Entries that fail stay pending and are in the report.  Raises Refuse if a foreign device is in the way, Retry if
        the device does not stay, Broken without CAP_NET_ADMIN; then the next sync begins from the start.
        """
        changes: tuple[str, ...] = ()
        for _ in range(3):
            if self._device_unsure or self._index is None:
                ensured = self._links.ensure_vxlan(self._link)
                if ensured.changes or ensured.index != self._index:
                    self._entries_unsure = True
                changes += ensured.changes
                self._flaws = ensured.flaws
                self._index = ensured.index
                self._device_unsure = False
            index = self._index
            try:
                if self._entries_unsure:
                    self._read_entries(index)
                return self._write(index, limit, changes)
            except Gone:
                self._index = None
                self.doubt()
        raise Retry(f"the device {self._link.name} vanishes as soon as it is made; who removes it?")

    def difference(self) -> Difference:
        """What :meth:`sync` would do, after a fresh look at the kernel; changes nothing there.

        Raises Refuse if a foreign device has the name.
        """
        index, differences = self._links.find_vxlan(self._link)
        self.doubt()
        if index is None:
            self.neighbours.observe_all({})
            self.fdb.observe_all({})
        else:
            self._read_entries(index)
        self._index = index
        return Difference(index, differences, tuple(_in_order(*self._work(None))))

    def remove(self, keep: Collection[str] = ()) -> bool:
        """Remove the device, and with it all its entries; whether it went.  Raises Refuse if it is not ours.

        ``keep``: names of links that stay.
        """
        removed = self._link.name not in keep and self._links.delete(self._link.name)
        self._index = None
        self.doubt()
        return removed

    # -- inside -----------------------------------------------------------------------------------------------------

    def _read_entries(self, index: int) -> None:
        self.neighbours.observe_all(neighbours.dump_neighbours(index))
        self.fdb.observe_all(neighbours.dump_fdb(index))
        self._entries_unsure = False

    def _work(self, limit: int | None) -> tuple[Steps[Mac, IPAddress], Steps[IPAddress, Mac]]:
        """What is pending: of the FDB, of the neighbours."""
        fdb = self.fdb.steps(limit)
        left = None if limit is None else max(0, limit - len(fdb.puts) - len(fdb.drops))
        return fdb, self.neighbours.steps(left)

    def _write(self, index: int, limit: int | None, changes: tuple[str, ...]) -> SyncReport:
        fdb, pairs = self._work(limit)
        failures = neighbours.write(index, _in_order(fdb, pairs))
        if failures:
            fdb, pairs = self._without(failures, fdb, pairs)
        self.fdb.applied(fdb.puts, fdb.drops)
        self.neighbours.applied(pairs.puts, pairs.drops)
        return SyncReport(
            index=index,
            changes=changes,
            written=len(fdb.puts) + len(pairs.puts),
            dropped=len(fdb.drops) + len(pairs.drops),
            failed=len(failures),
            pending=self.pending,
            reasons=self._flaws + _reasons(failures),
        )

    def _without(
        self, failures: Sequence[Failure], fdb: Steps[Mac, IPAddress], pairs: Steps[IPAddress, Mac]
    ) -> tuple[Steps[Mac, IPAddress], Steps[IPAddress, Mac]]:
        """The work without what failed, which goes to the end of the queue."""
        macs = set()
        addresses = set()
        for step, _, _ in failures:
            if isinstance(step, SetFdb | DropFdb):
                macs.add(step.mac)
                self.fdb.failed(step.mac)
            else:
                addresses.add(step.address)
                self.neighbours.failed(step.address)
        return _keep(fdb, macs), _keep(pairs, addresses)


def _in_order(fdb: Steps[Mac, IPAddress], pairs: Steps[IPAddress, Mac]) -> list[Step]:
    """The way to a MAC before the address that leads to it; when they go, the other way round."""
    return [
        *(SetFdb(mac, vtep) for mac, vtep in fdb.puts),
        *(SetNeighbour(address, mac) for address, mac in pairs.puts),
        *(DropNeighbour(address) for address in pairs.drops),
        *(DropFdb(mac) for mac in fdb.drops),
    ]


def _keep(steps: Steps[K, V], failed: set[K]) -> Steps[K, V]:
    return Steps(
        [(key, value) for key, value in steps.puts if key not in failed],
        [key for key in steps.drops if key not in failed],
    )


def _reasons(failures: Sequence[Failure]) -> tuple[str, ...]:
    """Each sort of failure once, with its first case in full and how many more there are."""
    sorts = Counter((type(failure.step), failure.errno) for failure in failures)
    texts = {}
    for failure in failures:
        sort = (type(failure.step), failure.errno)
        if sort not in texts:
            more = f" (and {sorts[sort] - 1} more)" if sorts[sort] > 1 else ""
            texts[sort] = f"{describe(failure.step)}: {failure.reason}{more}"
    return tuple(texts.values())
