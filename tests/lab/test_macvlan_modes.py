"""macvlan's other modes, several networks on one NIC, and a network without any: what the kernel makes of them."""

from collections.abc import Callable, Iterator

import pytest

from lab.cleanliness import leftovers
from lab.containers import Container, at_once, kept_clean, links, refusal, running, start
from lab.faults import published
from lab.lan_networks import (
    all_ping_all,
    create_lan,
    lan_line,
    mac_of,
    macvlan_of,
    pings,
    reflecting,
    second_nic,
    start_with_mac,
)
from lab.wire import capture
from spanlan.lab import IMAGE, Lab

Trio = Callable[[str], list[Container]]


@pytest.fixture
def trio(clean_lab: Lab) -> Trio:
    """Two containers on the first host and one on the second, on a network of the given mode."""

    def make(mode: str) -> list[Container]:
        create_lan(clean_lab.hosts, "blue", "-o", f"macvlan_mode={mode}")
        places = [(clean_lab.hosts[0], "one"), (clean_lab.hosts[0], "beside"), (clean_lab.hosts[1], "far")]
        return at_once(lambda place: start(*place, "blue"), places)

    return make


class TestPrivate:
    def test_containers_of_one_host_are_apart_even_with_a_reflecting_switch_and_those_of_two_hosts_talk(
        self, trio: Trio, clean_lab: Lab
    ) -> None:
        one, beside, far = trio("private")
        assert macvlan_of(one)["linkinfo"]["info_data"]["mode"] == "private"
        for family in (4, 6):
            assert one.pings(far.on(family))
            assert far.pings(beside.on(family))
            assert not one.pings(beside.on(family), seconds=1)
        with reflecting(clean_lab, clean_lab.hosts[0]):
            one.forget_neighbours()
            assert not one.pings(beside.address, seconds=1)


class TestVepa:
    def test_containers_of_one_host_talk_by_way_of_the_switch_if_that_sends_back(
        self, trio: Trio, clean_lab: Lab
    ) -> None:
        one, beside, far = trio("vepa")
        assert macvlan_of(one)["linkinfo"]["info_data"]["mode"] == "vepa"
        for family in (4, 6):
            assert one.pings(far.on(family))
            assert far.pings(one.on(family))
            assert not one.pings(beside.on(family), seconds=1), "over a plain switch"
        with reflecting(clean_lab, clean_lab.hosts[0]), capture(clean_lab.hosts[0]) as wire:
            for family in (4, 6):
                one.forget_neighbours()
                assert one.pings(beside.on(family))
                wire.wait_for(f"{one.on(family)} > {beside.on(family)}", "echo request")


