"""What pyroute2 does not know of the kinds of links that we make.

Importing this module teaches it (pyroute2 0.9 knows no ipvlan flags); :mod:`spanlan.kernel.netlink` does so.
"""

from typing import Final

from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg


class _Ipvlan(nla):  # type: ignore[misc]  # pyroute2 has no types
    """IFLA_INFO_DATA of an ipvlan link (linux/if_link.h, IFLA_IPVLAN_*)."""

    prefix = "IFLA_"
    nla_map = (("IFLA_IPVLAN_UNSPEC", "none"), ("IFLA_IPVLAN_MODE", "uint16"), ("IFLA_IPVLAN_FLAGS", "uint16"))


ETH_P_8021Q: Final = 0x8100  # linux/if_ether.h
ETH_P_8021AD: Final = 0x88A8
VLAN_PROTOCOLS: Final = {"802.1q": ETH_P_8021Q, "802.1ad": ETH_P_8021AD}
VLAN_TAG: Final = 4  # bytes

MACVLAN_MODES: Final = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}  # linux/if_link.h
IPVLAN_MODES: Final = {0: "l2", 1: "l3", 2: "l3s"}
IPVLAN_FLAGS: Final = {0: "bridge", 1: "private", 2: "vepa"}

ifinfmsg.ifinfo.register_link_kind(module={"ipvlan": _Ipvlan})
