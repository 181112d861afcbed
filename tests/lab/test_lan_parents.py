"""The NIC under a LAN network: how it is named on each host, and what happens to it while the network is there."""

from collections.abc import Iterator

import pytest

from lab.containers import IMAGE, Container, at_once, links, refusal, running, start
from lab.faults import Log, await_ready, status
from lab.lan_networks import (
    all_ping_all,
    create_lan,
    lan_line,
    macvlan_of,
    pings,
    plug_in,
    second_nic,
    unplug,
)
from spanlan.lab import Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host


def parent_of(container: Container) -> str:
    """The name of the NIC that a container's interface sits on."""
    index = macvlan_of(container)["link_index"]
    (name,) = (name for name, link in links(container.host).items() if link["ifindex"] == index)
    return name


def trouble(host: Host) -> str:
    """What the daemon's status says is wrong with the host's only segment."""
    (segment,) = status(host)["segments"]
    return segment["trouble"] or ""


def await_trouble(host: Host, words: str) -> None:
    until(lambda: words in trouble(host), seconds=10, what=f"{words!r} in the status")


def await_health(host: Host) -> None:
    until(lambda: trouble(host) == "", seconds=40, what="a status without trouble")


class restarted_with:  # noqa: N801 - used as a verb
    """The daemons of these hosts run with other settings meanwhile."""

    def __init__(self, *settings: tuple[Host, dict[str, str]]) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        for host, environment in self._settings:
            host.stop_daemon()
            host.start_daemon(environment)
            await_ready(host)

    def __exit__(self, *_: object) -> None:
        for host, _environment in self._settings:
            host.stop_daemon()
            host.start_daemon()


