"""This host's sign of life: its record in the store, bound to a lease that a thread renews.

When the daemon is stopped in order while containers run, the record is left without a lease: the containers' traffic
goes on, and nobody shall withdraw them for an upgrade of the daemon.  A host that crashes loses its lease, and with it
the record.
"""

import logging
import threading

from spanlan import deadline
from spanlan.errors import Gone, Refuse, Retry, SpanlanError
from spanlan.model.cluster import Host
from spanlan.store import codec, keys
from spanlan.store.base import Absent, Condition, Lease, Put, Store, Unchanged

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between attempts while the store is away
_LONGEST_WAIT = 3.0  # seconds for the first attempt


class Liveness:
    """Keeps a host's record alive.  ``ttl``: seconds after the host's end until its record goes."""

    def __init__(self, store: Store, host: Host, *, ttl: float) -> None:
        self._store = store
        self._host = host
        self._ttl = ttl
        self._lease: Lease | None = None
        self._stopping = threading.Event()
        self._again = threading.Event()
        self._namesake: Refuse | None = None
        self._shown = False
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def start(self) -> None:
        """Begin to show that this host is there."""
        self._thread.start()

    def refuse_namesake(self) -> None:
        """Raise Refuse while another host has this one's name: each would take the other's endpoints for its own.

        Right after the start, waits until that can be known.
        """
        if self._thread.is_alive():
            self._tried.wait(deadline.remaining(_LONGEST_WAIT))
        if self._namesake is not None:
            raise Refuse(str(self._namesake))

    def show_again(self) -> None:
        """The record has gone although we are here: write it anew at once."""
        self._again.set()

    def stop(self, *, containers_stay: bool) -> None:
        """End in order; with ``containers_stay`` the record stays too, and otherwise it goes now."""
        self._stopping.set()
        self._again.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._ttl)
        try:
            if containers_stay and self._namesake is None:
                self._store.commit([], [Put(keys.host(self._host.name), codec.encode_host(self._host))])
            if self._lease is not None:
                self._lease.revoke()
        except SpanlanError as error:
            log.warning("host %s could not take its leave from the store: %s", self._host.name, error)

    def _run(self) -> None:
        trouble = False
        while not self._stopping.is_set():
            try:
                if self._lease is None or not self._shown or self._again.is_set():
                    self._again.clear()
                    self._shown = False
                    self._show()
                    self._shown = True
                else:
                    self._lease.keepalive()
            except Gone:
                log.warning("the lease of host %s has ended; taking a new one", self._host.name)
                self._lease = None
                continue
            except SpanlanError as error:
                self._namesake = error if isinstance(error, Refuse) else None
                self._tried.set()
                if not trouble:
                    log.warning("host %s cannot show that it is there: %s", self._host.name, error)
                trouble = True
                self._stopping.wait(_PAUSE)
                continue
            self._namesake = None
            self._tried.set()
            if trouble:
                log.info("host %s shows again that it is there", self._host.name)
                trouble = False
            self._again.wait(self._ttl / 3)

    def _show(self) -> None:
        key = keys.host(self._host.name)
        if self._lease is None:
            self._lease = self._store.lease(self._ttl)
        else:
            self._lease.keepalive()  # nothing can be bound to one that has ended
        before = self._store.get(key)
        condition: Condition = Absent(key)
        if before is not None:
            there = codec.decode_host(before)
            if there.instance != self._host.instance:
                raise Refuse(
                    f"another host of this cluster is called {self._host.name}: give this one a name of its own with "
                    "SPANLAN_HOST"
                )
            condition = Unchanged(key, before.revision)
        written = self._store.commit([condition], [Put(key, codec.encode_host(self._host), self._lease)])
        if not written.succeeded:
            raise Retry("its record was changed in the same moment")  # by an earlier lease of ours that just ended
