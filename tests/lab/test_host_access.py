"""A host and its own containers on macvlan reach each other with ``-o host_access=true``, and only with it."""

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.cleanliness import leftovers
from lab.containers import SERVER, Container, at_once, kept_clean, links, refusal, running, start
from lab.faults import Container as Pinged
from lab.faults import Log, await_ready, pinging, published, status
from lab.lan_networks import ROUTERS, all_ping_all, create_lan, lan_line, our_routes, pings, reflecting, router
from spanlan.lab import Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

ACCESS = ("-o", "host_access=true")
RANGES = ("--ip-range", "10.50.0.64/26", "--ip-range", "fd50::1:0/112")
HOSTS_OWN: dict[str, str | None] = {"10.99.0.0/24": "10.99.0.250", "fd99::/64": "fd99::250"}
HOSTS_OWN_RANGES = ("--ip-range", "10.99.0.64/26", "--ip-range", "fd99::1:0/112")


def own_link(host: Host) -> str:
    """The name of the host's own child; there must be one."""
    (name,) = (name for name in links(host) if name.startswith("slh-"))
    return name


def own_addresses(host: Host) -> dict[int, str]:
    """The addresses of the host's own child, by family."""
    told = json.loads(host.run(["ip", "-j", "addr", "show", "dev", own_link(host), "scope", "global"]).stdout)
    found = [entry["local"] for entry in told[0]["addr_info"]]
    assert len(found) == 2, found
    return {6 if ":" in address else 4: address for address in found}


@dataclass(frozen=True, slots=True)
class Reached:
    """Two hosts with a container each, and the hosts' own addresses."""

    lab: Lab
    near: Container
    far: Container
    host: dict[int, str]
    other_host: dict[int, str]


def reach(lab: Lab) -> Reached:
    near, far = at_once(lambda host: start(host, "server", "blue", command=SERVER), lab.hosts)
    return Reached(lab, near, far, *(own_addresses(host) for host in lab.hosts))


@pytest.fixture(scope="class", params=["another subnet", "the hosts' own subnet"])
def reached(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Reached]:
    """A network with host access on both hosts, in a subnet that is or is not that of the hosts' NICs."""
    own = request.param == "the hosts' own subnet"
    with kept_clean(lab):
        if own:
            create_lan(lab.hosts, "blue", *ACCESS, *HOSTS_OWN_RANGES, subnets=HOSTS_OWN)
            yield reach(lab)
        else:
            with router(lab):
                create_lan(lab.hosts, "blue", *ACCESS, *RANGES)
                yield reach(lab)


FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


class TestBothWays:
    @FAMILIES
    def test_the_host_pings_its_container_and_is_pinged_by_it(self, reached: Reached, family: int) -> None:
        for container, host in ((reached.near, reached.host), (reached.far, reached.other_host)):
            assert pings(container.host, container.on(family))
            assert container.pings(host[family])

    @FAMILIES
    def test_the_host_is_served_by_its_container(self, reached: Reached, family: int) -> None:
        address = f"[{reached.near.on(6)}]" if family == 6 else reached.near.on(4)
        said = reached.near.host.run(["curl", "-sS", "--max-time", "5", f"http://{address}/"]).stdout
        assert said == "spanlan lab\n"

    @FAMILIES
    def test_a_container_of_the_other_host_reaches_it_too_and_it_that_container(
        self, reached: Reached, family: int
    ) -> None:
        assert reached.far.pings(reached.host[family])
        assert pings(reached.near.host, reached.far.on(family))

    @FAMILIES
    def test_the_hosts_reach_each_other_by_these_addresses(self, reached: Reached, family: int) -> None:
        assert pings(reached.near.host, reached.other_host[family])
        assert pings(reached.near.host, {4: reached.far.host.address, 6: reached.far.host.address6}[family])

    def test_containers_talk_to_each_other_as_ever(self, reached: Reached) -> None:
        all_ping_all([reached.near, reached.far])

    def test_the_hosts_addresses_are_of_the_range_and_of_nobody_else(self, reached: Reached) -> None:
        ranges = [ipaddress.ip_network(each) for each in (*RANGES[1::2], *HOSTS_OWN_RANGES[1::2])]
        given = [*reached.host.values(), *reached.other_host.values(), *reached.near.addresses()]
        assert len(set(given)) == 6
        for address in given:
            assert any(ipaddress.ip_address(address) in each for each in ranges), address
        segment = next(iter({key.split("/")[4] for key in reached.lab.store_keys("/spanlan/v1/segments/")}))
        holders = published(reached.lab, segment)
        assert {holders[address] for address in reached.host.values()} == {"host1"}

    def test_it_uses_no_leg_of_dockers_own(self, reached: Reached) -> None:
        assert set(reached.near.links()) == {"lo", "eth0"}

    def test_a_new_container_is_reached_at_once_and_its_route_goes_with_it(self, reached: Reached) -> None:
        host = reached.near.host
        before = our_routes(host)
        new = start(host, "new", "blue")
        assert pings(host, new.on(4), seconds=1)
        assert pings(host, new.on(6), seconds=1)
        new.remove()
        until(lambda: our_routes(host) == before, seconds=10, what="the end of the container's routes")


