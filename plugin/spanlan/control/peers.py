"""What the cluster says: a watch on the hosts and one on each segment that this host has a network on.

Each watch has a thread of its own, which feeds the segment's :class:`Following` and marks it for the loop.  A watch
that ends with an error is opened again with growing pauses; while the store is away nothing is withdrawn.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from spanlan.control.following import Following, prefix_of
from spanlan.control.loop import Loop
from spanlan.control.presence import Presence
from spanlan.errors import SpanlanError
from spanlan.metrics import Metrics
from spanlan.store import keys
from spanlan.store.base import Changes, Entry, InSync, Lost, Snapshot, Store, Watch, WatchEvent

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0


class Peers:
    """Follows segments on behalf of this host.  ``grace``: seconds between a host's end and its withdrawal."""

    def __init__(self, store: Store, loop: Loop, *, me: str, grace: float, metrics: Metrics) -> None:
        self._metrics = metrics
        self._store = store
        self._loop = loop
        self._me = me
        self._lock = threading.RLock()
        self._presence = Presence(grace)
        self._followed: dict[str, tuple[Following, _Watching]] = {}
        self._hosts = _Watching(store, keys.HOSTS, self._take_hosts, "hosts")
        self._timer = threading.Condition(self._lock)
        self._stopping = False
        self._reaper = threading.Thread(target=self._expire, name="presence", daemon=True)
        self._lost: str | None = "not connected yet"
        self.on_host_deleted: Callable[[str], None] = lambda _: None
        self.on_store_back: Callable[[], None] = lambda: None
        self.on_ours_missing: Callable[[Following], None] = lambda _: None

    def start(self) -> None:
        """Begin to watch the hosts."""
        self._hosts.start()
        self._reaper.start()

    def stop(self) -> None:
        """End all watches."""
        with self._lock:
            self._stopping = True
            self._timer.notify_all()
            watchings = [self._hosts, *(watching for _, watching in self._followed.values())]
        for watching in watchings:
            watching.stop()

    @property
    def lost(self) -> str | None:
        """Why the store is away, or None if it is there."""
        return self._lost

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that are there."""
        with self._lock:
            return self._presence.alive

    def follow(self, following: Following) -> Following:
        """Follow a segment; one that is followed already goes on as it is."""
        with self._lock:
            name = following.segment.name
            if name in self._followed:
                return self._followed[name][0]
            self._loop.add(following)
            watching = _Watching(
                self._store, prefix_of(following.segment), lambda event: self._take_segment(following, event), name
            )
            self._followed[name] = (following, watching)
            watching.start()
            return following

    def unfollow(self, segment: str, seconds: float) -> None:
        """No longer follow a segment, and take its device away; waits at most ``seconds`` for that."""
        with self._lock:
            following, watching = self._followed.pop(segment, (None, None))
        if following is not None and watching is not None:
            watching.stop()
            if not self._loop.remove(following, seconds):
                log.warning("segment %s: its device is still being removed", segment)

    def mark(self, segment: str) -> None:
        """Look at a segment soon: what this host wants of it has changed."""
        self._loop.mark(segment)

    def following(self, segment: str) -> Following | None:
        """The state of a followed segment."""
        with self._lock:
            followed = self._followed.get(segment)
            return None if followed is None else followed[0]

    # -- called by the watches' threads --------------------------------------------------------------------------------

    def _take_segment(self, following: Following, event: WatchEvent) -> None:
        dirty, members, ours = following.take(event)
        if ours:
            self.on_ours_missing(following)
        if members:
            with self._lock:
                self._presence.expect(following.hosts(), time.monotonic())
                dirty |= self._withdraw_from(following)
                self._timer.notify_all()
        if isinstance(event, Lost):
            self._metrics.watch_lost()
        if dirty:
            self._loop.mark(following.segment.name)

    def _take_hosts(self, event: WatchEvent) -> None:
        now = time.monotonic()
        back = False
        with self._lock:
            match event:
                case Snapshot(entries=entries):
                    self._presence.replace((entry.key.rsplit("/", 1)[1] for entry in entries), now)
                case Changes(changes=changes):
                    for change in changes:
                        self._take_host(change.key.rsplit("/", 1)[1], isinstance(change, Entry), now)
                case InSync():
                    self._presence.trust(in_sync=True, now=now)
                    back, self._lost = self._lost is not None, None
                    if self._me not in self._presence.alive:  # it went while the store was away
                        self.on_host_deleted(self._me)
                case Lost(reason=reason):
                    if self._lost is None:
                        log.warning("the store is away, the data path runs on: %s", reason)
                    self._presence.trust(in_sync=False, now=now)
                    self._lost = reason
            self._metrics.set_in_sync(self._lost is None)
            self._apply_presence()
            self._timer.notify_all()
        if back:
            log.info("the store is there and in sync")
            self.on_store_back()

    def _take_host(self, name: str, there: bool, now: float) -> None:  # noqa: FBT001 - one of two things happened
        if there:
            self._presence.appear(name)
            return
        self._presence.vanish(name, now)
        log.info("host %s has gone", name)
        self.on_host_deleted(name)

    # -- withdrawal ----------------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        with self._lock:
            while not self._stopping:
                self._apply_presence()
                now = time.monotonic()
                end = self._presence.next_expiry(now)
                self._timer.wait(None if end is None else max(0.01, end - now))

    def _apply_presence(self) -> None:
        for following, _ in self._followed.values():
            if self._withdraw_from(following):
                self._loop.mark(following.segment.name)

    def _withdraw_from(self, following: Following) -> bool:
        if not self._presence.certain:
            return False
        return following.withdraw(self._presence.withdrawn(time.monotonic()) - {self._me})


@dataclass(slots=True)
class _Watching:
    """A watch that is kept up, in a thread of its own."""

    store: Store
    prefix: str
    take: Callable[[WatchEvent], None]
    name: str
    _stopping: threading.Event
    _watch: Watch | None
    _thread: threading.Thread | None

    def __init__(self, store: Store, prefix: str, take: Callable[[WatchEvent], None], name: str) -> None:
        self.store = store
        self.prefix = prefix
        self.take = take
        self.name = name
        self._stopping = threading.Event()
        self._watch = None
        self._thread = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"watch-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        watch = self._watch
        if watch is not None:
            watch.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                with self.store.watch(self.prefix) as watch:
                    self._watch = watch
                    if self._stopping.is_set():
                        return
                    for event in watch:
                        pause = _FIRST_PAUSE
                        self.take(event)
            except SpanlanError as error:
                log.error("the watch on %s ended: %s", self.prefix, error)  # noqa: TRY400 - the text says it all
                self.take(Lost(str(error)))
            except Exception:
                log.exception("the watch on %s ended unexpectedly", self.prefix)
                self.take(Lost("see the daemon's log"))
            self._stopping.wait(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
