"""What should be on this host, as pure functions: from options and a view to a plan.  No I/O, no clock, no thread.

One file a driver, and a line in the table below; drivers do not know each other.
"""

from collections.abc import Mapping

from spanlan import options
from spanlan.drivers.base import Driver
from spanlan.drivers.ipvlan import IpvlanDriver
from spanlan.drivers.macvlan import MacvlanDriver
from spanlan.drivers.vxlan import VxlanDriver
from spanlan.errors import Refuse

DRIVERS: Mapping[str, Driver] = {driver.mode: driver for driver in (VxlanDriver(), IpvlanDriver(), MacvlanDriver())}

DEFAULT_MODE = "vxlan"


def choose(given: Mapping[str, str]) -> Driver:
    """The driver that a network's options ask for.  Raises Refuse for a mode that there is none for.

    Docker's own ``ipvlan_mode`` and ``macvlan_mode`` say the mode too, so that a compose file moves over unchanged.
    """
    implied = next((mode for mode in DRIVERS if f"{mode}_mode" in given), DEFAULT_MODE)
    wanted = given.get("mode", implied)
    try:
        return DRIVERS[options.choice(*DRIVERS)(wanted)]
    except ValueError as error:
        raise Refuse(f"option mode={wanted}: must be {error}") from error
