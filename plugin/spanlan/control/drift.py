"""What the kernel says: a thread that listens on netlink and tells the segments what was changed under them.

It decides nothing and writes nothing.  An entry that was changed by hand is noted as found, and the loop's next pass
finds the difference; a device that went, or messages that were missed, make the loop compare everything.  The kernel
also reports what we wrote ourselves: that is found as wanted, and no difference.
"""

import logging
import threading
from collections.abc import Callable

from spanlan.control.loop import Loop
from spanlan.errors import SpanlanError
from spanlan.kernel.monitor import AddressesChanged, Event, LinkGone, Monitor, Overrun
from spanlan.model.host import own_links

log = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0  # seconds; only so that the thread is not asleep for ever


class Drift:
    """Feeds the loop with what the monitor sees."""

    def __init__(self, loop: Loop, *, addresses_changed: Callable[[], None] = lambda: None) -> None:
        self._loop = loop
        self._addresses_changed = addresses_changed
        self._monitor = Monitor(of_interest=lambda index: loop.of_device(index) is not None)
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._monitor.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            while not self._monitor.closed:
                for event in self._monitor.events(_LONGEST_WAIT):
                    self._take(event)
        except SpanlanError:
            log.exception("netlink can no longer be watched; the timer still finds drift")

    def _take(self, event: Event) -> None:
        if isinstance(event, Overrun):
            log.info("netlink messages were missed; comparing everything")
            self._loop.doubt_all()
            return
        if isinstance(event, AddressesChanged):
            self._addresses_changed()
        for following in self._loop.concerned_by(event):
            if isinstance(event, LinkGone) and event.name in own_links(following.ground):
                log.warning("segment %s: device %s was removed by somebody else", following.segment.name, event.name)
            following.saw(event)
            self._loop.mark(following.segment.name, hopeful=True)
