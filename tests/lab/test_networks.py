"""What ``docker network`` and ``docker run`` offer, on a network that two hosts share."""

import ipaddress
import json
from collections.abc import Iterator

import pytest

from lab.cleanliness import leftovers
from lab.containers import (
    SERVER,
    STORE_ROOT,
    Container,
    at_once,
    create,
    device,
    egress_legs,
    fdb,
    kept_clean,
    line,
    links,
    neighbours,
    pool_of,
    refusal,
    running,
    start,
)
from spanlan.errors import Broken
from spanlan.lab import IMAGE, Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

SUBNETS = ("10.42.0.0/16", "fd42::/64")


def reaches_lan(container: Container, lab: Lab) -> bool:
    """Whether a container gets to the LAN's etcd, which no network of Docker is on."""
    url = f"http://{lab.etcd.endpoint}/version"
    return "etcdserver" in container.inside("curl", "-sS", "--max-time", "3", url, check=False)


class TestAddressesThatUsersChoose:
    def test_ip_and_ip6_are_granted_also_outside_the_range_and_answer(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", "--internal", "--ip-range", "10.42.9.0/24", subnets=SUBNETS)
        chosen = start(here, "chosen", "blue", "--ip", "10.42.200.7", "--ip6", "fd42::c0:ffee")
        given = start(there, "given", "blue")
        assert chosen.addresses() == {"10.42.200.7", "fd42::c0:ffee"}
        assert ipaddress.ip_address(given.on(4)) in ipaddress.ip_network("10.42.9.0/24")
        for family in (4, 6):
            assert given.pings(chosen.on(family))
            assert chosen.pings(given.on(family))

    def test_an_address_of_a_container_on_another_host_is_refused_by_name_of_that_host(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", "--internal", subnets=SUBNETS)
        start(here, "first", "blue", "--ip", "10.42.0.50")
        said = refusal(there, "run", "--rm", "--network", "blue", "--ip", "10.42.0.50", IMAGE, "true")
        assert "10.42.0.50" in said
        assert "endpoint on host host1" in said

    def test_gateway_and_auxiliary_addresses_that_both_hosts_name_are_one_reservation(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        named = ("--gateway", "10.42.0.1", "--aux-address", "router=10.42.0.9")
        create(clean_lab.hosts, "blue", "--internal", *named, subnets=("10.42.0.0/28",))
        for address, use in (("10.42.0.9", "auxiliary address"), ("10.42.0.1", "gateway")):
            said = refusal(here, "run", "--rm", "--network", "blue", "--ip", address, IMAGE, "true")
            assert address in said
            assert f"reserved as {use} by hosts host1, host2" in said
        # As long as one of the two hosts names it, nobody gets it.
        here.docker("network", "rm", "blue")
        said = refusal(there, "run", "--rm", "--network", "blue", "--ip", "10.42.0.9", IMAGE, "true")
        assert "reserved as auxiliary address by host host2" in said

    def test_a_full_pool_says_so_and_serves_again_what_is_released(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", "--internal", subnets=("10.42.0.0/29",))
        taken = [start((here, there)[number % 2], f"c{number}", "blue") for number in range(5)]
        said = refusal(there, "run", "--rm", "--network", "blue", IMAGE, "true")
        assert "no address left" in said
        assert "10.42.0.0/29" in said
        taken[0].remove()
        assert start(there, "late", "blue").address == taken[0].address


class TestPoolsThatNobodyNamed:
    def test_a_second_host_that_names_the_segment_but_no_subnet_gets_the_segments_pool(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        own = ("--internal", "--ipam-opt", "segment=blue")
        create([here], "blue", *own, subnets=("10.42.0.0/16",))
        create([there], "blue", *own)
        assert pool_of(there, "blue") == "10.42.0.0/16"
        one, other = (start(host, "member", "blue") for host in (here, there))
        assert one.address != other.address
        assert one.pings(other.address)

    def test_a_segment_without_any_subnet_gets_one_default_pool_for_both_hosts(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", "--internal", "--ipam-opt", "segment=blue")
        assert pool_of(here, "blue") == pool_of(there, "blue")
        one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
        assert one.pings(other.address)
        assert other.pings(one.address)

    def test_a_host_that_would_get_another_default_pool_is_refused_with_the_way_to_the_segments(
        self, clean_lab: Lab
    ) -> None:
        one, other = clean_lab.hosts
        one.docker(*line("blue"))
        said = refusal(other, *line("blue"))
        assert f"segment blue has {pool_of(one, 'blue')}" in said
        assert "--ipam-opt segment=blue" in said

    def test_default_pools_of_different_networks_never_overlap(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        for name in ("red", "green"):
            create([here], f"{name}1", "--internal", segment=f"{name}1")
            create([there], f"{name}2", "--internal", segment=f"{name}2")
        pools = [pool_of(here, "red1"), pool_of(here, "green1"), pool_of(there, "red2"), pool_of(there, "green2")]
        networks = [ipaddress.ip_network(pool) for pool in pools]
        assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
        start(there, "works", "green2")


class TestDockersOwnIpam:
    def test_a_duplicate_on_another_host_is_refused_with_its_holder_and_the_cure(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        for host in (here, there):
            host.docker("network", "create", "-d", "spanlan", "--subnet", "10.42.0.0/24", "-o", "segment=blue", "blue")
        holder = start(here, "holder", "blue")
        said = refusal(there, "run", "--name", "late", "--network", "blue", IMAGE, "true")
        assert f"address {holder.address} on segment blue is held by endpoint" in said
        assert "on host host1" in said
        assert "--ip" in said
        assert "--ipam-driver spanlan" in said

        other = start(there, "other", "blue", "--ip", "10.42.0.77")  # the first cure

        assert other.pings(holder.address)
        assert holder.pings(other.address)


class TestSegmentsWithOneSubnet:
    def test_they_do_not_see_each_other_though_their_addresses_are_the_same(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        colours = ("red", "green")
        for colour in colours:
            own = ("--internal", "--ipam-opt", f"segment={colour}")
            create(clean_lab.hosts, colour, *own, subnets=("10.42.0.0/24",))
        # .5 is on both segments, on different hosts; .6 is on red alone and .7 on green alone.
        start(here, "red5", "red", "--ip", "10.42.0.5")
        start(there, "green5", "green", "--ip", "10.42.0.5")
        red = start(there, "red6", "red", "--ip", "10.42.0.6")
        green = start(here, "green7", "green", "--ip", "10.42.0.7")

        for one in (red, green):
            assert one.pings("10.42.0.5")
        assert red.knows("10.42.0.5") != green.knows("10.42.0.5")
        assert not red.pings("10.42.0.7", seconds=1)
        assert not green.pings("10.42.0.6", seconds=1)
        assert (
            device(here, "red")["linkinfo"]["info_data"]["id"] != device(here, "green")["linkinfo"]["info_data"]["id"]
        )


class TestTheWayOut:
    def test_an_internal_network_has_none_and_works_inside(self, clean_lab: Lab) -> None:
        create(clean_lab.hosts, "blue", "--internal", subnets=SUBNETS)
        one, other = at_once(lambda host: start(host, "inner", "blue"), clean_lab.hosts)
        for container in (one, other):
            assert egress_legs(container) == []
            assert json.loads(container.inside("ip", "-j", "route", "show", "default")) == []
            assert not reaches_lan(container, clean_lab)
        assert one.pings(other.address)

    def test_other_networks_reach_the_lan(self, clean_lab: Lab) -> None:
        create(clean_lab.hosts, "blue", subnets=SUBNETS)
        for container in at_once(lambda host: start(host, "outgoing", "blue"), clean_lab.hosts):
            assert reaches_lan(container, clean_lab)

    def test_a_published_port_is_told_by_docker_and_answers_the_lan_and_the_other_host(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", subnets=SUBNETS)
        server = start(here, "server", "blue", "-p", "8080:80", command=SERVER)
        assert "0.0.0.0:8080" in here.docker("port", "server", "80/tcp").stdout
        assert "0.0.0.0:8080->80/tcp" in here.docker("ps", "--format", "{{.Ports}}").stdout
        ask = ["curl", "-sS", "--max-time", "5", f"http://{here.address}:8080/"]
        assert there.run(ask).stdout == "spanlan lab\n"
        assert clean_lab.lan.run(ask).stdout == "spanlan lab\n"
        server.remove()
        with pytest.raises(Broken):
            there.run(ask)


class TestRunningContainers:
    def test_a_running_container_is_connected_and_disconnected(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", "--internal", subnets=("10.42.0.0/24",))
        create([here], "green", "--internal", subnets=("10.43.0.0/24",))
        far = start(there, "far", "blue")
        mobile = start(here, "mobile", "green")
        pid = here.docker("inspect", "-f", "{{.State.Pid}}", "mobile").stdout

        for attempt in range(2):
            here.docker("network", "connect", "--ip", f"10.42.0.{77 + attempt}", "blue", "mobile")
            assert f"10.42.0.{77 + attempt}" in mobile.addresses()
            assert mobile.pings(far.address)
            assert far.pings(f"10.42.0.{77 + attempt}")
            assert f"10.42.0.{77 + attempt}" in neighbours(there, "blue")

            here.docker("network", "disconnect", "blue", "mobile")
            assert mobile.addresses() == {mobile.address}
            assert not far.pings(f"10.42.0.{77 + attempt}", seconds=1)
            until(
                lambda: neighbours(there, "blue") == {} and fdb(there, "blue") == {},
                seconds=10,
                what="the other host forgetting the container",
            )
        assert here.docker("inspect", "-f", "{{.State.Pid}}", "mobile").stdout == pid

    @pytest.mark.parametrize("how", ["restart", "stop and start", "kill and start"])
    def test_a_container_that_comes_back_talks_again(self, clean_lab: Lab, how: str) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", subnets=SUBNETS)
        far = start(there, "far", "blue", command=SERVER)
        free, fixed = (start(here, "free", "blue"), start(here, "fixed", "blue", "--ip", "10.42.0.99"))
        assert free.pings(far.address)

        for word in how.split(" and "):
            here.docker(word, "free", "fixed")

        free, fixed = (running(here, name, "blue") for name in ("free", "fixed"))
        assert fixed.address == "10.42.0.99"
        for container in (free, fixed):
            for family in (4, 6):
                assert container.pings(far.on(family))
                assert far.pings(container.on(family))
            answer = container.inside("curl", "-sS", "--max-time", "5", f"http://{far.address}/")
            assert answer == "spanlan lab\n"
        known = {free.on(4), free.on(6), fixed.on(4), fixed.on(6)}
        assert set(neighbours(there, "blue")) == known


class TestTheEnd:
    def test_a_network_that_is_removed_everywhere_leaves_nothing(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        before = [traces(host) for host in clean_lab.hosts]
        create(clean_lab.hosts, "blue", subnets=SUBNETS)
        containers = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
        assert containers[0].pings(containers[1].address)
        assert len(leftovers(clean_lab)) > 10, "what is looked for below is there now"
        mac = containers[1].links()["eth0"]["address"]
        assert mac in here.run(["bridge", "fdb"]).stdout

        for container in containers:
            container.remove()
        until(lambda: neighbours(here, "blue") == {}, seconds=10, what="the end of the neighbours")
        here.docker("network", "rm", "blue")
        assert [traces(here)] == before[:1]
        assert f"{STORE_ROOT}/segments/blue" in clean_lab.store_keys(STORE_ROOT), "the other host still needs it"
        there.docker("network", "rm", "blue")

        assert [traces(host) for host in clean_lab.hosts] == before
        assert leftovers(clean_lab) == []
        assert set(clean_lab.store_keys("/")) == {f"{STORE_ROOT}/hosts/{host.name}" for host in clean_lab.hosts}

    def test_a_container_that_is_removed_leaves_no_address_of_it_in_the_store(self, clean_lab: Lab) -> None:
        here, _ = clean_lab.hosts
        create([here], "blue", subnets=SUBNETS)
        before = set(clean_lab.store_keys(STORE_ROOT))
        start(here, "first", "blue").remove()
        cursors = {key for key in clean_lab.store_keys(STORE_ROOT) if "/cursor/" in key}
        assert set(clean_lab.store_keys(STORE_ROOT)) - cursors == before - cursors
        assert not [name for name in links(here) if name.startswith("sle-")]


@pytest.fixture(scope="class")
def tuned(lab: Lab) -> Iterator[Lab]:
    """A network with an option of every kind, on both hosts, and a container on each."""
    options = {
        "vni": "4242",
        "vxlan_port": "14789",
        "com.docker.network.driver.mtu": "1400",
        "ttl": "7",
        "tos": "16",
        "udp_csum": "false",
        "com.docker.network.container_iface_prefix": "lan",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    with kept_clean(lab):
        create(lab.hosts, "blue", "--internal", *words, subnets=SUBNETS)
        at_once(lambda host: start(host, "member", "blue"), lab.hosts)
        yield lab


class TestOptions:
    def test_they_show_in_the_device_on_both_hosts(self, tuned: Lab) -> None:
        for host in tuned.hosts:
            link = device(host, "blue")
            told = link["linkinfo"]["info_data"]
            wanted = {"id": 4242, "port": 14789, "ttl": 7, "tos": "0x10", "local": host.address, "link": "eth0"}
            assert {name: told.get(name) for name in wanted} == wanted
            assert link["mtu"] == 1400
            assert (told["learning"], told["proxy"], told["udp_csum"]) == (False, True, False)

    def test_they_show_in_the_container_which_talks(self, tuned: Lab) -> None:
        one, other = (running(host, "member", "blue") for host in tuned.hosts)
        assert [name for name in one.links() if name != "lo"] == ["lan0"]
        assert one.links()["lan0"]["mtu"] == 1400
        assert one.pings(other.address, "-M", "do", "-s", str(1400 - 28))
        assert not one.pings(other.address, "-M", "do", "-s", str(1401 - 28), seconds=1)
        assert other.pings(one.on(6))

    @pytest.mark.parametrize(
        ("option", "there"),
        [("vni=4243", "vni 4242"), ("vxlan_port=4789", "vxlan_port 14789"), ("mtu=1300", "mtu 1400")],
    )
    def test_a_value_that_contradicts_the_segments_is_refused_with_both(
        self, tuned: Lab, option: str, there: str
    ) -> None:
        # On the host that has the segment already it would be a second network on it: the same must hold for that.
        for host in tuned.hosts:
            said = refusal(host, *line("other", "-o", option, subnets=("10.44.0.0/24",), segment="blue"))
            assert f"option {option}: segment blue has {there}" in said
            assert "leave the option out" in said

    def test_a_second_network_of_a_host_on_the_segment_must_attach_alike(self, tuned: Lab) -> None:
        host = tuned.hosts[0]
        said = refusal(host, *line("other", "-o", "ttl=9", subnets=SUBNETS, segment="blue"))
        assert "ttl" in said
        assert "segment blue" in said

    def test_the_vni_of_another_segment_is_refused_with_its_name(self, tuned: Lab) -> None:
        said = refusal(tuned.hosts[1], *line("red", "-o", "vni=4242", subnets=("10.44.0.0/24",)))
        assert "option vni=4242" in said
        assert "segment blue" in said
        assert "-o segment=blue" in said


class TestTheUnderlay:
    @pytest.mark.parametrize("parent", ["eth0", "address", "address6"])
    def test_parent_names_it_by_interface_or_by_address(self, clean_lab: Lab, parent: str) -> None:
        for host in clean_lab.hosts:
            value = parent if parent == "eth0" else getattr(host, parent)
            create([host], "blue", "--internal", "-o", f"parent={value}", subnets=SUBNETS)
        one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
        assert one.pings(other.address)
        ends = {host.address6 if parent == "address6" else host.address for host in clean_lab.hosts[1:]}
        assert set(fdb(clean_lab.hosts[0], "blue").values()) == ends
        assert one.links()["eth0"]["mtu"] == (1430 if parent == "address6" else 1450)

    def test_an_mtu_that_does_not_fit_is_refused_with_the_one_that_does(self, clean_lab: Lab) -> None:
        here, _ = clean_lab.hosts
        said = refusal(here, *line("blue", "-o", "mtu=1451", subnets=SUBNETS))
        assert "mtu 1451" in said
        assert "-o mtu=1450" in said
        create([here], "blue", "-o", "mtu=1450", subnets=SUBNETS)

    def test_a_host_whose_underlay_is_too_small_for_the_segment_is_refused(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create([here], "blue", "--internal", subnets=SUBNETS)
        there.run(["ip", "link", "add", "small0", "mtu", "1400", "type", "veth", "peer", "name", "small1"])
        there.run(["ip", "addr", "add", "10.98.0.2/24", "dev", "small0"])
        try:
            said = refusal(there, *line("blue", "-o", "parent=small0", subnets=SUBNETS))
        finally:
            there.run(["ip", "link", "del", "small0"])
        assert "mtu 1450 of segment blue does not fit small0" in said
        assert "-o mtu=1350" in said


class TestWhatIsNotOurs:
    def test_a_foreign_device_with_the_vni_and_port_is_named_and_left_alone(self, clean_lab: Lab) -> None:
        here, _ = clean_lab.hosts
        with foreign(here, vni=5151):
            before = foreign_state(here)
            said = refusal(here, *line("blue", "-o", "vni=5151", subnets=SUBNETS))
            assert "VNI 5151 on port 4789" in said
            assert "theirs0" in said
            assert "-o vni=" in said
            assert foreign_state(here) == before

    def test_links_and_entries_stay_through_create_run_restart_of_the_daemon_and_rm(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        with foreign(here, vni=5151):
            before = foreign_state(here)
            create(clean_lab.hosts, "blue", "--internal", subnets=SUBNETS)
            one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
            assert one.pings(other.address)
            assert foreign_state(here) == before
            here.kill_daemon()
            here.start_daemon()
            late = start(here, "late", "blue")
            assert late.pings(other.address)
            here.stop_daemon()
            here.start_daemon()
            assert start(there, "later", "blue").pings(late.address)
            assert foreign_state(here) == before
            clean_lab.clear()
            until(
                lambda: not [name for name in links(here) if name.startswith("sl")], seconds=10, what="the end of ours"
            )
            assert foreign_state(here) == before

    def test_the_first_free_vni_is_not_one_of_a_foreign_device(self, clean_lab: Lab) -> None:
        here, _ = clean_lab.hosts
        with foreign(here, vni=1_000_000):
            create([here], "blue", "--internal", subnets=SUBNETS)
            assert device(here, "blue")["linkinfo"]["info_data"]["id"] == 1_000_001


class foreign:  # noqa: N801 - used as a word
    """Links and entries of somebody else on a host: a VXLAN device with both tables, and a macvlan with an address."""

    def __init__(self, host: Host, vni: int) -> None:
        self._host = host
        self._vni = vni

    def __enter__(self) -> None:
        ends = ("local", self._host.address, "dstport", "4789", "nolearning", "dev", "eth0")
        for command in (
            ("ip", "link", "add", "theirs0", "type", "vxlan", "id", str(self._vni), *ends),
            ("ip", "link", "add", "theirs1", "link", "eth0", "type", "macvlan", "mode", "bridge"),
            ("ip", "addr", "add", "10.97.0.1/24", "dev", "theirs0"),
            ("ip", "addr", "add", "10.96.0.1/24", "dev", "theirs1"),
            # Without an address that the kernel makes by itself: its detection of duplicates shows, and ends meanwhile.
            ("ip", "link", "set", "theirs0", "addrgenmode", "none"),
            ("ip", "link", "set", "theirs1", "addrgenmode", "none"),
            ("ip", "link", "set", "theirs0", "up"),
            ("ip", "link", "set", "theirs1", "up"),
            ("bridge", "fdb", "append", "02:00:00:00:00:51", "dev", "theirs0", "dst", "10.99.0.2"),
            ("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "theirs0", "dst", "10.99.0.2"),
            ("ip", "neigh", "add", "10.97.0.2", "lladdr", "02:00:00:00:00:51", "dev", "theirs0", "nud", "permanent"),
            ("ip", "neigh", "add", "10.96.0.2", "lladdr", "02:00:00:00:00:52", "dev", "theirs1", "nud", "permanent"),
            # Even what looks like ours, an entry of the segment's subnet, is theirs on their device.
            ("ip", "neigh", "add", "10.42.0.2", "lladdr", "02:00:00:00:00:53", "dev", "theirs0", "nud", "permanent"),
        ):
            self._host.run(command)

    def __exit__(self, *_: object) -> None:
        for name in ("theirs0", "theirs1"):
            self._host.run(["ip", "link", "del", name])


def foreign_state(host: Host) -> list[str]:
    """The foreign links of a host with all that is on them, as text."""
    told = []
    for name in ("theirs0", "theirs1"):
        told += host.run(["ip", "-d", "addr", "show", "dev", name]).stdout.splitlines()
        told += sorted(host.run(["bridge", "fdb", "show", "dev", name]).stdout.splitlines())
        permanent = ("ip", "neigh", "show", "dev", name, "nud", "permanent")
        told += sorted(host.run(permanent).stdout.splitlines())
    return told


def traces(host: Host) -> dict[str, object]:
    """Links, permanent neighbours and FDB entries with a destination: what a network could leave on a host.

    The bridge of the way out is Docker's, which keeps it.
    """
    return {
        "links": {name for name in links(host) if name != "docker_gwbridge"},
        "neighbours": set(host.run(["ip", "neigh", "show", "nud", "permanent"]).stdout.splitlines()),
        "fdb": {entry for entry in host.run(["bridge", "fdb"]).stdout.splitlines() if " dst " in entry},
    }
