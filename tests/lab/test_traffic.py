"""Containers on three real engines talk to each other, at once and wherever their addresses move."""

import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from lab.containers import (
    SERVER,
    Container,
    at_once,
    create,
    device,
    egress_legs,
    fdb,
    kept_clean,
    neighbours,
    running,
    start,
)
from lab.wire import capture
from spanlan.lab import Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
SUBNETS = ("10.42.0.0/16", "fd42::/64")


@pytest.fixture(scope="module")
def three_hosts(raise_lab: Callable[..., Lab]) -> Iterator[Lab]:
    lab = raise_lab(hosts=3)
    yield lab
    lab.down()


@pytest.fixture
def wide_lab(three_hosts: Lab) -> Iterator[Lab]:
    """The lab of three hosts for one test, which leaves nothing in it."""
    with kept_clean(three_hosts) as lab:
        yield lab


@pytest.fixture(scope="class")
def trio(three_hosts: Lab) -> Iterator[list[Container]]:
    """A container on each host, on one network with both families."""
    with kept_clean(three_hosts) as lab:
        create(lab.hosts, "blue", subnets=SUBNETS)
        yield at_once(lambda host: start(host, "server", "blue", command=SERVER), lab.hosts)


class TestOneNetworkOnThreeHosts:
    @FAMILIES
    def test_each_container_reaches_each_other(self, trio: list[Container], family: int) -> None:
        for one, other in itertools.permutations(trio, 2):
            assert one.pings(other.on(family)), f"{one.host.name} to {other.host.name}"

    @FAMILIES
    def test_tcp_flows_both_ways(self, trio: list[Container], family: int) -> None:
        size = 64 * 1024**2
        for direction in ((), ("--reverse",)):
            said = trio[0].inside("iperf3", "-J", "-c", trio[1].on(family), "-n", str(size), *direction)
            # The count ends with the sender's last byte; what is under way then is missing in it.
            assert json.loads(said)["end"]["sum_received"]["bytes"] >= size / 2

    @FAMILIES
    def test_udp_flows_both_ways(self, trio: list[Container], family: int) -> None:
        for direction in ((), ("--reverse",)):
            udp = ("-u", "-n", "200K", "-b", "10M", *direction)
            end = json.loads(trio[2].inside("iperf3", "-J", "-c", trio[1].on(family), *udp))["end"]["sum"]
            assert end["packets"] > 100
            assert end["lost_packets"] < end["packets"] / 10

    @FAMILIES
    def test_http_is_served_to_another_host(self, trio: list[Container], family: int) -> None:
        address = f"[{trio[2].on(6)}]" if family == 6 else trio[2].on(4)
        command = ("curl", "-sS", "--max-time", "5", f"http://{address}/")
        # With the program of the image, started by docker: the way of users.
        assert trio[0].host.docker("exec", trio[0].name, *command).stdout == "spanlan lab\n"

    @FAMILIES
    def test_a_packet_of_the_mtu_passes_whole_and_one_byte_more_does_not(
        self, trio: list[Container], family: int
    ) -> None:
        mtu = 1500 - 50
        room = mtu - {4: 28, 6: 48}[family]
        one, other = trio[0], trio[1].on(family)
        fragments = fragments_made(one.host)
        assert one.links()["eth0"]["mtu"] == mtu
        assert one.pings(other, "-M", "do", "-s", str(room))
        assert not one.pings(other, "-M", "do", "-s", str(room + 1), seconds=1)
        assert fragments_made(one.host) == fragments

    def test_the_egress_leg_is_there_beside_the_network(self, trio: list[Container]) -> None:
        for container in trio:
            assert len(egress_legs(container)) == 1

    def test_each_host_knows_the_containers_of_the_others_and_only_those(self, trio: list[Container]) -> None:
        macs = {container.host.name: container.links()["eth0"]["address"] for container in trio}
        for here in trio:
            others = [container for container in trio if container is not here]
            addresses = {other.on(family): macs[other.host.name] for other in others for family in (4, 6)}
            assert neighbours(here.host, "blue") == addresses
            assert fdb(here.host, "blue") == {macs[other.host.name]: other.host.address for other in others}

    def test_no_question_for_a_known_address_goes_over_the_wire(self, trio: list[Container]) -> None:
        one, other = trio[0], trio[1]
        with capture(one.host) as wire, flooding_device(one.host, other.host):
            for family in (4, 6):
                one.forget_neighbours()
                other.forget_neighbours()
                assert one.pings(other.on(family))
                # An entry that is due for a check is asked about in unicast: that must stay here, too.
                check_neighbour(one, other.on(family))
                wire.wait_for(f"{one.on(family)} > {other.on(family)}", "echo request")
            # What would show if it were there: a device without proxy asks, in a tunnel to the same port.
            for address in ("10.43.0.2", "fd43::2"):
                one.host.run(["ping", "-c", "1", "-W", "1", address], check=False)
                wire.wait_for("who has" if ":" in address else "who-has", address)
            asked = wire.questions()
            assert {"10.43.0.2", "fd43::2"} <= {word.strip(",") for line in asked for word in line.split()}
            assert [line for line in asked if "10.42." in line or "fd42:" in line] == []


