"""The clock that leases run by: it goes on while the machine sleeps, and means nothing after a reboot."""

import time
from pathlib import Path

from spanlan.errors import Broken

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now() -> float:
    """Seconds since boot, suspended time included (``CLOCK_BOOTTIME``, clock_gettime(2)).

    The wall clock would end leases, or keep them for ever, when someone sets it.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The name of this boot (random(4)): a lease of another boot has ended.

    Raises Broken without ``/proc``.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        raise Broken(f"{_BOOT_ID} cannot be read ({error.strerror}): spanlan needs /proc to be mounted") from error
