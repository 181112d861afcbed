"""802.1Q between the lab's hosts: the LAN is a trunk, which passes tags as they are."""

from collections.abc import Iterator

import pytest

from lab.wire import capture
from spanlan.lab import Lab
from spanlan.lab.host import Host


@pytest.fixture(scope="module")
def trunk(lab: Lab) -> Iterator[Lab]:
    """VLANs 10 and 20 on both hosts, with the same addresses in both."""
    for host in lab.hosts:
        for vlan in (10, 20):
            name = f"eth0.{vlan}"
            host.run(["ip", "link", "add", "link", "eth0", "name", name, "type", "vlan", "id", str(vlan)])
            host.run(["ip", "addr", "add", f"10.{vlan}.0.{host.number}/24", "dev", name])
            host.run(["ip", "addr", "add", f"fd{vlan}::{host.number}/64", "dev", name, "nodad"])
            host.run(["ip", "link", "set", name, "up"])
    yield lab
    for host in lab.hosts:
        for vlan in (10, 20):
            host.run(["ip", "link", "del", f"eth0.{vlan}"])


def pings(host: Host, address: str, *more: str) -> bool:
    return host.run(["ping", "-c", "1", "-W", "2", *more, address], check=False).returncode == 0


def test_hosts_reach_each_other_in_a_vlan_and_the_tag_is_on_the_wire(trunk: Lab) -> None:
    here, there = trunk.hosts
    with capture(there, "-e") as wire:
        assert pings(here, "10.10.0.2")
        assert pings(here, "fd10::2")
        assert pings(here, "10.20.0.2")
        wire.wait_for("vlan 10", "10.10.0.1 > 10.10.0.2", "echo request")
        wire.wait_for("vlan 10", "fd10::1 > fd10::2", "echo request")
        wire.wait_for("vlan 20", "10.20.0.1 > 10.20.0.2", "echo request")
        assert not wire.lines("vlan 20", "10.10.0.1")