class TestTheFirstPacket:
    def test_it_arrives_ten_times_in_a_row_as_the_first_act_of_a_new_container(self, wide_lab: Lab) -> None:
        here, there, _ = wide_lab.hosts
        create([here, there], "blue", "--internal", subnets=SUBNETS)
        target = start(there, "target", "blue")
        for attempt in range(10):
            address = target.on(4 if attempt % 2 else 6)
            ping = ("ping", "-c", "1", "-W", "1", address)
            said = here.docker("run", "--rm", "--network", "blue", "spanlan-lab:latest", *ping, check=False).stdout
            assert " 1 received," in said, f"attempt {attempt}: {said}"

    def test_the_other_hosts_hold_the_entries_when_docker_run_returns(self, wide_lab: Lab) -> None:
        here, *others = wide_lab.hosts
        create(wide_lab.hosts, "blue", "--internal", subnets=SUBNETS)
        at_once(lambda host: start(host, "member", "blue"), others)
        for number in range(3):
            here.docker("run", "-d", "--name", f"new{number}", "--network", "blue", "spanlan-lab:latest", "sleep", "60")
            seen = [(neighbours(host, "blue"), fdb(host, "blue")) for host in others]
            new = running(here, f"new{number}", "blue")
            mac = new.links()["eth0"]["address"]
            for known, ways in seen:
                assert known.get(new.on(4)) == mac
                assert known.get(new.on(6)) == mac
                assert ways.get(mac) == here.address


class TestMoves:
    def test_an_address_that_moves_is_reached_at_once_by_all_who_remember_it(self, wide_lab: Lab) -> None:
        first, second, third = wide_lab.hosts
        create(wide_lab.hosts, "blue", "--internal", subnets=SUBNETS)
        watchers = at_once(lambda host: start(host, "watcher", "blue"), wide_lab.hosts)
        fixed = ("--ip", "10.42.7.7", "--ip6", "fd42::7:7")
        mover = start(first, "mover", "blue", *fixed)
        for place in (second, third, first):
            for watcher in watchers:
                assert watcher.pings("10.42.7.7")
                assert watcher.pings("fd42::7:7")
            mover.remove()
            remembered = [(watcher.knows("10.42.7.7"), watcher.knows("fd42::7:7")) for watcher in watchers]
            assert all(all(macs) for macs in remembered), "nobody remembers: this would prove nothing"

            mover = start(place, "mover", "blue", *fixed)

            for watcher in watchers:
                where = f"from {watcher.host.name}, after a move to {place.name}"
                assert watcher.pings("10.42.7.7", seconds=1), where
                assert watcher.pings("fd42::7:7", seconds=1), where
            assert mover.pings(watchers[0].on(4), seconds=1)


class TestManyAtOnce:
    def test_twenty_parallel_runs_on_each_of_two_hosts_get_forty_addresses_that_all_answer(self, wide_lab: Lab) -> None:
        hosts = wide_lab.hosts[:2]
        create(hosts, "blue", subnets=("10.42.0.0/16",))
        names = [(host, f"c{number}") for number in range(20) for host in hosts]
        containers = at_once(lambda who: start(*who, "blue"), names)
        addresses = {container.address for container in containers}
        assert len(addresses) == 40
        silent = [container.address for container in containers[1:] if not containers[0].pings(container.address)]
        assert silent == []


class TestUnderlayOfIPv6:
    def test_containers_of_both_families_talk_over_it_at_an_mtu_of_1430(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(hosts=2, ipv6_underlay=True)
        create(lab.hosts, "blue", subnets=SUBNETS)
        one, other = at_once(lambda host: start(host, "server", "blue"), lab.hosts)
        assert device(lab.hosts[0], "blue")["linkinfo"]["info_data"]["local6"] == lab.hosts[0].address6
        assert set(fdb(lab.hosts[0], "blue").values()) == {lab.hosts[1].address6}
        assert one.links()["eth0"]["mtu"] == 1430
        for here, there in ((one, other), (other, one)):
            for family, headers in ((4, 28), (6, 48)):
                assert here.pings(there.on(family))
                assert here.pings(there.on(family), "-M", "do", "-s", str(1430 - headers))
                assert not here.pings(there.on(family), "-M", "do", "-s", str(1431 - headers), seconds=1)


class flooding_device:  # noqa: N801 - used as a verb
    """A tunnel of the old kind between two hosts, beside ours and on the same port: its ARP and ND go over the wire."""

    def __init__(self, here: Host, there: Host) -> None:
        self._here = here
        self._there = there

    def __enter__(self) -> None:
        ends = ("dstport", "4789", "local", self._here.address, "remote", self._there.address)
        self._here.run(["ip", "link", "add", "control", "type", "vxlan", "id", "77", *ends])
        self._here.run(["ip", "addr", "add", "10.43.0.1/24", "dev", "control"])
        self._here.run(["ip", "addr", "add", "fd43::1/64", "dev", "control", "nodad"])
        self._here.run(["ip", "link", "set", "control", "up"])

    def __exit__(self, *_: object) -> None:
        self._here.run(["ip", "link", "del", "control"])


def check_neighbour(container: Container, address: str) -> None:
    """Let a container ask the neighbour that it remembers whether it is still there, and wait for the answer."""
    container.inside("ip", "neigh", "change", address, "dev", "eth0", "nud", "probe")
    look = ("ip", "-j", "neigh", "show", "to", address)
    until(lambda: "REACHABLE" in container.inside(*look), seconds=10, what=f"the answer of {address} to a check")


def fragments_made(host: Host) -> str:
    """How many fragments the host's kernel has made so far."""
    return host.run(["nstat", "-a", "-s", "-z", "IpFragCreates", "Ip6FragCreates"]).stdout
