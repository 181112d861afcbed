"""macvlan in bridge mode on two hosts of one LAN: what users of Docker's own macvlan know, and unique addresses."""

import itertools
from collections.abc import Iterator

import pytest

from lab.cleanliness import leftovers
from lab.containers import (
    SERVER,
    STORE_ROOT,
    Container,
    at_once,
    egress_legs,
    kept_clean,
    links,
    refusal,
    running,
    start,
)
from lab.faults import Container as Pinged
from lab.faults import Log, await_ready, pinging, published
from lab.lan_networks import (
    ROUTERS,
    all_ping_all,
    create_lan,
    lan_line,
    mac_of,
    macvlan_of,
    our_routes,
    pings,
    router,
    routes,
    start_with_mac,
)
from lab.wire import capture
from spanlan.lab import IMAGE, Lab
from spanlan.lab.commands import until

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
SEGMENT = "lan.10.50.0.0-24"


@pytest.fixture(scope="class")
def trio(lab: Lab) -> Iterator[list[Container]]:
    """Two containers on the first host and one on the second, on one dual-stack network with a router."""
    with kept_clean(lab), router(lab):
        create_lan(lab.hosts, "blue")
        places = zip((lab.hosts[0], lab.hosts[0], lab.hosts[1]), ("one", "beside", "far"), strict=True)
        yield at_once(lambda place: start(*place, "blue", command=SERVER), list(places))


class TestContainersOnTwoHosts:
    @FAMILIES
    def test_each_reaches_each_other_on_its_host_and_across(self, trio: list[Container], family: int) -> None:
        for one, other in itertools.permutations(trio, 2):
            assert one.pings(other.on(family)), f"{one.name} to {other.name}"

    @FAMILIES
    def test_tcp_is_served_on_one_host_and_across(self, trio: list[Container], family: int) -> None:
        one, beside, far = trio
        for client, server in ((one, beside), (one, far), (far, one)):
            address = f"[{server.on(6)}]" if family == 6 else server.on(4)
            said = client.inside("curl", "-sS", "--max-time", "5", f"http://{address}/")
            assert said == "spanlan lab\n", f"{client.name} to {server.name}"

    @FAMILIES
    def test_a_packet_of_the_parents_mtu_passes_whole(self, trio: list[Container], family: int) -> None:
        one, _, far = trio
        room = 1500 - {4: 28, 6: 48}[family]
        assert macvlan_of(one)["mtu"] == 1500
        assert one.pings(far.on(family), "-M", "do", "-s", str(room))
        assert not one.pings(far.on(family), "-M", "do", "-s", str(room + 1), seconds=1)

    def test_the_routes_inside_are_the_subnets_and_the_default_by_the_gateway(self, trio: list[Container]) -> None:
        for container in trio:
            assert routes(container) == {
                ("10.50.0.0/24", None, "eth0"),
                ("default", "10.50.0.1", "eth0"),
                ("fd50::/64", None, "eth0"),
                ("default", "fd50::1", "eth0"),
            }

    @FAMILIES
    def test_what_lies_behind_the_gateway_is_reached(self, trio: list[Container], family: int) -> None:
        beyond = {4: "10.99.0.250", 6: "fd99::250"}[family]
        for container in trio:
            assert container.pings(beyond), container.name

    def test_there_is_one_interface_and_no_leg_of_dockers_own(self, trio: list[Container]) -> None:
        for container in trio:
            assert set(container.links()) == {"lo", "eth0"}
            assert macvlan_of(container)["linkinfo"]["info_data"]["mode"] == "bridge"
            assert egress_legs(container) == []

    def test_addresses_are_unique_and_the_store_knows_who_has_them(self, trio: list[Container], lab: Lab) -> None:
        addresses = {container.on(family): container.host.name for container in trio for family in (4, 6)}
        assert len(addresses) == 6
        assert published(lab, SEGMENT) == addresses

    def test_frames_leave_untagged_with_the_macs_of_the_containers_and_nothing_around_them(
        self, trio: list[Container]
    ) -> None:
        one, _, far = trio
        with capture(one.host, "-e", "icmp") as wire:
            assert one.pings(far.on(4))
            wire.wait_for("echo reply")
            asked = wire.lines("echo request")
        assert f"{mac_of(one)} > {mac_of(far)}, ethertype IPv4 (0x0800)" in asked[0]

    def test_the_host_does_not_reach_its_own_containers_but_those_of_the_other(
        self, trio: list[Container], lab: Lab
    ) -> None:
        # That is the kernel's way with macvlan, and what -o host_access=true is for.
        one, _, far = trio
        with_address(lab, "add")
        try:
            assert pings(lab.hosts[0], far.on(4))
            assert not pings(lab.hosts[0], one.on(4), seconds=1)
        finally:
            with_address(lab, "del")

    def test_nothing_is_on_the_hosts_but_the_parent_as_it_was(self, trio: list[Container], lab: Lab) -> None:
        for host in {container.host for container in trio}:
            assert [name for name in links(host) if name.startswith("sl")] == []
            assert our_routes(host) == []
            assert links(host)["eth0"]["address"] == host.mac

    def test_an_address_of_another_container_is_refused_by_name_of_its_host(
        self, trio: list[Container], lab: Lab
    ) -> None:
        far = trio[2]
        said = refusal(lab.hosts[0], "run", "--rm", "--network", "blue", "--ip", far.on(4), IMAGE, "true")
        assert far.on(4) in said
        assert "on host host2" in said


