"""The LAN that the tests of VLANs stand on: a trunk passes tags, VLANs are apart, the router joins them."""

from collections.abc import Iterator

import pytest

from spanlan.lab.host import Host
from vm.trunk import LanLab


@pytest.fixture(scope="module")
def trunk(lan_lab: LanLab) -> Iterator[LanLab]:
    """Host a stands in VLAN 10, host b in VLAN 20, each with the router as the way to the other's subnets."""
    places = {lan_lab.a: (10, 20), lan_lab.b: (20, 10)}
    for host, (vlan, other) in places.items():
        here, there = lan_lab.router.leg(vlan), lan_lab.router.leg(other)
        host.run(["ip", "link", "add", "link", "eth0", "name", here.interface, "type", "vlan", "id", str(vlan)])
        for place, mask, flags in ((here.gateway, 24, ()), (here.gateway6, 64, ("nodad",))):
            host.run(["ip", "addr", "add", f"{place}{host.number}/{mask}", "dev", here.interface, *flags])
        host.run(["ip", "link", "set", here.interface, "up"])
        host.run(["ip", "route", "add", there.subnet, "via", here.gateway])
        host.run(["ip", "route", "add", there.subnet6, "via", here.gateway6])
    yield lan_lab
    for host, (vlan, _) in places.items():
        host.run(["ip", "link", "del", f"eth0.{vlan}"])


def pings(host: Host, address: str, *more: str) -> str:
    return host.run(["ping", "-n", "-c", "1", "-W", "2", *more, address], check=False).stdout


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_the_router_carries_a_packet_from_one_vlan_into_the_other(trunk: LanLab, family: int) -> None:
    ten, twenty = (trunk.router.leg(vlan) for vlan in (10, 20))
    source, target = {
        4: (f"{ten.gateway}1", f"{twenty.gateway}2"),
        6: (f"{ten.gateway6}1", f"{twenty.gateway6}2"),
    }[family]
    with trunk.wire() as wire:
        assert "ttl=63" in pings(trunk.a, target)
        for vlan in ("vlan 10,", "vlan 20,"):
            wire.wait_for(vlan, f"{source} > {target}", "echo request")


def test_without_the_router_the_vlans_are_apart(trunk: LanLab) -> None:
    """The same address in another VLAN is not reached: nobody answers there."""
    twenty = trunk.router.leg(20)
    with trunk.wire("vlan", "10") as wire:
        trunk.a.run(["ip", "route", "replace", f"{twenty.gateway}2/32", "dev", "eth0.10"])
        assert "1 received" not in pings(trunk.a, f"{twenty.gateway}2")
        wire.wait_for("vlan 10,", "ARP", f"who-has {twenty.gateway}2")
        assert not wire.lines("ARP", "is-at")
        trunk.a.run(["ip", "route", "del", f"{twenty.gateway}2/32"])
