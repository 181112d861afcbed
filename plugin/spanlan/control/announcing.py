"""Telling the LAN that an address is here now: neighbours may remember it with the MAC of another host.

Engines before 28 do not announce the addresses of remote drivers' links, and an address that moved to this host would
be unreachable until its neighbours forget (Linux: up to a minute).  A link can be announced only when dockerd has moved
it and set its addresses, after Join was answered; so it is done beside the handlers, and a failure is only told.
"""

import logging
from concurrent.futures import ThreadPoolExecutor

from spanlan.errors import Broken, Gone, SpanlanError
from spanlan.kernel.announce import Announcement, announce

log = logging.getLogger(__name__)

_AT_ONCE = 32  # each waits most of its time, until its container starts


class Announcing:
    """Announces addresses in threads of its own, a few at a time."""

    def __init__(self) -> None:
        self._told = False
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="announcing")

    def stop(self) -> None:
        """What has not begun is not done any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def announce(self, announcement: Announcement, sandbox: str) -> None:
        """Announce a link's addresses once it is in its sandbox; returns at once.  Ignored after :meth:`stop`."""
        try:
            self._pool.submit(self._announce, announcement, sandbox)
        except RuntimeError:  # stopped
            log.debug("not announced, for the daemon stops: %s", announcement)

    def _announce(self, announcement: Announcement, sandbox: str) -> None:
        try:
            frames = announce(announcement, sandbox or None)
        except Gone as error:
            log.debug("nobody there to announce: %s", error)
        except Broken as error:
            if not self._told:
                self._told = True
                log.warning(
                    "addresses cannot be announced, and machines on the LAN may take a minute to notice: %s", error
                )
        except SpanlanError as error:
            log.warning(
                "%s could not be announced on the LAN, where others may look for it elsewhere for a minute: %s",
                ", ".join(map(str, announcement.addresses)),
                error,
            )
        except Exception:
            log.exception("announcing %s ended unexpectedly", announcement)
        else:
            log.debug("announced %s in %d frames", announcement, frames)
