"""ipvlan L2 on two hosts of one LAN: who reaches whom, what crosses the wire, networks that share a NIC, addresses."""

import itertools
import json
from collections.abc import Iterator

import pytest

from lab.containers import Container, kept_clean, refusal, running
from lab.faults import published
from spanlan.lab.commands import until
from vm.members import (
    connect,
    connect_together,
    create_everywhere,
    create_on,
    disconnect,
    fetches,
    interface_of,
    routes_on,
    start_together,
)
from vm.trunk import UNTAGGED, LanLab

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
EVERYBODY = {4: "ff:ff:ff:ff:ff:ff", 6: "33:33:ff:"}
QUESTION = {4: "who-has {}", 6: "neighbor solicitation, who has {}"}
ANSWER = {4: "Reply {} is-at", 6: "neighbor advertisement, tgt is {}"}


@pytest.fixture(scope="module")
def trio(lan_lab: LanLab) -> Iterator[list[Container]]:
    """Two containers on the first host and one on the second, in the router's untagged subnets."""
    leg = lan_lab.router.leg(UNTAGGED)
    with kept_clean(lan_lab.lab):
        subnets = {leg.subnet: leg.gateway, leg.subnet6: leg.gateway6}
        create_everywhere(lan_lab, "blue", subnets=subnets)
        places = [(lan_lab.a, "one"), (lan_lab.b, "far"), (lan_lab.a, "beside")]
        one, far, beside = start_together(*((*place, "blue", ()) for place in places))
        yield [one, beside, far]


class TestContainersOnTwoHosts:
    @FAMILIES
    def test_each_reaches_each_other_on_its_host_and_across(self, trio: list[Container], family: int) -> None:
        for one, other in itertools.permutations(trio, 2):
            assert one.pings(other.on(family)), f"{one.name} to {other.name}"

    @FAMILIES
    def test_tcp_is_served_on_one_host_and_across(self, trio: list[Container], family: int) -> None:
        one, beside, far = trio
        for client, server in ((one, beside), (one, far), (far, beside)):
            assert fetches(client, server, family), f"{client.name} from {server.name}"

    def test_the_default_route_is_the_gateway_and_what_lies_behind_it_is_reached(
        self, trio: list[Container], lan_lab: LanLab
    ) -> None:
        leg, other = (lan_lab.router.leg(vlan) for vlan in (UNTAGGED, 10))
        for container in trio:
            assert routes_on(container) == {
                (leg.subnet, None),
                ("default", leg.gateway),
                (leg.subnet6, None),
                ("default", leg.gateway6),
            }
            assert container.pings(other.gateway)
            assert container.pings(other.gateway6)

    def test_addresses_are_unique_in_the_cluster_and_the_store_knows_who_has_them(
        self, trio: list[Container], lan_lab: LanLab
    ) -> None:
        addresses = {container.on(family): container.host.name for container in trio for family in (4, 6)}
        assert len(addresses) == 6
        assert published(lan_lab.lab, "lan.192.168.0.0-24") == addresses


class TestTheWire:
    @FAMILIES
    def test_frames_of_all_containers_carry_the_macs_of_their_hosts(
        self, trio: list[Container], lan_lab: LanLab, family: int
    ) -> None:
        one, beside, far = trio
        with lan_lab.wire() as wire:
            for container in (one, beside):
                assert container.pings(far.on(family))
                asked = (f"{one.host.mac} > {far.host.mac}", f"{container.on(family)} > {far.on(family)}")
                wire.wait_for(*asked, "echo request")
                answered = (f"{far.host.mac} > {one.host.mac}", f"{far.on(family)} > {container.on(family)}")
                wire.wait_for(*answered, "echo reply")
            assert wire.lines("vlan", far.on(family)) == []

    @FAMILIES
    def test_a_neighbour_is_asked_for_by_all_and_answers_to_the_asker(
        self, trio: list[Container], lan_lab: LanLab, family: int
    ) -> None:
        one, _, far = trio
        one.forget_neighbours()
        with lan_lab.wire() as wire:
            assert one.pings(far.on(family))
            wire.wait_for(f"{one.host.mac} > {EVERYBODY[family]}", QUESTION[family].format(far.on(family)))
            wire.wait_for(f"{far.host.mac} > {one.host.mac}", ANSWER[family].format(far.on(family)))
        assert one.knows(far.on(family)) == far.host.mac

    def test_siblings_on_one_host_are_not_seen_on_it(self, trio: list[Container], lan_lab: LanLab) -> None:
        one, beside, far = trio
        with lan_lab.wire("icmp") as wire:
            assert one.pings(beside.address)
            assert one.pings(far.address)
            wire.wait_for(f"{one.address} > {far.address}")
            assert wire.lines(beside.address) == []

    def test_the_hosts_have_no_address_in_the_containers_subnets(self, trio: list[Container]) -> None:
        for container in trio:
            told = json.loads(container.host.run(["ip", "-j", "addr", "show", "dev", "eth0"]).stdout)
            assert {each["local"] for each in told[0]["addr_info"] if each["scope"] == "global"} == {
                container.host.address,
                container.host.address6,
            }


