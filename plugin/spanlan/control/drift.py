"""What the kernel says: a thread that listens on netlink and tells the segments what was changed under them.

It decides nothing and writes nothing.  An entry that was changed by hand is noted as found, and the loop's next pass
finds the difference; a device that went, or messages that were missed, make the loop compare everything.  The kernel
also reports what we wrote ourselves: that is found as wanted, and no difference.
"""

import logging
import threading

from spanlan.control.loop import Loop
from spanlan.errors import SpanlanError
from spanlan.kernel.monitor import FdbSeen, LinkChanged, LinkGone, Monitor, NeighbourSeen, Overrun

log = logging.getLogger(__name__)

Event = LinkGone | LinkChanged | NeighbourSeen | FdbSeen | Overrun


class Drift:
    """Feeds the loop with what a :class:`Monitor` sees."""

    def __init__(self, loop: Loop, monitor: Monitor) -> None:
        self._loop = loop
        self._monitor = monitor
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
            for event in self._monitor.events():
                self._take(event)
        except SpanlanError:
            log.exception("netlink can no longer be watched; the timer still finds drift")

    def _take(self, event: object) -> None:
        if isinstance(event, Overrun):
            log.info("netlink messages were missed; comparing everything")
            self._loop.doubt_all()
            return
        if not isinstance(event, LinkGone | LinkChanged | NeighbourSeen | FdbSeen):
            return
        following = self._loop.of_device(event.index)
        if following is None:
            return
        match event:
            case NeighbourSeen():
                following.saw_neighbour(event.address, event.mac)
            case FdbSeen():
                following.saw_fdb(event.mac, event.vtep)
            case LinkGone():
                log.warning("device %s of segment %s went", event.name, following.segment.name)
                following.doubt()
            case LinkChanged():
                following.doubt()
        self._loop.mark(following.segment.name)