def with_address(lab: Lab, what: str) -> None:
    lab.hosts[0].run(["ip", "addr", what, "10.50.0.200/24", "dev", "eth0"])


class TestNetworksOfEverySort:
    def test_dockers_own_option_names_mean_what_they_mean_there(self, clean_lab: Lab) -> None:
        words = ("--subnet", "10.50.0.0/24", "--gateway", "10.50.0.1", "-o", "parent=eth0", "-o", "macvlan_mode=bridge")
        named = {"com.docker.network.driver.mtu": "1400", "com.docker.network.container_iface_prefix": "lan"}
        more = [word for name, value in named.items() for word in ("-o", f"{name}={value}")]
        for host in clean_lab.hosts:
            host.docker("network", "create", "-d", "spanlan", "--ipam-driver", "spanlan", *words, *more, "blue")
        one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
        assert one.pings(other.address, "-M", "do", "-s", str(1400 - 28))
        assert not one.pings(other.address, "-M", "do", "-s", str(1401 - 28), seconds=1)
        assert set(one.links()) == {"lo", "lan0"}
        assert macvlan_of(one, "lan0")["mtu"] == 1400
        assert macvlan_of(one, "lan0")["linkinfo"]["info_data"]["mode"] == "bridge"

    def test_an_internal_network_has_no_way_out_and_reaches_its_own(self, clean_lab: Lab) -> None:
        with router(clean_lab):
            create_lan(clean_lab.hosts, "blue", "--internal")
            one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
            all_ping_all([one, other])
            assert routes(one) == {("10.50.0.0/24", None, "eth0"), ("fd50::/64", None, "eth0")}
            assert egress_legs(one) == []
            assert not one.pings("10.99.0.250", seconds=1)

    def test_a_link_of_two_addresses_serves_one_container_and_its_router(self, clean_lab: Lab) -> None:
        pair: dict[str, str | None] = {"10.50.9.0/31": "10.50.9.0", "fd50:9::/127": "fd50:9::"}
        with router(clean_lab, pair):
            create_lan(clean_lab.hosts, "blue", subnets=pair)
            only = start(clean_lab.hosts[0], "only", "blue")
            assert (only.address, only.address6) == ("10.50.9.1", "fd50:9::1")
            for address in ("10.50.9.0", "fd50:9::", "10.99.0.250", "fd99::250"):
                assert only.pings(address), address
            said = refusal(clean_lab.hosts[1], "run", "--rm", "--network", "blue", IMAGE, "true")
            assert "no address left" in said

    def test_a_container_is_in_the_subnet_of_its_address_with_that_ones_router(self, clean_lab: Lab) -> None:
        two: dict[str, str | None] = {"10.50.0.0/24": "10.50.0.1", "10.51.0.0/24": "10.51.0.1"}
        with router(clean_lab, two):
            create_lan(clean_lab.hosts, "blue", subnets=two)
            here, there = clean_lab.hosts
            first = start(here, "first", "blue", "--ip", "10.50.0.7")
            second = start(here, "second", "blue", "--ip", "10.51.0.7")
            far = start(there, "far", "blue", "--ip", "10.51.0.8")
            assert routes(first) == {("10.50.0.0/24", None, "eth0"), ("default", "10.50.0.1", "eth0")}
            assert routes(second) == {("10.51.0.0/24", None, "eth0"), ("default", "10.51.0.1", "eth0")}
            assert second.pings(far.address)
            assert first.pings(far.address), "by way of the router"

    def test_hosts_may_have_ranges_of_their_own_and_leave_the_gateway_to_the_cluster(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        subnet: dict[str, str | None] = {"10.50.0.0/24": None}
        create_lan([here], "blue", "--ip-range", "10.50.0.64/27", subnets=subnet)
        create_lan([there], "blue", "--ip-range", "10.50.0.96/27", "--aux-address", "nas=10.50.0.96", subnets=subnet)
        one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
        assert (one.address, other.address) == ("10.50.0.64", "10.50.0.97")
        gateways = {gateway for each in (one, other) for target, gateway, _ in routes(each) if target == "default"}
        assert len(gateways) == 1
        assert one.pings(other.address)

    def test_with_dockers_own_ipam_a_duplicate_is_refused_with_its_holder_and_the_cure(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue", ipam=None)
        first = start(here, "first", "blue")
        said = refusal(there, "run", "-d", "--name", "second", "--network", "blue", IMAGE, "sleep", "60")
        assert f"{first.address} on segment {SEGMENT} is held by endpoint" in said
        assert "on host host1" in said
        assert "--ipam-driver spanlan" in said
        there.docker("rm", "second")
        other = start(there, "other", "blue", "--ip", "10.50.0.99", "--ip6", "fd50::99")
        all_ping_all([first, other])

    def test_addresses_and_a_mac_of_ones_own_are_granted(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue")
        chosen = start_with_mac(here, "chosen", "blue", "02:00:00:00:50:07", "10.50.0.77", "fd50::77")
        assert chosen.addresses() == {"10.50.0.77", "fd50::77"}
        assert mac_of(chosen) == "02:00:00:00:50:07"
        given = start(there, "given", "blue")
        all_ping_all([chosen, given])
        assert given.knows("10.50.0.77") == "02:00:00:00:50:07"

    def test_an_address_that_moves_keeps_its_mac(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue")
        before = start(here, "mover", "blue", "--ip", "10.50.0.77")
        mac = mac_of(before)
        before.remove()
        assert mac_of(start(there, "mover", "blue", "--ip", "10.50.0.77")) == mac


@pytest.fixture(scope="class")
def pair(lab: Lab) -> Iterator[tuple[Container, Container]]:
    """A container on each host, that of the first with addresses of its own choice and a restart policy."""
    with kept_clean(lab):
        create_lan(lab.hosts, "blue")
        far = start(lab.hosts[1], "far", "blue")
        fixed = ("--ip", "10.50.0.99", "--ip6", "fd50::99")
        yield start(lab.hosts[0], "near", "blue", "--restart", "always", *fixed), far


class TestWhatComesBack:
    def test_a_container_is_connected_and_disconnected_while_it_runs(
        self, pair: tuple[Container, Container], lab: Lab
    ) -> None:
        here, (_, far) = lab.hosts[0], pair
        here.docker(
            "run", "-d", "--stop-signal", "KILL", "--name", "mobile", "--network", "none", IMAGE, "sleep", "600"
        )
        here.docker("network", "disconnect", "none", "mobile")
        here.docker("network", "connect", "--ip", "10.50.0.55", "blue", "mobile")
        mobile = running(here, "mobile", "blue")
        assert mobile.address == "10.50.0.55"
        all_ping_all([mobile, far])
        here.docker("network", "disconnect", "blue", "mobile")
        assert set(mobile.links()) == {"lo"}
        assert not far.pings("10.50.0.55", seconds=1)
        assert "10.50.0.55" not in published(lab, SEGMENT)
        mobile.remove()

    def test_a_container_that_is_restarted_talks_again(self, pair: tuple[Container, Container]) -> None:
        near, far = pair
        mac = mac_of(running(near.host, "near", "blue"))
        near.host.docker("restart", "near")
        again = running(near.host, "near", "blue")
        assert again.addresses() == {"10.50.0.99", "fd50::99"}
        assert mac_of(again) == mac
        all_ping_all([again, far])

    def test_a_daemon_that_is_killed_disturbs_nobody_and_serves_new_containers(
        self, pair: tuple[Container, Container]
    ) -> None:
        near, far = (running(each.host, each.name, "blue") for each in pair)
        before = mac_of(near)
        flow = [Pinged(each.host, each.name, "blue", each.address) for each in (near, far)]
        with pinging((flow[0], flow[1]), (flow[1], flow[0])):
            near.host.kill_daemon()
            near.host.start_daemon()
            await_ready(near.host)
            new = start(near.host, "new", "blue")
            all_ping_all([near, far, new])
            new.remove()
        assert mac_of(near) == before

    def test_an_engine_that_is_killed_brings_its_containers_back_and_they_talk(
        self, pair: tuple[Container, Container]
    ) -> None:
        near, far = pair
        near.host.kill_engine()
        near.host.start_engine()
        until(lambda: far.pings("10.50.0.99", seconds=1), seconds=30, what="an answer of the restarted container")
        all_ping_all([running(near.host, "near", "blue"), far])
        new = start(near.host, "newer", "blue")
        all_ping_all([new, far])
        new.remove()


class TestTheEnd:
    def test_networks_that_are_removed_leave_no_link_no_address_and_no_record(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        before = [set(links(host)) for host in clean_lab.hosts]
        said = Log(here)
        create_lan(clean_lab.hosts, "blue")
        at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
        assert len(leftovers(clean_lab)) > 10, "what is looked for below is there now"
        here.docker("rm", "-f", "member")
        here.docker("network", "rm", "blue")
        assert f"{STORE_ROOT}/segments/{SEGMENT}" in clean_lab.store_keys(STORE_ROOT), "the other host still needs it"
        there.docker("rm", "-f", "member")
        there.docker("network", "rm", "blue")
        assert leftovers(clean_lab) == []
        assert [set(links(host)) for host in clean_lab.hosts] == before
        assert set(clean_lab.store_keys("/")) == {f"{STORE_ROOT}/hosts/{host.name}" for host in clean_lab.hosts}
        assert " warning " not in said.text


def test_the_line_for_docker_is_what_the_manual_says() -> None:
    assert lan_line("blue", subnets={"10.50.0.0/24": ROUTERS["10.50.0.0/24"]}) == [
        *("network", "create", "-d", "spanlan", "--ipam-driver", "spanlan", "--subnet", "10.50.0.0/24"),
        *("--gateway", "10.50.0.1", "-o", "mode=macvlan", "-o", "parent=eth0", "blue"),
    ]