class TestSeveralNetworksOnOneNic:
    def test_two_subnets_share_it_and_one_goes_without_the_other(self, trio: list[Container], lan_lab: LanLab) -> None:
        one, _, far = trio
        before = set(one.links())
        create_everywhere(lan_lab, "green", subnets={"10.51.0.0/24": None})
        here, there = connect_together("green", (one, "10.51.0.5"), (far, "10.51.0.6"))
        assert here.pings(there.address)
        assert one.pings(far.address)
        for container in (one, far):
            disconnect(container, "green")
        lan_lab.on_both(lambda host: host.docker("network", "rm", "green"))
        assert set(one.links()) == before
        one.forget_neighbours()
        assert one.pings(far.address)

    def test_an_internal_one_has_no_route_out(self, trio: list[Container], lan_lab: LanLab) -> None:
        one, _, _ = trio
        create_on(lan_lab.a, "inner", "--internal", subnets={"10.53.0.0/24": "10.53.0.1"})
        within = connect(one, "inner", "10.53.0.5")
        assert routes_on(within) == {("10.53.0.0/24", None)}
        disconnect(one, "inner")


class TestIsolation:
    def test_private_keeps_siblings_apart_and_from_nobody_else(self, trio: list[Container], lan_lab: LanLab) -> None:
        leg = lan_lab.router.leg(31)
        lan_lab.router.join(leg)
        create_on(
            lan_lab.a,
            "quiet",
            "--internal",
            "-o",
            "ipvlan_flag=private",
            parent="eth0.31",
            subnets={leg.subnet: leg.gateway},
        )
        one, beside = connect_together("quiet", (trio[0], "192.168.31.5"), (trio[1], "192.168.31.6"))
        for container, sibling in ((one, beside), (beside, one)):
            assert container.pings(leg.gateway)
            assert not container.pings(sibling.address, seconds=1)

    def test_vepa_sends_what_siblings_say_to_the_switch_which_does_not_send_it_back(
        self, trio: list[Container], lan_lab: LanLab
    ) -> None:
        create_on(
            lan_lab.a, "apart", "--internal", "-o", "vlan=32", "-o", "ipvlan_flag=vepa", subnets={"10.55.0.0/24": None}
        )
        one, beside = connect_together("apart", (trio[0], "10.55.0.5"), (trio[1], "10.55.0.6"))
        # A switch that reflects does not help with ARP: the kernel takes what comes from its own MAC for an echo.
        one.inside("ip", "neigh", "replace", beside.address, "lladdr", one.host.mac, "dev", interface_of(one))
        with lan_lab.wire() as wire:
            assert not one.pings(beside.address, seconds=1)
            wire.wait_for("vlan 32,", f"{one.address} > {beside.address}", "echo request")


class TestAddresses:
    @pytest.fixture
    def plain(self, trio: list[Container], lan_lab: LanLab) -> Iterator[None]:
        """A network whose addresses Docker's own IPAM hands out, host by host."""
        create_everywhere(lan_lab, "plain", ipam=None, subnets={"10.52.0.0/24": "10.52.0.1"})
        yield
        for container in trio:
            container.host.docker("network", "disconnect", "plain", container.name, check=False)
        lan_lab.on_both(lambda host: host.docker("network", "rm", "plain"))

    @pytest.mark.usefixtures("plain")
    def test_one_given_out_by_two_hosts_is_refused_to_the_second_with_its_holder_and_the_cure(
        self, trio: list[Container]
    ) -> None:
        one, _, far = trio
        one.host.docker("network", "connect", "plain", one.name)
        first = running(one.host, one.name, "plain")
        said = refusal(far.host, "network", "connect", "plain", far.name)
        assert f"{first.address} on segment lan.10.52.0.0-24 is held by endpoint" in said
        assert f"on host {one.host.name}" in said
        assert "--ipam-driver spanlan" in said
        assert connect(far, "plain", "10.52.0.99").pings(first.address)

    @pytest.mark.usefixtures("plain")
    def test_one_that_moves_to_another_host_is_reached_there_at_once(self, trio: list[Container]) -> None:
        one, beside, far = trio
        witness = connect(one, "plain", "10.52.0.5")
        connect(beside, "plain", "10.52.0.77")
        assert witness.pings("10.52.0.77")
        assert witness.knows("10.52.0.77") == beside.host.mac
        disconnect(beside, "plain")
        connect(far, "plain", "10.52.0.77")
        # Nobody has said a word to it meanwhile: that it has moved was announced.
        until(lambda: witness.knows("10.52.0.77") == far.host.mac, seconds=3, what="the neighbour's hearing of it")
        assert witness.pings("10.52.0.77")
