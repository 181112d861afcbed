"""One segment on the physical LAN in this host's kernel: the links under its containers, the host's own one, routes.

See :mod:`spanlan.kernel.state` for what is common to it and :class:`spanlan.kernel.overlay.OverlayState`.

Routes need the links and not the other way round, so links come first; a route that cannot be set is reported and keeps
no other from being set.  The kernel drops routes in silence with a link that goes down or loses an address: after each
such event they are read again.

Not thread-safe: it belongs to the one writer.
"""

import errno
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

from spanlan.errors import Broken, Refuse, Retry, SpanlanError
from spanlan.kernel import existence, parents, routes
from spanlan.kernel.blocks import Blocks
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import AddressesChanged, Event, LinkChanged, LinkGone, RouteSeen
from spanlan.kernel.overlay import OverlayState
from spanlan.kernel.parent_state import ParentState
from spanlan.kernel.reconcile import Steps, Table
from spanlan.kernel.routes import DropRoute, Failure, RouteStep, SetRoute, Way
from spanlan.kernel.state import Difference, SegmentState, SyncReport
from spanlan.model.address import IPNetwork
from spanlan.model.host import Ground, HostLink, LanGround, NextHop, OnLink, VxlanLink, Wanted

_Steps: TypeAlias = Steps[IPNetwork, NextHop | Way]

_NAMED: Final = 5  # so many sorts of failure are told