class TestNames:
    def test_auto_is_where_the_default_route_points(self, clean_lab: Lab) -> None:
        with second_nic(clean_lab, clean_lab.hosts[0]):
            create_lan(clean_lab.hosts, "blue", parent="auto")
            one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
            assert parent_of(one) == parent_of(other) == "eth0"
            all_ping_all([one, other])

    def test_auto_without_a_default_route_is_refused_with_the_cure(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        told = [here.run(["ip", family, "route", "show", "default"]).stdout.split() for family in ("-4", "-6")]
        for family, words in zip(("-4", "-6"), told, strict=True):
            here.run(["ip", family, "route", "del", *words[:5]])
        try:
            said = refusal(here, *lan_line("blue", parent="auto"))
        finally:
            for family, words in zip(("-4", "-6"), told, strict=True):
                here.run(["ip", family, "route", "add", *words[:5]])
        assert "there is no default route that would show the parent" in said
        assert "-o parent=" in said

    def test_an_alias_is_each_hosts_own_word_for_a_nic(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        aliases = [(here, {"SPANLAN_PARENTS": "lan=eth0"}), (there, {"SPANLAN_PARENTS": "spare=eth0,lan=eth1"})]
        with second_nic(clean_lab, there), restarted_with(*aliases):
            create_lan(clean_lab.hosts, "blue", parent="lan")
            one, other = at_once(lambda host: start(host, "member", "blue"), clean_lab.hosts)
            assert (parent_of(one), parent_of(other)) == ("eth0", "eth1")
            all_ping_all([one, other])
            said = refusal(there, *lan_line("green", parent="lam", subnets={"10.51.0.0/24": None}))
            assert "option parent=lam: this host has no interface lam; there are " in said
            assert "lan for eth1, spare for eth0" in said
            clean_lab.clear()

    def test_one_that_is_missing_is_answered_with_those_that_are_there(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        with second_nic(clean_lab, here, name="storage0"):
            said = refusal(here, *lan_line("blue", parent="eth7"))
        assert "option parent=eth7: this host has no interface eth7" in said
        assert "eth0" in said.partition("there are")[2]
        assert "storage0" in said.partition("there are")[2]
        assert "SPANLAN_PARENTS" in said


@pytest.fixture
def near_far(clean_lab: Lab) -> Iterator[tuple[Container, Container]]:
    """A container on the second NIC of the first host, and one on the other host."""
    here, there = clean_lab.hosts
    with second_nic(clean_lab, here):
        create_lan([here], "blue", parent="eth1")
        create_lan([there], "blue")
        places = [(here, "near"), (there, "far")]
        near, far = at_once(lambda place: start(*place, "blue"), places)
        all_ping_all([near, far])
        yield near, far
        clean_lab.clear()


Pair = tuple[Container, Container]


class TestWhatHappensToTheNic:
    def test_down_is_reported_and_up_makes_all_well(self, near_far: Pair) -> None:
        near, far = near_far
        said = Log(near.host)
        near.host.run(["ip", "link", "set", "eth1", "down"])
        said.await_line("the parent eth1 is down: ip link set eth1 up")
        await_trouble(near.host, "the parent eth1 is down")
        message = refusal(near.host, "run", "--name", "new", "--network", "blue", IMAGE, "true")
        assert "its parent eth1 is down: ip link set eth1 up" in message
        near.host.run(["ip", "link", "set", "eth1", "up"])
        await_health(near.host)
        assert near.pings(far.address), "the one that ran all the while"
        near.host.docker("rm", "new")
        all_ping_all([start(near.host, "new", "blue"), far])

    def test_a_new_mtu_is_that_of_containers_started_afterwards(self, near_far: Pair) -> None:
        near, far = near_far
        near.host.run(["ip", "link", "set", "eth1", "mtu", "1400"])
        small = start(near.host, "small", "blue")
        assert macvlan_of(small)["mtu"] == 1400
        assert macvlan_of(near)["mtu"] == 1400, "the kernel shrinks those that run"
        all_ping_all([small, far])
        near.host.run(["ip", "link", "set", "eth1", "mtu", "1500"])
        whole = start(near.host, "whole", "blue")
        assert macvlan_of(whole)["mtu"] == 1500
        assert whole.pings(far.address, "-M", "do", "-s", str(1500 - 28))

    def test_an_mtu_that_the_nic_has_no_longer_is_told_when_a_container_starts(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        with second_nic(clean_lab, here):
            create_lan([here], "blue", "-o", "mtu=1450", parent="eth1")
            here.run(["ip", "link", "set", "eth1", "mtu", "1400"])
            said = refusal(here, "run", "--rm", "--network", "blue", IMAGE, "true")
            assert "an MTU of 1450 does not fit on eth1, which has 1400" in said
            assert "raise the MTU of the NIC" in said
            here.run(["ip", "link", "set", "eth1", "mtu", "1500"])
            assert macvlan_of(start(here, "fits", "blue"))["mtu"] == 1450
            clean_lab.clear()

    def test_a_renamed_one_is_reported_with_its_new_name_and_found_again_under_the_old(self, near_far: Pair) -> None:
        near, far = near_far
        said = Log(near.host)
        near.host.run(["ip", "link", "set", "eth1", "down"])
        near.host.run(["ip", "link", "set", "eth1", "name", "lan7"])
        near.host.run(["ip", "link", "set", "lan7", "up"])
        said.await_line("the parent eth1 is called lan7 now")
        assert near.pings(far.address), "the one that ran all the while"
        message = refusal(near.host, "run", "--name", "new", "--network", "blue", IMAGE, "true")
        assert "eth1 is called lan7 now" in message
        assert "altname eth1" in message
        near.host.docker("rm", "new")
        near.host.run(["ip", "link", "property", "add", "dev", "lan7", "altname", "eth1"])
        await_health(near.host)
        new = start(near.host, "new", "blue")
        assert parent_of(new) == "lan7"
        all_ping_all([new, near, far])

    def test_one_that_is_deleted_is_reported_and_serves_again_when_it_is_back(
        self, near_far: Pair, clean_lab: Lab
    ) -> None:
        near, far = near_far
        said = Log(near.host)
        unplug(clean_lab, near.host)
        said.await_line("the parent eth1 is not there")
        await_trouble(near.host, "the parent eth1 is not there")
        message = refusal(near.host, "run", "--name", "new", "--network", "blue", IMAGE, "true")
        assert "eth1 is not there" in message
        near.host.docker("rm", "new")
        plug_in(clean_lab, near.host)
        new = start(near.host, "new", "blue")
        all_ping_all([new, far])
        await_health(near.host)
        assert set(near.links()) == {"lo"}, "its interface went with the NIC"
        near.host.docker("restart", "near")
        all_ping_all([running(near.host, "near", "blue"), new, far])

    def test_a_host_that_starts_without_it_serves_once_it_is_there(self, near_far: Pair, clean_lab: Lab) -> None:
        near, far = near_far
        unplug(clean_lab, near.host)
        near.host.kill_daemon()
        near.host.start_daemon()
        await_trouble(near.host, "the parent eth1 is not there")
        plug_in(clean_lab, near.host)
        new = start(near.host, "new", "blue")
        all_ping_all([new, far])


class TestWithHostAccess:
    def test_the_host_reaches_its_containers_again_after_its_nic_was_down_or_gone(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        with second_nic(clean_lab, here):
            create_lan([here], "blue", "-o", "host_access=true", parent="eth1")
            one = start(here, "one", "blue")
            assert pings(here, one.on(4))
            here.run(["ip", "link", "set", "eth1", "down"])
            await_trouble(here, "the parent eth1 is down")
            here.run(["ip", "link", "set", "eth1", "up"])
            for family in (4, 6):
                address = one.on(family)
                until(lambda address=address: pings(here, address, seconds=1), seconds=20, what=f"{address} answering")
            unplug(clean_lab, here)
            await_trouble(here, "the parent eth1 is not there")
            plug_in(clean_lab, here)
            new = start(here, "new", "blue")
            until(lambda: pings(here, new.on(4), seconds=1), seconds=20, what="the new container answering")
            clean_lab.clear()