class TestPassthru:
    def test_one_container_alone_has_the_nic_with_its_mac_and_nobody_gets_in_beside(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        with second_nic(clean_lab, here):
            create_lan([here], "blue", "-o", "macvlan_mode=passthru", parent="eth1")
            create_lan([there], "blue")  # the LAN is one, whatever the other host puts its containers on
            far = start(there, "far", "blue")
            only = start(here, "only", "blue")
            all_ping_all([only, far])
            assert macvlan_of(only)["linkinfo"]["info_data"]["mode"] == "passthru"
            assert mac_of(only) == links(here)["eth1"]["address"]

            said = refusal(here, "run", "--name", "second", "--network", "blue", IMAGE, "true")
            assert "eth1 belongs to" in said
            assert "alone (passthru): give another -o parent=" in said
            here.docker("rm", "second")
            first = here.docker("network", "inspect", "-f", "{{.Id}}", "blue").stdout[:12]
            for mode in ("bridge", "passthru"):
                line = lan_line("green", "-o", f"macvlan_mode={mode}", parent="eth1", subnets={"10.51.0.0/24": None})
                said = refusal(here, *line)
                assert f"eth1 is used by network {first} (macvlan passthru)" in said
                assert "passthru takes a NIC for one network alone" in said
            assert only.pings(far.address)

            only.remove()
            assert start(here, "next", "blue").pings(far.address), "the NIC is free again"
            clean_lab.clear()
            assert links(here)["eth1"]["promiscuity"] == 0

    def test_a_mac_of_ones_own_is_refused_for_it_is_the_nics(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        with second_nic(clean_lab, here):
            create_lan([here], "blue", "-o", "macvlan_mode=passthru", parent="eth1")
            before = links(here)["eth1"]["address"]
            with pytest.raises(Exception, match=r"--mac-address 02:00:00:00:50:01.*MAC of its parent"):
                start_with_mac(here, "vain", "blue", "02:00:00:00:50:01")
            assert links(here)["eth1"]["address"] == before
            clean_lab.clear()

    def test_it_does_not_take_a_nic_that_another_network_uses(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create_lan([here], "blue")
        said = refusal(here, *lan_line("green", "-o", "macvlan_mode=passthru", subnets={"10.51.0.0/24": None}))
        assert "option macvlan_mode=passthru: eth0 is used by network" in said
        assert "(macvlan bridge)" in said
        assert "choose another parent or another mode" in said


class TestSeveralNetworksOnOneNic:
    def test_they_work_side_by_side_and_go_one_by_one(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue")
        create_lan(clean_lab.hosts, "green", subnets={"10.51.0.0/24": "10.51.0.1", "fd51::/64": "fd51::1"})
        places = [(host, name) for host in clean_lab.hosts for name in ("blue", "green")]
        blue, green, far_blue, far_green = at_once(lambda place: start(place[0], f"in-{place[1]}", place[1]), places)
        all_ping_all([blue, far_blue])
        all_ping_all([green, far_green])
        assert not blue.pings(green.address, seconds=1), "they are two subnets, and there is no router"

        for container in (green, far_green):
            container.remove()
        for host in (here, there):
            host.docker("network", "rm", "green")
        blue.forget_neighbours()
        all_ping_all([blue, far_blue])
        assert [key for key in clean_lab.store_keys("/") if "10.51." in key or "fd51" in key] == []
        assert start(here, "later", "blue").pings(far_blue.address)

    def test_a_container_may_be_on_two_of_them_and_leave_one(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue")
        create_lan(clean_lab.hosts, "green", subnets={"10.51.0.0/24": "10.51.0.1"})
        both, far = start(here, "both", "green"), start(there, "far", "blue")
        here.docker("network", "connect", "blue", "both")
        assert set(both.links()) == {"lo", "eth0", "eth1"}
        all_ping_all([running(here, "both", "blue"), far])
        here.docker("network", "disconnect", "green", "both")
        assert set(both.links()) == {"lo", "eth1"}
        all_ping_all([running(here, "both", "blue"), far])

    def test_networks_of_two_modes_share_it_too(self, clean_lab: Lab) -> None:
        # In the kernel a macvlan mode belongs to the child, not to the parent.
        here, there = clean_lab.hosts
        create_lan([here], "blue")
        create_lan([here], "green", "-o", "macvlan_mode=private", subnets={"10.51.0.0/24": "10.51.0.1"})
        one, beside = (start(here, name, "blue") for name in ("one", "beside"))
        alone, apart = (start(here, name, "green") for name in ("alone", "apart"))
        all_ping_all([one, beside])
        assert not alone.pings(apart.address, seconds=1)
        assert not pings(there, one.address, seconds=1)


@pytest.fixture(scope="class")
def islands(lab: Lab) -> Iterator[list[Container]]:
    """Two containers on each host, on networks of one name that have no parent."""
    with kept_clean(lab):
        create_lan(lab.hosts, "blue", parent=None, ipam=None)
        places = [(host, name) for host in lab.hosts for name in ("one", "other")]
        yield [start(*place, "blue") for place in places]


class TestWithoutParent:
    def test_containers_of_one_host_talk_and_none_leaves_it(self, islands: list[Container]) -> None:
        one, other, *_ = islands
        with capture(one.host) as wire:
            all_ping_all([one, other])
            assert not one.pings("10.50.0.99", seconds=1)
            assert pings(one.host, "10.99.0.250")
            wire.wait_for("10.99.0.250", "echo reply")
            assert wire.lines("10.50.0.") + wire.lines("fd50:") == []

    def test_hosts_share_no_addresses(self, islands: list[Container], lab: Lab) -> None:
        assert [each.address for each in islands[:2]] == [each.address for each in islands[2:]]
        segments = {key.split("/")[4] for key in lab.store_keys("/spanlan/v1/segments/")}
        assert len(segments) == 2
        assert all(name.startswith("isolated.") for name in segments)
        for name in segments:
            assert len(set(published(lab, name).values())) == 1

    def test_there_is_no_default_route_and_no_leg(self, islands: list[Container]) -> None:
        for container in islands:
            assert set(container.links()) == {"lo", "eth0"}
            assert "default" not in container.inside("ip", "route") + container.inside("ip", "-6", "route")


class TestTheLinkBelowANetworkWithoutParent:
    def test_it_goes_with_the_network(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create_lan([here], "blue", parent=None)
        below = [name for name in links(here) if name.startswith("sli-")]
        assert len(below) == 1
        start(here, "member", "blue")
        here.docker("rm", "-f", "member")
        here.docker("network", "rm", "blue")
        assert not set(below) & set(links(here))
        assert leftovers(clean_lab) == []

    def test_it_is_put_back_for_new_containers_when_it_was_deleted_by_hand(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create_lan([here], "blue", parent=None)
        (below,) = (name for name in links(here) if name.startswith("sli-"))
        start(here, "lost", "blue")
        here.run(["ip", "link", "del", below])
        one = start(here, "one", "blue")
        here.docker("restart", "lost")
        all_ping_all([one, running(here, "lost", "blue")])