class LanState:
    """What is wanted of one segment's links and routes, and how far the kernel is from it."""

    def __init__(self, ground: LanGround, links: Links | None = None) -> None:
        self._ground = ground
        self._links = links or Links()
        self._parent = ParentState(ground.links, self._links)
        self._host_index: int | None = None
        self._host_heard: LinkChanged | None = None
        self._host_unsure = True
        # Told in every report until they are looked at again.
        self._parent_flaws: tuple[str, ...] = ()
        self._host_flaws: tuple[str, ...] = ()
        self._left_over: set[str] = set()  # names of the host's own links that are wanted no more
        self._routes_unsure = True
        self._blocks = Blocks()
        self._block_routes: dict[IPNetwork, NextHop] = {}
        self._subnet_routes = dict(ground.subnets)
        # What was found may lead a way that nobody would want, hence Way.
        self.routes: Table[IPNetwork, NextHop | Way] = Table()
        for subnet, hop in ground.subnets:
            self.routes.want(subnet, hop)

    @property
    def index(self) -> int | None:
        """The interface index of the link that carries the children, None while it is not known to be there."""
        return self._parent.index

    @property
    def settled(self) -> bool:
        """Whether a sync would find nothing to do, as far as is known."""
        return self._parent.settled and not (self._host_unsure or self._routes_unsure or self.pending)

    @property
    def pending(self) -> int:
        """How many routes are not in the kernel as they are wanted."""
        return self.routes.pending

    @property
    def counts(self) -> Mapping[str, int]:
        """How many routes are wanted: fewer than addresses, where neighbouring ones have the same next hop."""
        return {"routes": len(self.routes)}

    # -- causes -----------------------------------------------------------------------------------------------------

    def want_ground(self, ground: Ground) -> None:
        """Want these links, this link of the host's own and these routes to subnets.

        A parent of another name is not removed: that is for whoever renames it.  The host's own link is.
        Raises Broken for the ground of a tunnel.
        """
        if not isinstance(ground, LanGround):
            raise Broken(f"the segment on {self._parent.link.name} cannot become a tunnel")
        if ground == self._ground:
            return
        before, self._ground = self._ground, ground
        self._parent.want_links(ground.links)
        if before.host is not None:
            self._left_over.add(before.host.child.name)
        if ground.host is not None:
            self._left_over.discard(ground.host.child.name)
        self._subnet_routes = dict(ground.subnets)
        for subnet in {*dict(before.subnets), *self._subnet_routes}:
            self._want_route(subnet)
        self._host_unsure = self._routes_unsure = True

    def want_entries(self, wanted: Wanted) -> None:
        """Want these routes too; None: no such route.  Neighbours and FDB entries are none of the LAN's."""
        for destination, hop in self._blocks.want(wanted.routes).items():
            if hop is None:
                del self._block_routes[destination]
            else:
                self._block_routes[destination] = hop
            self._want_route(destination)

    def concerns(self, event: Event) -> bool:
        """Whether the event may be about this segment.  From any thread."""
        match event:
            case RouteSeen(destination):
                return routes.concerns(destination, self._ground.routed)
            case AddressesChanged(interface) if interface == self._host_index:
                return True
            case LinkGone(interface, name) | LinkChanged(interface, name) if self._is_host_link(interface, name):
                return True
        return self._parent.concerns(event)

    def observe(self, event: Event) -> bool:
        """Take in what the monitor saw; whether there is something to sync now."""
        if not self.concerns(event):
            return False
        match event:
            case RouteSeen(destination, way):
                self.routes.observe(destination, None if way is None else self._hop(way))
            case AddressesChanged():
                self._host_unsure = self._routes_unsure = True
            case LinkChanged(interface, name) if self._is_host_link(interface, name):
                if event != self._host_heard:
                    self._host_heard = event
                    self._host_unsure = self._routes_unsure = True
            case LinkGone(interface, name) if self._is_host_link(interface, name):
                self._host_unsure = self._routes_unsure = True
            case _:
                if self._parent.observe(event):
                    self._host_unsure = self._routes_unsure = True
        return not self.settled

    def doubt(self) -> None:
        """Nothing is certain any more: the next sync looks at the links and reads the routes (also for a timer)."""
        self._parent.doubt()
        self._host_unsure = self._routes_unsure = True
        self._host_heard = None

    # -- the tail ---------------------------------------------------------------------------------------------------

    def sync(self, limit: int | None = None) -> SyncReport:
        """Make the kernel as wanted, as far as it goes; at most ``limit`` routes in this call.

        Routes that fail stay pending and are in the report.  Raises what :meth:`ParentState.sync` does, and Refuse if
        the host's own link cannot be made as it is wanted.
        """
        changes: list[str] = []
        index = self._sync_parent(changes)
        if self._host_unsure:
            self._sync_host_link(changes)
        if self._routes_unsure:
            self._read_routes()
        work = self.routes.steps(limit)
        failed = {failure.step.destination: failure for failure in self._write(work)}
        done = Steps(
            [(destination, hop) for destination, hop in work.puts if destination not in failed],
            [destination for destination in work.drops if destination not in failed],
        )
        self.routes.applied(*done)
        for destination in failed:
            self.routes.failed(destination)
        return SyncReport(
            index=index,
            changes=tuple(changes),
            written=len(done.puts),
            dropped=len(done.drops),
            failed=len(failed),
            pending=self.pending,
            reasons=(*self._parent_flaws, *self._host_flaws, *_reasons(list(failed.values()))),
        )

    def difference(self) -> Difference:
        """What :meth:`sync` would do, after a fresh look at the kernel; changes nothing there.

        Raises Refuse if a foreign link has a name of ours.
        """
        self.doubt()
        found = self._parent.difference()
        differences = list(found.link)
        host = self._ground.host
        if host is not None:
            self._host_index, others = self._links.find_host_link(host)
            differences += [f"{host.child.name}: {text}" for text in others]
        differences += [f"{name}: unwanted" for name in self._left_over if existence.index_of(name) is not None]
        self._read_routes()
        return Difference(found.index, tuple(differences), tuple(self._steps(self.routes.steps())))

    def remove(self, keep: Collection[str] = ()) -> bool:
        """Remove our routes, the host's own link, and the links of ours on which nothing sits any more.

        ``keep``: names of links that stay, because other segments want them.  What cannot be removed keeps nothing
        else from it.  Returns whether the link that carried the children went.
        """
        self.doubt()
        trouble: list[SpanlanError] = []
        try:
            failures = routes.write([DropRoute(destination) for destination in routes.dump_routes(self._ground.routed)])
            trouble += [Retry(routes.explain(failure)) for failure in failures]
        except SpanlanError as error:
            trouble.append(error)
        host = self._ground.host
        for name in {*self._left_over, *([] if host is None else [host.child.name])} - {*keep}:
            try:
                self._links.delete(name)
            except SpanlanError as error:
                trouble.append(error)
        self._host_index = None
        gone = self._parent.remove(keep)
        if trouble:
            raise trouble[0]
        return gone

    # -- inside: the links ------------------------------------------------------------------------------------------

    def _is_host_link(self, interface: int, name: str) -> bool:
        host = self._ground.host
        return interface == self._host_index or (host is not None and name == host.child.name)

    def _sync_parent(self, changes: list[str]) -> int:
        before = self.index
        if before is not None and self._parent.settled:
            return before
        report = self._parent.sync()
        changes += report.changes
        self._parent_flaws = report.reasons
        if report.changes or report.index != before:
            self._host_unsure = self._routes_unsure = True
        return report.index

    def _sync_host_link(self, changes: list[str]) -> None:
        flaws: list[str] = []
        for name in sorted(self._left_over):
            try:
                changes += [f"{name}: gone"] if self._links.delete(name) else []
            except Refuse as refusal:
                flaws.append(str(refusal))
            self._left_over.discard(name)
        host = self._ground.host
        before, self._host_index = self._host_index, None
        if host is not None and not self._must_wait(host, flaws):
            ensured = self._links.ensure_host_link(host)
            changes += [f"{host.child.name}: {change}" for change in ensured.changes]
            flaws += ensured.flaws
            self._host_index = ensured.index
            if ensured.changes:
                self._routes_unsure = True
        if self._host_index != before:
            self._routes_unsure = True
        self._host_flaws = tuple(flaws)
        self._host_unsure = False

    def _must_wait(self, host: HostLink, flaws: list[str]) -> bool:
        """Whether the host's own link cannot be made before the parent is up, which an event will tell."""
        if existence.index_of(host.child.name) is not None:
            return False
        parent = parents.look(host.child.parent)
        if parent is None or parent.up:
            return False
        flaws.append(f"the host's own link {host.child.name} is not there until {parent.name} is up")
        return True

    # -- inside: the routes -----------------------------------------------------------------------------------------

    def _want_route(self, destination: IPNetwork) -> None:
        """Want what is said of the destination: a block of addresses knows better than the subnet that it fills."""
        self.routes.want(destination, self._block_routes.get(destination) or self._subnet_routes.get(destination))

    def _read_routes(self) -> None:
        found = routes.dump_routes(self._ground.routed)
        self.routes.observe_all({destination: self._hop(way) for destination, way in found.items()})
        self._routes_unsure = False

    def _hop(self, way: Way) -> NextHop | Way:
        """The next hop that a way in the kernel stands for; the way itself if it is none that anybody could want."""
        if way.gateway is not None:
            return way.gateway if way == Way(self.index or 0, way.gateway) else way
        host = self._ground.host
        if host is not None and way.interface == self._host_index:
            return OnLink(host.child.name, way.source)
        name = self._parent.link.name if way.interface == self.index else parents.name_of(way.interface)
        return OnLink(name, way.source) if name else way

    def _way(self, hop: NextHop | Way) -> Way:
        match hop:
            case Way():
                return hop
            case OnLink(interface, source):
                return Way(existence.index_of(interface) or 0, None, source)
            case _:
                return Way(self.index or 0, hop)

    def _steps(self, work: _Steps) -> list[RouteStep]:
        """What to do: new routes come before old ones go."""
        puts = [
            SetRoute(destination, self._way(hop), replace=self.routes.found(destination) is not None)
            for destination, hop in work.puts
        ]
        return [*puts, *(DropRoute(destination) for destination in work.drops)]

    def _write(self, work: _Steps) -> list[Failure]:
        steps = []
        failures = []
        for step in self._steps(work):
            reason = self._mistake(step)
            if reason is None:
                steps.append(step)
            else:
                failures.append(reason)
        failures += routes.write(steps)
        if any(failure.errno == errno.EEXIST for failure in failures):
            self._routes_unsure = True  # somebody else's route is in the way, or we did not know of one of ours
        return failures

    def _mistake(self, step: RouteStep) -> Failure | None:
        """Why the kernel is not even asked, if it is not."""
        if isinstance(step, DropRoute):
            return None
        if not step.way.interface:
            return Failure(step, errno.ENODEV, "the link that it leads over is not there (yet)")
        if not routes.concerns(step.destination, self._ground.routed):
            subnets = ", ".join(map(str, self._ground.routed)) or "none"
            return Failure(step, 0, f"it lies outside of the segment's subnets ({subnets})")
        return None


def state_of(ground: Ground, links: Links) -> SegmentState:
    """The state of a segment that stands on ``ground``, of which nothing is known yet."""
    return OverlayState(ground, links) if isinstance(ground, VxlanLink) else LanState(ground, links)


def _reasons(failures: Sequence[Failure]) -> list[str]:
    """Each sort of failure once, with its first case in full and how many more there are."""
    sorts: dict[tuple[int, Way | None], list[Failure]] = {}
    for failure in failures:
        way = failure.step.way if isinstance(failure.step, SetRoute) else None
        sorts.setdefault((failure.errno, way), []).append(failure)
    texts = [
        routes.explain(alike[0]) + (f" (and {len(alike) - 1} more routes)" if len(alike) > 1 else "")
        for alike in list(sorts.values())[:_NAMED]
    ]
    if len(sorts) > _NAMED:
        texts.append(f"and {len(sorts) - _NAMED} other next hops likewise")
    return texts
