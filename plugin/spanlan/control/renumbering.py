"""When this host's own addresses change: its networks must be reached by the new ones.

A DHCP server gives another address, an administrator moves a host: the VTEP or the next hop that the others were told
is no longer there.  The kernel reports each change of an address; the networks are then looked at again, in a thread of
this module, because the store must be told and may be slow.
"""

import logging
import threading
from collections.abc import Callable

from spanlan.errors import SpanlanError

log = logging.getLogger(__name__)

_SETTLE = 0.2  # seconds: an address that is replaced goes and comes in two steps
_PAUSE = 5.0  # seconds until what failed is tried again


class Renumbering:
    """Calls ``look`` soon after an address of this host came or went, again while that fails."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renumbering", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def addresses_changed(self) -> None:
        """An address came or went; returns at once."""
        self._due.set()

    def _run(self) -> None:
        again: float | None = None
        while True:
            self._due.wait(again)
            if self._stopping.wait(_SETTLE):
                return
            self._due.clear()
            again = None
            try:
                self._look()
            except SpanlanError as error:
                log.warning("what follows from this host's addresses has to wait: %s", error)
                again = _PAUSE
            except Exception:
                log.exception("what follows from this host's addresses failed unexpectedly")
