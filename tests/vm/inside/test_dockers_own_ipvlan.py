"""Docker's own ipvlan driver between the lab's hosts: what ours is measured against; and the LAN carries it."""

import json
from collections.abc import Iterator

import pytest

from lab.containers import Container, start
from lab.wire import capture
from spanlan.lab import Lab


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[list[Container]]:
    """A container on each host, on a LAN of another subnet than the hosts' own."""
    pools = ("--ipv6", "--subnet", "10.50.0.0/24", "--subnet", "fd50::/64")
    for host in lab.hosts:
        host.docker("network", "create", "-d", "ipvlan", "-o", "parent=eth0", *pools, "theirs")
    yield [
        start(host, "member", "theirs", "--ip", f"10.50.0.1{host.number}", "--ip6", f"fd50::1{host.number}")
        for host in lab.hosts
    ]
    lab.clear()


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_containers_on_two_hosts_reach_each_other(pair: list[Container], family: int) -> None:
    one, other = pair
    assert one.pings(other.on(family))
    assert other.pings(one.on(family))


def test_frames_of_a_container_carry_the_mac_of_its_host(pair: list[Container]) -> None:
    one, other = pair
    assert one.links()["eth0"]["linkinfo"]["info_kind"] == "ipvlan"
    with capture(other.host, "-e") as wire:
        assert one.pings(other.on(4))
        wire.wait_for(f"{one.host.mac} > {other.host.mac}", f"{one.on(4)} > {other.on(4)}", "echo request")


def test_the_hosts_own_interface_has_no_address_of_that_lan(pair: list[Container]) -> None:
    for container in pair:
        told = json.loads(container.host.run(["ip", "-j", "addr", "show", "dev", "eth0"]).stdout)
        assert {entry["local"] for entry in told[0]["addr_info"]}.isdisjoint({container.on(4), container.on(6)})
