"""What the daemon counts about itself.

Rooms report facts here in their own words ("a handler ended", "a watch was lost"); that those become counters,
gauges and histograms, and how they are spelled for a scraper, is nobody else's business.  Every daemon has one
:class:`Metrics` with a registry of its own, so that two daemons in one process (as in tests) do not mix their numbers.

Nothing here decides anything, and no label takes a value from outside the daemon: methods, outcomes, tables and
segments are known sets, and a segment's numbers are dropped with the segment.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from spanlan import __version__
from spanlan.errors import Gone, Refuse, Retry

# A handler answers in about a millisecond from memory, in tens of them through netlink and the store, and never after
# its deadline of 8 s; a pass over one change takes microseconds, over a hundred thousand entries less than a second.
_HANDLER_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0)
_PASS_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)

OK: Final = "ok"


def outcome_of(error: BaseException) -> str:
    """How a failed request is labelled: by what its sender does next."""
    if isinstance(error, Refuse):
        return "refused"
    if isinstance(error, Retry):
        return "retry"
    if isinstance(error, Gone):
        return "gone"
    return "broken"


class Metrics:
    """The numbers of one daemon; all methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._handlers = Histogram(
            "spanlan_handler_seconds",
            "Time from a request of dockerd to its answer.",
            ["method", "outcome"],
            buckets=_HANDLER_SECONDS,
            registry=self.registry,
        )
        self._watches_lost = Counter(
            "spanlan_store_watch_lost",
            "Watches on the store that broke off and were taken up again.",
            registry=self.registry,
        )
        self._in_sync = Gauge(
            "spanlan_store_in_sync",
            "1 while this host's picture of the cluster is up to date, 0 while it is not.",
            registry=self.registry,
        )
        self._passes = Histogram(
            "spanlan_sync_pass_seconds",
            "Time of one comparison of a segment with the kernel, with its writes.",
            ["outcome"],
            buckets=_PASS_SECONDS,
            registry=self.registry,
        )
        self._written = Counter(
            "spanlan_kernel_entries_written",
            "Entries that were added to, changed in or removed from the kernel.",
            ["table"],
            registry=self.registry,
        )
        self._pending = Gauge(
            "spanlan_sync_pending",
            "Differences from the kernel that a segment's last pass left behind.",
            ["segment"],
            registry=self.registry,
        )
        build = Gauge(
            "spanlan_build_info", "Always 1; the label tells the version.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)
        started = Gauge("spanlan_start_time_seconds", "When the daemon started, in Unix time.", registry=self.registry)
        started.set_to_current_time()

    def handled(self, method: str, outcome: str, seconds: float) -> None:
        """A request was answered.  ``method`` is the name of a known method, ``outcome`` is ``ok`` or of outcome_of."""
        self._handlers.labels(method, outcome).observe(seconds)

    @contextmanager
    def handling(self, method: str) -> Iterator[None]:
        """Time the block as the handler of ``method``; an error that leaves it gives the outcome and passes on."""
        begin = time.perf_counter()
        outcome = OK
        try:
            yield
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            self.handled(method, outcome, time.perf_counter() - begin)

    def watch_lost(self) -> None:
        """A watch on the store broke off."""
        self._watches_lost.inc()

    def set_in_sync(self, in_sync: bool) -> None:  # noqa: FBT001 - the flag is the fact
        """This host's picture of the cluster is (not) up to date."""
        self._in_sync.set(1 if in_sync else 0)

    def sync_passed(self, seconds: float, outcome: str = OK) -> None:
        """One segment was compared with the kernel; ``outcome`` as for a handler."""
        self._passes.labels(outcome).observe(seconds)

    def written(self, table: str, entries: int) -> None:
        """``entries`` of the kernel's ``table`` (``fdb``, ``neighbour``, ``link`` …) were written or removed."""
        self._written.labels(table).inc(entries)

    def set_pending(self, segment: str, entries: int) -> None:
        """``entries`` of ``segment`` are still to be written: the kernel refused them, or nobody has tried yet."""
        self._pending.labels(segment).set(entries)

    def forget_segment(self, segment: str) -> None:
        """``segment`` has left this host, and its numbers with it."""
        with suppress(KeyError):
            self._pending.remove(segment)
