"""802.1Q under ipvlan: who talks in a VLAN, the tags on the wire, and the VLAN links that networks share."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.containers import Container, kept_clean, links
from spanlan.lab.commands import until
from spanlan.lab.host import Host
from vm.members import connect, connect_together, create_everywhere, create_on, fetches, link_of, start_together
from vm.trunk import LanLab

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


@dataclass(frozen=True)
class Members:
    """VLAN 10 on both hosts, VLAN 20 on the first."""

    ten: Container
    far_ten: Container
    twenty: Container


@pytest.fixture(scope="module")
def members(lan_lab: LanLab) -> Iterator[Members]:
    first, second = map(lan_lab.router.leg, (10, 20))
    ten, twenty = {first.subnet: first.gateway, first.subnet6: first.gateway6}, {second.subnet: second.gateway}
    with kept_clean(lan_lab.lab):
        # One VLAN, named in both ways.
        create_on(lan_lab.a, "ten", parent="eth0.10", subnets=ten)
        create_on(lan_lab.b, "ten", "-o", "vlan=10", subnets=ten)
        create_on(lan_lab.a, "twenty", "-o", "vlan=20", "-o", "vlan_qos=6:5", subnets=twenty)
        places = [(lan_lab.a, "in-ten", "ten"), (lan_lab.b, "far-ten", "ten"), (lan_lab.a, "in-twenty", "twenty")]
        yield Members(*start_together(*((*place, ()) for place in places)))


class TestWhoTalks:
    @FAMILIES
    def test_a_vlan_is_one_lan_over_both_hosts(self, members: Members, family: int) -> None:
        assert members.ten.pings(members.far_ten.on(family))
        assert members.far_ten.pings(members.ten.on(family))
        assert fetches(members.ten, members.far_ten, family)

    def test_two_vlans_talk_through_the_router_that_has_both_and_only_so(
        self, members: Members, lan_lab: LanLab
    ) -> None:
        for other in (members.ten, members.far_ten):  # the one is on its very host, the other is not
            with lan_lab.wire() as wire:
                assert members.twenty.pings(other.address)
                for vlan in ("vlan 20,", "vlan 10,"):
                    wire.wait_for(vlan, f"{members.twenty.address} > {other.address}", "echo request")
            lan_lab.router.command("sysctl", "-qw", "net.ipv4.ip_forward=0")
            try:
                assert not members.twenty.pings(other.address, seconds=1)
            finally:
                lan_lab.router.command("sysctl", "-qw", "net.ipv4.ip_forward=1")


class TestTheWire:
    def test_every_frame_carries_the_tag_of_its_vlan(self, members: Members, lan_lab: LanLab) -> None:
        ten, far = members.ten, members.far_ten
        ten.forget_neighbours()
        with lan_lab.wire() as wire:
            for family in (4, 6):
                assert ten.pings(far.on(family))
                wire.wait_for("802.1Q", "vlan 10, p 0,", f"{far.on(family)} > {ten.on(family)}", "echo reply")
            wire.wait_for("vlan 10, p 0,", "ARP", f"who-has {far.address}")
            theirs = [line for line in wire.lines() if ten.address in line or str(ten.address6) in line]
            assert [line for line in theirs if "vlan 10," not in line] == []

    def test_the_priority_of_a_packet_becomes_the_priority_bits_of_its_frame(
        self, members: Members, lan_lab: LanLab
    ) -> None:
        router, twenty = lan_lab.router.leg(20).gateway, members.twenty
        with lan_lab.wire() as wire:
            assert twenty.pings(router, "-Q", "0x10")  # low delay: the kernel's priority 6 (socket(7), SO_PRIORITY)
            wire.wait_for("vlan 20, p 5,", f"{twenty.address} > {router}", "echo request")
            assert twenty.pings(router)
            wire.wait_for("vlan 20, p 0,", f"{twenty.address} > {router}", "echo request")

    def test_a_vlan_in_a_vlan_has_the_service_tag_outside_and_its_own_inside(
        self, members: Members, lan_lab: LanLab
    ) -> None:
        create_everywhere(lan_lab, "inner", "--internal", "-o", "vlan=100.10", subnets={"10.80.0.0/24": None})
        one, far = connect_together("inner", (members.ten, "10.80.0.5"), (members.far_ten, "10.80.0.6"))
        room = links(lan_lab.a)["eth0.100.10"]["mtu"] - 28
        with lan_lab.wire() as wire:
            assert one.pings(far.address, "-M", "do", "-s", str(room))
            wire.wait_for(
                "802.1Q-QinQ (0x88a8)", "vlan 100,", "802.1Q (0x8100)", "vlan 10,", f"{one.address} > {far.address}"
            )


class TestLinks:
    def test_networks_of_one_vlan_share_its_link_until_the_last_goes(self, lan_lab: LanLab) -> None:
        here = lan_lab.a
        create_on(here, "first", parent="eth0.40", subnets={"10.81.0.0/24": None})
        made = link_of(here, "eth0.40")
        assert made is not None
        create_on(here, "second", "-o", "vlan=40", subnets={"10.82.0.0/24": None})
        assert link_of(here, "eth0.40") == made
        here.docker("network", "rm", "first")
        assert link_of(here, "eth0.40") == made
        here.docker("network", "rm", "second")
        assert link_of(here, "eth0.40") is None

    def test_one_that_was_there_before_is_used_and_stays(self, lan_lab: LanLab) -> None:
        here = lan_lab.a
        here.run(["ip", "link", "add", "link", "eth0", "name", "eth0.50", "up", "type", "vlan", "id", "50"])
        try:
            before = link_of(here, "eth0.50")
            create_on(here, "guest", parent="eth0.50", subnets={"10.83.0.0/24": None})
            here.docker("network", "rm", "guest")
            assert link_of(here, "eth0.50") == before
        finally:
            here.run(["ip", "link", "del", "eth0.50"])

    def test_one_that_is_deleted_is_put_back_by_the_daemon_at_once_or_when_it_starts(
        self, members: Members, lan_lab: LanLab
    ) -> None:
        here = lan_lab.a
        create_on(
            here, "kept", "--internal", "-o", "vlan=60", "-o", "vlan_qos=6:5", subnets={"10.84.0.0/24": "10.84.0.1"}
        )
        wanted = facts_of(here)
        here.run(["ip", "link", "del", "eth0.60"])
        until(lambda: facts_of(here) == wanted, seconds=5, what="the VLAN link's return")

        here.kill_daemon()
        here.run(["ip", "link", "del", "eth0.60"])  # as a reboot does
        here.start_daemon()
        until(lambda: facts_of(here) == wanted, seconds=5, what="the VLAN link's return at the daemon's start")
        there = connect(members.ten, "kept", "10.84.0.5")
        with lan_lab.wire() as wire:
            assert not there.pings("10.84.0.1", seconds=1)
            wire.wait_for("vlan 60,", "who-has 10.84.0.1")
        here.docker("network", "disconnect", "kept", members.ten.name)
        here.docker("network", "rm", "kept")
        assert "eth0.60" not in links(here)


def facts_of(host: Host) -> tuple[object, ...] | None:
    """What makes the VLAN link what it is, but its index."""
    link = links(host).get("eth0.60")
    return None if link is None else (link["linkinfo"]["info_data"], link.get("ifalias"), "UP" in link["flags"])
