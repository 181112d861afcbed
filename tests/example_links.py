"""Links that several kernel tests make."""

from spanlan.model.address import ip_address
from spanlan.model.host import MacvlanLink, VxlanLink
from spanlan.model.mac import parse_mac

BLUE = VxlanLink(
    name="svx-blue",
    alias="spanlan segment blue",
    vni=4200,
    port=4789,
    local=ip_address("10.9.0.1"),
    parent="under0",
    mtu=1450,
)
CHILD = MacvlanLink(
    name="sep0", alias="spanlan endpoint one", parent="svx-blue", mac=parse_mac("02:42:0a:2a:00:05"), mtu=1450
)
