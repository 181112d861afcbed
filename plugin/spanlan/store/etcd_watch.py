"""The watch of the etcd store: lists, follows, and knows when it is in sync again.

A watch that resumes after it was cut off gets what it missed from etcd, but etcd does not say when that is all: the
progress request that should tell is answered too early by releases before 3.4.25 and 3.5.8.  So it is reckoned.  We
know how many keys there are by what we yielded; one small read after the connection stands says how many there
really are, which revision wrote the newest of them, and at which revision that is so.  Events come in order.  Once the
newest write has been yielded and the numbers agree, nothing is missing (what may be on its way are keys that came and
went again in between); and once an event or progress report from beyond that read arrives, nothing can be.

All that supposes that it is the same etcd that came back.  One that lost its data (a wiped disk, an old backup) starts
again at a lower revision, and would be silent until it has passed the one at which we resume: then we list again.
"""

import random
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from spanlan.errors import Broken, SpanlanError
from spanlan.store import etcd3
from spanlan.store.base import Changes, Deleted, Entry, InSync, Lost, Snapshot, WatchEvent

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0


class HighWater:
    """The highest revision at which a store was ever seen."""

    def __init__(self) -> None:
        self.revision = 0

    def note(self, revision: int) -> None:
        """The store was seen at this revision.  Threads that do so at once may lose a step, which does no harm."""
        self.revision = max(self.revision, revision)


class EtcdWatch:
    """A watch of the keys that start with ``prefix``, see :class:`spanlan.store.base.Watch`.

    Raises Broken if etcd refuses it from the beginning.  A refusal later on (a password changed, a certificate ran
    out) is reported as Lost, and tried again, since it can be mended without a restart of ours.
    """

    def __init__(  # noqa: PLR0913 - what the store shares with its watches, by name
        self,
        client: etcd3.Client,
        prefix: bytes,
        *,
        root: bytes,
        relist: float,
        high_water: HighWater,
        complain: Callable[[etcd3.EtcdError], SpanlanError],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._root_length = len(root)
        self._relist = relist
        self._high_water = high_water
        self._complain = complain
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._watcher: etcd3.Watcher | None = None
        self._was_up = False
        self._lost = False
        self._pause = _FIRST_PAUSE
        self._keys = 0
        """How many keys the receiver holds, if it did as it was told."""
        self._revision = 0
        """Of the last thing yielded."""
        self._goal: etcd3.Listing | None = None
        """After a reconnection: the newest key and the number of keys, as they must be to be in sync."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration and free the connection."""
        self._closed.set()
        with self._lock:
            if self._watcher is not None:
                self._watcher.close()

    def __iter__(self) -> Iterator[WatchEvent]:
        """Yield until closed."""
        must_list = True
        while not self._closed.is_set():
            try:
                if must_list:
                    yield from self._list()
                    must_list = False
                yield from self._follow()
                must_list = True  # it was time, or the store has lost its data
            except etcd3.Closed:
                return
            except etcd3.Compacted:
                must_list = True  # what we missed is not to be had any more
            except etcd3.EtcdError as error:
                if self._closed.is_set():
                    return
                yield from self._lose(error)
                self._closed.wait(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _lose(self, error: etcd3.EtcdError) -> Iterator[WatchEvent]:
        self._goal = None
        report = self._complain(error)
        if isinstance(report, Broken) and not self._was_up:
            raise report from error
        if not self._lost:
            self._lost = True
            yield Lost(str(report))

    def _list(self) -> Iterator[WatchEvent]:
        listing = self._client.get_prefix(self._prefix)
        self._was_up, self._lost, self._goal = True, False, None
        self._pause = _FIRST_PAUSE
        self._keys, self._revision = len(listing), listing.revision
        self._high_water.note(listing.revision)
        yield Snapshot(tuple(map(self._entry, listing)), listing.revision)
        yield InSync(listing.revision)

    def _follow(self) -> Iterator[WatchEvent]:
        """Yield what happens after the last thing yielded, until everything is to be listed again."""
        watcher = self._client.watch_prefix(
            self._prefix,
            start_revision=self._revision + 1,
            lifetime=self._relist * random.uniform(0.8, 1.2),  # noqa: S311 - so that not all come at once
        )
        with self._lock:
            self._watcher = watcher
            if self._closed.is_set():
                return
        with watcher:
            for happening in watcher:
                if isinstance(happening, etcd3.Disconnected):
                    yield from self._lose(happening.error)
                elif isinstance(happening, etcd3.Connected):
                    if self._lost:
                        self._goal = self._client.newest(self._prefix)
                        if self._goal.revision < self._high_water.revision:
                            return
                elif isinstance(happening, etcd3.Events):
                    yield self._change(happening)
                else:
                    self._revision = max(self._revision, happening.revision)
                yield from self._back_in_sync()

    def _change(self, happening: etcd3.Events) -> Changes:
        for event in happening.events:
            if event.kind is etcd3.EventType.DELETE:
                self._keys -= 1
            elif event.kv.create_revision == event.kv.mod_revision:
                self._keys += 1
        self._revision = happening.revision
        self._high_water.note(happening.revision)
        return Changes(tuple(map(self._changed, happening.events)), happening.revision)

    def _back_in_sync(self) -> Iterator[WatchEvent]:
        goal = self._goal
        if goal is None:
            return
        newest = goal.kvs[0].mod_revision if goal.kvs else 0
        if self._revision >= goal.revision or (self._revision >= newest and self._keys == goal.count):
            self._lost, self._goal = False, None
            self._pause = _FIRST_PAUSE
            yield InSync(max(self._revision, goal.revision))

    def _entry(self, kv: etcd3.KeyValue) -> Entry:
        return Entry(kv.key[self._root_length :].decode(), kv.value, kv.mod_revision)

    def _changed(self, event: etcd3.Event) -> Entry | Deleted:
        if event.kind is etcd3.EventType.DELETE:
            return Deleted(event.kv.key[self._root_length :].decode(), event.kv.mod_revision)
        return self._entry(event.kv)
