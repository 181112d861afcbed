"""Links on the physical LAN that several kernel tests make, and how the tests look at them."""

from netns import NetworkNamespace
from spanlan.model.host import IpvlanLink, IsolatedLink, MacvlanLink, Parent, VlanLink
from spanlan.model.mac import parse_mac

NIC = Parent(
    name="eth0",
    index=2,
    kind="",
    mtu=1500,
    up=True,
    loopback=False,
    wireless=False,
    master=None,
    vlan=None,
    children=frozenset(),
)
MACVLAN = MacvlanLink(
    name="sle-one", alias="spanlan endpoint=one", parent="under0", mac=parse_mac("02:42:0a:09:00:05"), mtu=None
)
IPVLAN = IpvlanLink(name="sle-one", alias="spanlan endpoint=one", parent="under0", mode="l2", flag="bridge", mtu=None)
VLAN = VlanLink(name="under0.10", alias="spanlan vlan=10", parent="under0", vlan=10)
ISOLATED = IsolatedLink(name="sli-blue", alias="spanlan segment=blue")


def show(namespace: NetworkNamespace, name: str) -> dict:
    (link,) = namespace.json("ip", "-j", "-d", "link", "show", "dev", name)
    return link


def exists(namespace: NetworkNamespace, name: str) -> bool:
    return bool(namespace.command("ip", "-o", "link", "show", "dev", name, check=False))


def data_of(namespace: NetworkNamespace, name: str) -> dict:
    return show(namespace, name)["linkinfo"]["info_data"]