class TestTheHostsOwnSubnet:
    def test_containers_reach_the_host_by_its_ordinary_ipv4_address_too(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create_lan([here], "blue", *ACCESS, *HOSTS_OWN_RANGES, subnets=HOSTS_OWN)
        own = start(here, "own", "blue")
        assert own.pings(here.address)
        assert own.pings("10.99.0.2"), "the other host"
        # And nobody on the LAN is told a wrong MAC for it.
        clean_lab.hosts[1].run(["ip", "neigh", "flush", "dev", "eth0"])
        assert pings(clean_lab.hosts[1], here.address)
        known = json.loads(clean_lab.hosts[1].run(["ip", "-j", "neigh", "show", "to", here.address]).stdout)
        assert known[0]["lladdr"] == here.mac


class TestWhatHappensToIt:
    @pytest.fixture
    def one(self, clean_lab: Lab) -> Container:
        create_lan(clean_lab.hosts, "blue", *ACCESS)
        return start(clean_lab.hosts[0], "one", "blue")

    def test_it_goes_with_the_network_and_its_address_is_free_again(self, clean_lab: Lab, one: Container) -> None:
        here, there = clean_lab.hosts
        address, name = own_addresses(here), own_link(here)
        assert our_routes(here) != []
        one.remove()
        here.docker("network", "rm", "blue")
        assert name not in links(here)
        assert our_routes(here) == []
        heir = start(there, "heir", "blue", "--ip", address[4], "--ip6", address[6])
        assert heir.addresses() == set(address.values())
        heir.remove()
        there.docker("network", "rm", "blue")
        assert leftovers(clean_lab) == []
        assert our_routes(there) == []

    def test_a_daemon_that_is_stopped_or_killed_disturbs_it_not(self, clean_lab: Lab, one: Container) -> None:
        here, there = clean_lab.hosts
        far = start(there, "far", "blue")
        index, address = links(here)[own_link(here)]["ifindex"], own_addresses(here)
        flow = Pinged(far.host, "far", "blue", far.address), Pinged(here, "itself", "blue", address[4])
        with pinging(flow):
            for end in (here.stop_daemon, here.kill_daemon):
                end()
                assert pings(here, one.on(4)), "without a daemon"
                here.start_daemon()
                await_ready(here)
                assert pings(here, one.on(6))
        assert links(here)[own_link(here)]["ifindex"] == index
        assert own_addresses(here) == address
        new = start(here, "new", "blue")
        assert pings(here, new.on(4))

    def test_it_is_put_back_when_it_was_deleted_by_hand(self, clean_lab: Lab, one: Container) -> None:
        here = clean_lab.hosts[0]
        name, address, before = own_link(here), own_addresses(here), our_routes(here)
        said = Log(here)
        here.run(["ip", "link", "del", name])
        until(lambda: pings(here, one.on(4), seconds=1), seconds=10, what="an answer by a new link")
        said.await_line(f"device {name} was removed by somebody else")
        assert own_addresses(here) == address
        until(lambda: our_routes(here) == before, seconds=10, what="all routes being back")
        assert one.pings(address[6])

    def test_addresses_and_routes_that_were_deleted_by_hand_are_put_back(self, clean_lab: Lab, one: Container) -> None:
        here = clean_lab.hosts[0]
        before, address = our_routes(here), own_addresses(here)
        here.run(["ip", "route", "del", one.on(4), "proto", "90"])
        until(lambda: our_routes(here) == before, seconds=10, what="the route being back")
        here.run(["ip", "addr", "del", f"{address[4]}/32", "dev", own_link(here)])
        until(lambda: pings(here, one.on(4), seconds=1), seconds=10, what="an answer to the address that is back")
        assert own_addresses(here) == address
        assert our_routes(here) == before

    def test_it_survives_its_containers_restart(self, clean_lab: Lab, one: Container) -> None:
        here = clean_lab.hosts[0]
        here.docker("restart", "one")
        again = running(here, "one", "blue")
        assert pings(here, again.on(4))
        assert again.pings(own_addresses(here)[6])

    def test_it_is_there_again_after_the_host_has_crashed_and_booted(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue", *ACCESS)
        start(here, "one", "blue", "--restart", "always")
        far, address = start(there, "far", "blue"), own_addresses(here)
        here.crash()
        here.boot()
        told = ("ps", "--format", "{{.Names}}")
        until(lambda: here.docker(*told).stdout.strip() == "one", seconds=40, what="the container running again")
        again = running(here, "one", "blue")
        all_ping_all([again, far])
        assert own_addresses(here) == address
        assert pings(here, again.on(4))
        assert far.pings(address[6])


class TestManyContainers:
    def test_each_of_many_that_come_and_go_at_once_is_reached_by_its_host(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue", *ACCESS)
        places = [(host, number) for number in range(4) for host in (here, there)]
        at_once(lambda place: start(place[0], f"c{place[1]}", "blue"), places)
        at_once(lambda number: here.docker("rm", "-f", f"c{number}"), (0, 1))
        for host in (here, there):
            assert all(pings(host, running(here, f"c{number}", "blue").on(6)) for number in (2, 3))
            assert all(pings(host, running(there, f"c{number}", "blue").on(4)) for number in range(4))
        blocks = [ipaddress.ip_network(each) for each in our_routes(here) if each not in ROUTERS]
        own = {running(here, f"c{number}", "blue").on(family) for number in (2, 3) for family in (4, 6)}
        assert sum(block.num_addresses for block in blocks) == len(own)
        assert all(any(ipaddress.ip_address(address) in block for block in blocks) for address in own)


class TestVepa:
    def test_the_host_and_its_container_meet_at_a_switch_that_sends_back(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create_lan([here], "blue", *ACCESS, "-o", "macvlan_mode=vepa")
        one = start(here, "one", "blue")
        assert not pings(here, one.address, seconds=1)
        with reflecting(clean_lab, here):
            assert pings(here, one.address)
            assert one.pings(own_addresses(here)[6])


class TestAnAddressOfOnesOwn:
    def test_the_host_gets_the_one_that_was_named(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        for host, address in ((here, "10.50.0.200"), (there, "10.50.0.201")):
            create_lan([host], "blue", "-o", f"host_access={address}", subnets={"10.50.0.0/24": "10.50.0.1"})
        one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
        assert pings(here, one.address)
        for container in (one, other):
            assert container.pings("10.50.0.200")
            assert container.pings("10.50.0.201")

    def test_one_that_is_taken_is_refused_with_its_holder_and_leaves_nothing(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan([there], "blue")
        holder = start(there, "holder", "blue")
        said = refusal(here, *lan_line("blue", "-o", f"host_access={holder.address}"))
        assert holder.address in said
        assert "on host host2" in said
        assert not [name for name in links(here) if name.startswith("slh-")]
        assert our_routes(here) == []

    @pytest.mark.parametrize(
        ("address", "why"), [("10.60.0.1", "in no subnet of the network"), ("10.50.0.1", "gateway of the network")]
    )
    def test_one_that_cannot_be_the_hosts_is_refused(self, clean_lab: Lab, address: str, why: str) -> None:
        said = refusal(clean_lab.hosts[0], *lan_line("blue", "-o", f"host_access={address}"))
        assert f"option host_access={address}: " in said
        assert why in said

    def test_a_second_network_of_the_host_on_the_segment_is_refused_it(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create_lan([here], "blue", "-o", "segment=lan")
        said = refusal(here, *lan_line("green", *ACCESS, "-o", "segment=lan", "--ipam-opt", "segment=lan"))
        assert "option host_access=true: network" in said
        assert "is on segment lan already" in said

    def test_dockers_own_ipam_leaves_it_the_last_of_the_subnet(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create_lan(clean_lab.hosts, "blue", *ACCESS, ipam=None)
        assert {own_addresses(host)[4] for host in (here, there)} == {"10.50.0.254", "10.50.0.253"}
        one = start(here, "one", "blue")
        assert pings(here, one.on(4))
        assert pings(here, one.on(6))


class TestStatus:
    def test_it_says_how_many_routes_there_are_and_that_all_is_well(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create_lan([here], "blue", *ACCESS)
        start(here, "one", "blue")
        (segment,) = status(here)["segments"]
        assert segment["mode"] == "macvlan"
        assert segment["trouble"] is None
        assert segment["routes"] == len(our_routes(here))
