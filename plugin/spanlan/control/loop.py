"""The one loop: the only writer of the kernel state that spanlan owns.

Five causes mark a segment dirty: a change in the store, the daemon's start, drift seen on netlink, a link that flaps
and a timer.  All go the same way: what is wanted, what was found, the difference, apply.  A pass that fails is repeated
with growing pauses, and compares everything again.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from spanlan.control.following import Following, Work
from spanlan.errors import Broken, SpanlanError
from spanlan.kernel import routes
from spanlan.kernel.lan import state_of
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import Event, FdbSeen, NeighbourSeen
from spanlan.kernel.state import SegmentState, SyncReport
from spanlan.metrics import Metrics, outcome_of
from spanlan.model.address import IPNetwork
from spanlan.model.host import main_link, own_links

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5  # seconds after a failed pass
_LONGEST_PAUSE = 30.0


@dataclass(slots=True)
class _Job:
    """A followed segment in the loop's hands: its kernel side, and when a failed pass is due again."""

    following: Following
    state: SegmentState
    pause: float = 0.0
    due: float = 0.0


class Loop:
    """Runs passes over dirty segments in a thread of its own.  ``resync``: seconds between full comparisons."""

    def __init__(
        self, links: Links, *, resync: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._links = links
        self._metrics = metrics
        self._resync = resync
        self._clock = clock
        self._wake = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._by_index: dict[int, Following] = {}
        self._dirty: set[str] = set()
        self._unwanted: dict[str, _Job] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pass that is running; the kernel keeps what it has."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def add(self, following: Following) -> None:
        """Take care of a segment from now on."""
        with self._wake:
            name = following.segment.name
            self._unwanted.pop(name, None)
            self._jobs[name] = _Job(following, state_of(following.ground, self._links))
            self._dirty.add(name)
            self._wake.notify_all()

    def remove(self, following: Following, seconds: float) -> bool:
        """Take away the links and entries that only this segment needs; answers whether they went in ``seconds``."""
        name = following.segment.name
        with self._wake:
            job = self._jobs.pop(name, None)
            if job is None:
                return True
            self._unwanted[name] = job
            self._wake.notify_all()
            return self._wake.wait_for(lambda: name not in self._unwanted, seconds)

    def mark(self, segment: str, *, hopeful: bool = False) -> None:
        """Something changed: look at the segment soon.

        ``hopeful``: what kept the last pass from success may be over, so the pause after it is cut short.
        """
        with self._wake:
            job = self._jobs.get(segment)
            if job is not None:
                if hopeful:
                    job.due = min(job.due, self._clock() + _FIRST_PAUSE)
                self._dirty.add(segment)
                self._wake.notify_all()

    def of_device(self, index: int) -> Following | None:
        """The segment whose VXLAN device has this interface index."""
        return self._by_index.get(index)  # the map is replaced, never changed: no lock is needed to read it

    def concerned_by(self, event: Event) -> Sequence[Following]:
        """The segments to which something that the kernel reports may matter."""
        if isinstance(event, NeighbourSeen | FdbSeen):  # there are many of them, and each is about one device
            following = self.of_device(event.interface)
            return () if following is None else (following,)
        with self._wake:
            jobs = list(self._jobs.values())
        return [job.following for job in jobs if job.state.concerns(event)]

    def doubt_all(self) -> None:
        """Compare every segment with the kernel."""
        with self._wake:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.following.doubt()
            self.mark(job.following.segment.name)

    def status(self) -> list[dict[str, object]]:
        """What each followed segment looks like."""
        with self._wake:
            jobs = sorted(self._jobs.items())
        return [
            {"segment": name}
            | job.following.status()
            | {"device": main_link(job.following.ground), "pending": job.state.pending}
            | dict(job.state.counts)
            for name, job in jobs
        ]

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        next_resync = self._clock() + self._resync
        while True:
            with self._wake:
                self._wake.wait_for(self._ready, max(0.0, self._next_due(next_resync) - self._clock()))
                if self._stopping:
                    return
                unwanted = dict(self._unwanted)
                due = [job for name, job in self._jobs.items() if name in self._dirty and job.due <= self._clock()]
                self._dirty -= {job.following.segment.name for job in due}
            self._take_away(unwanted)
            for job in due:
                self._pass(job)
            if self._clock() >= next_resync:
                next_resync = self._clock() + self._resync
                self.doubt_all()

    def _ready(self) -> bool:
        now = self._clock()
        return (
            self._stopping
            or bool(self._unwanted)
            or any(self._jobs[name].due <= now for name in self._dirty if name in self._jobs)
        )

    def _next_due(self, next_resync: float) -> float:
        return min([next_resync, *(self._jobs[name].due for name in self._dirty if name in self._jobs)])

    def _take_away(self, unwanted: dict[str, _Job]) -> None:
        for segment, job in unwanted.items():
            with self._wake:
                self._forget(job.following)
                keep = frozenset(name for other in self._jobs.values() for name in own_links(other.following.ground))
            try:
                job.state.remove(keep)
            except SpanlanError as error:
                log.warning("segment %s: its links stay: %s", segment, error)
            except Exception:  # the loop must outlive every surprise, and say it
                log.exception("segment %s: its links stay", segment)
            self._metrics.forget_segment(segment)
            with self._wake:
                self._unwanted.pop(segment, None)
                self._wake.notify_all()

    def _forget(self, following: Following) -> None:
        self._by_index = {index: other for index, other in self._by_index.items() if other is not following}

    def _pass(self, job: _Job) -> None:
        following = job.following
        if not following.in_sync:
            return
        work = following.take_work()
        name = following.segment.name
        begun = self._clock()
        try:
            _tell(job.state, work)
            report = job.state.sync()
            self._note(following, report)
            following.finished(work.generation)  # the links are there: an entry of another host's keeps nobody waiting
            _demand_all_written(name, report)
        except SpanlanError as error:
            self._put_off(job, work.generation, error)
        except Exception as error:  # the loop must outlive every surprise, and say it
            log.exception("segment %s: a pass failed unexpectedly", name)
            self._put_off(job, work.generation, Broken(f"segment {name}: {error!r}"))
        else:
            if job.pause:
                log.info("segment %s: well again", name)
            job.pause = job.due = 0.0
            self._metrics.sync_passed(self._clock() - begun)
            self._metrics.written("overlay", report.written + report.dropped)
        self._metrics.set_pending(name, job.state.pending)

    def _note(self, following: Following, report: SyncReport) -> None:
        for change in report.changes:
            log.info("segment %s: %s %s", following.segment.name, main_link(following.ground), change)
        flaws = (*following.remarks, *report.reasons)
        for flaw in flaws:
            if flaw not in following.flaws:
                log.warning("segment %s: %s", following.segment.name, flaw)
        following.flaws = flaws
        # Only a device of our own: a NIC has neighbours that are none of ours.
        if following.segment.tunnel is not None and self._by_index.get(report.index) is not following:
            with self._wake:
                self._forget(following)
                self._by_index = self._by_index | {report.index: following}

    def _put_off(self, job: _Job, generation: int, error: SpanlanError) -> None:
        if not job.pause:
            log.warning("segment %s: a pass failed and is tried again: %s", job.following.segment.name, error)
        job.pause = min(_LONGEST_PAUSE, job.pause * 2 or _FIRST_PAUSE)
        job.due = self._clock() + job.pause
        self._metrics.sync_passed(0.0, outcome_of(error))
        job.following.flaws = ()  # they may be over, and what failed says more
        job.following.failed(generation, error)
        self.mark(job.following.segment.name)


def _demand_all_written(segment: str, report: SyncReport) -> None:
    if report.failed:
        why = "; ".join(report.reasons)
        raise Broken(f"segment {segment}: the kernel refused {report.failed} entries: {why}")


def _tell(state: SegmentState, work: Work) -> None:
    """Hand a pass's work to the kernel's tail: first what was seen, so that drift shows by itself, then what is new."""
    before = state.pending
    for event in work.seen:
        state.observe(event)
    drifted = state.pending - before
    if drifted > 0:
        log.warning(
            "device %s: %d entries were changed by somebody else; putting them back", main_link(work.ground), drifted
        )
    if work.doubt:
        state.doubt()
    state.want_ground(work.ground)
    state.want_entries(work.wanted)


def sweep(links: Links, wanted_names: Iterable[str], routed: Collection[IPNetwork] = ()) -> None:
    """Delete the links and routes that are ours and that nothing on this host stands behind: remnants of a crash.

    ``routed``: the subnets in which segments of this host have routes.
    """
    wanted = set(wanted_names)
    for text in routes.sweep_routes(routed):
        log.info("%s, for no segment of this host needs it any more", text)
    for found in links.ours():
        if found.name not in wanted:
            log.info("removing %s (%s), which nothing on this host uses any more", found.name, found.alias)
            try:
                links.delete(found.name)
            except SpanlanError as error:
                log.warning("%s stays: %s", found.name, error)
