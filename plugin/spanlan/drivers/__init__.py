"""What should be on this host, as pure functions: from options and a view to a plan.  No I/O, no clock, no thread.

One file a driver, and a line in the table below; drivers do not know each other.
"""

from collections.abc import Mapping

from spanlan import options
from spanlan.drivers.base import Driver
from spanlan.drivers.vxlan import VxlanDriver
from spanlan.errors import Refuse

DRIVERS: Mapping[str, Driver] = {driver.mode: driver for driver in (VxlanDriver(),)}

DEFAULT_MODE = "vxlan"


def choose(given: Mapping[str, str]) -> Driver:
    """The driver that a network's options ask for.  Raises Refuse for a mode that there is none for."""
    wanted = given.get("mode", DEFAULT_MODE)
    try:
        return DRIVERS[options.choice(*DRIVERS)(wanted)]
    except ValueError as error:
        raise Refuse(f"option mode={wanted}: must be {error}") from error
