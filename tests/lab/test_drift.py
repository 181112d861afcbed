"""What somebody else changes in the kernel is put right, while the daemon runs and after it was down; the rest is left.

Every test has a container on each of two hosts, so that each host's device holds one neighbour and one FDB entry.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from lab.faults import (
    Container,
    Log,
    assert_all_reach_all,
    await_entries,
    await_ready,
    device,
    devices,
    entries,
    make_network,
    neighbours,
    pinging,
    restart,
    start,
)
from spanlan.lab import Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

STRAY_ADDRESS, STRAY_MAC = "10.77.0.200", "02:00:00:00:02:00"
SECONDS = 5  # "within a few": it takes milliseconds on an idle machine


class Pair(NamedTuple):
    """A container on each host, and the entries that the first host's device holds because of the second's."""

    host: Host
    here: Container
    there: Container
    entries: tuple[dict[str, str], dict[str, str]]
    device: str

    @property
    def mac(self) -> str:
        return self.entries[0][self.there.address]


@pytest.fixture
def pair(clean_lab: Lab) -> Pair:
    make_network(clean_lab.hosts)
    here, there = (start(host, f"on-{host.name}") for host in clean_lab.hosts)
    host = clean_lab.hosts[0]
    until(lambda: there.address in neighbours(host), seconds=10, what="the entries")
    wanted = entries(host)
    assert list(wanted[0]) == [there.address]
    assert list(wanted[1].values()) == [clean_lab.hosts[1].address]
    return Pair(host, here, there, wanted, device(host))


def delete_entries(pair: Pair) -> None:
    pair.host.run(["ip", "neigh", "del", pair.there.address, "dev", pair.device])
    pair.host.run(["bridge", "fdb", "del", pair.mac, "dev", pair.device])


def add_strays(pair: Pair) -> None:
    """Entries of the sort that we write, which nobody wants."""
    pair.host.run(["ip", "neigh", "add", STRAY_ADDRESS, "lladdr", STRAY_MAC, "nud", "permanent", "dev", pair.device])
    pair.host.run(["bridge", "fdb", "add", STRAY_MAC, "dst", "10.99.0.77", "dev", pair.device])


class TestWhileTheDaemonRuns:
    def test_deleted_entries_come_back_and_the_log_says_so(self, pair: Pair) -> None:
        log = Log(pair.host)
        delete_entries(pair)
        await_entries(pair.host, pair.entries, seconds=SECONDS)
        log.await_line(f"device {pair.device}: . entries were changed by somebody else; putting them back")
        assert pair.here.reaches(pair.there.address)

    def test_changed_entries_are_put_right(self, pair: Pair) -> None:
        log = Log(pair.host)
        changed = ("lladdr", STRAY_MAC, "nud", "permanent", "dev", pair.device)
        pair.host.run(["ip", "neigh", "replace", pair.there.address, *changed])
        pair.host.run(["bridge", "fdb", "replace", pair.mac, "dst", "10.99.0.77", "dev", pair.device])
        await_entries(pair.host, pair.entries, seconds=SECONDS)
        log.await_line("changed by somebody else")

    def test_entries_that_nobody_wants_are_removed(self, pair: Pair) -> None:
        add_strays(pair)
        await_entries(pair.host, pair.entries, seconds=SECONDS)

    def test_all_entries_flushed_at_once_come_back(self, pair: Pair) -> None:
        log = Log(pair.host)
        pair.host.run(["ip", "neigh", "flush", "all", "nud", "permanent", "dev", pair.device])
        log.await_line("changed by somebody else")
        await_entries(pair.host, pair.entries, seconds=SECONDS)

    def test_a_device_switched_off_is_switched_on_again(self, pair: Pair) -> None:
        pair.host.run(["ip", "link", "set", pair.device, "down"])
        until(lambda: "UP" in flags(pair.host, pair.device), seconds=SECONDS, what="the device going up")
        await_entries(pair.host, pair.entries, seconds=SECONDS)
        assert_all_reach_all([pair.here, pair.there])

    def test_a_deleted_device_is_made_again_and_a_restarted_container_is_on_the_network(
        self, pair: Pair, clean_lab: Lab
    ) -> None:
        """The kernel takes a device's macvlan children along: containers that run lose the network until a restart."""
        log = Log(pair.host)
        pair.host.run(["ip", "link", "del", pair.device])
        log.await_line(f"device {pair.device} was removed by somebody else")
        await_entries(pair.host, pair.entries, seconds=SECONDS)
        assert not pair.here.reaches(pair.there.address)
        assert "eth0" not in pair.here.inside("ip", "link", "show").stdout

        assert_all_reach_all([restart(pair.here), start(pair.host, "new"), pair.there])


class TestWhileTheDaemonIsDown:
    def test_deleted_entries_come_back_when_it_starts(self, pair: Pair) -> None:
        pair.host.kill_daemon()
        delete_entries(pair)
        assert entries(pair.host) == ({}, {})
        pair.host.start_daemon()
        await_entries(pair.host, pair.entries)
        assert pair.here.reaches(pair.there.address)

    def test_entries_that_nobody_wants_are_removed_when_it_starts(self, pair: Pair) -> None:
        pair.host.kill_daemon()
        add_strays(pair)
        with pinging((pair.here, pair.there)):
            pair.host.start_daemon()
            await_entries(pair.host, pair.entries)

    def test_entries_of_containers_that_went_meanwhile_go_when_it_starts(self, pair: Pair, clean_lab: Lab) -> None:
        pair.host.kill_daemon()
        pair.there.remove()
        newcomer = start(clean_lab.hosts[1], "newcomer")
        assert list(neighbours(pair.host)) == [pair.there.address]
        pair.host.start_daemon()
        until(lambda: list(neighbours(pair.host)) == [newcomer.address], seconds=10, what="the newcomer's entry alone")
        assert_all_reach_all([pair.here, newcomer])

    def test_a_deleted_device_is_made_again_when_it_starts(self, pair: Pair) -> None:
        pair.host.stop_daemon()
        pair.host.run(["ip", "link", "del", pair.device])
        pair.host.start_daemon()
        await_entries(pair.host, pair.entries)
        assert_all_reach_all([restart(pair.here), pair.there])

    def test_a_link_of_ours_that_nothing_stands_behind_is_removed_when_it_starts(self, pair: Pair) -> None:
        pair.host.kill_daemon()
        remnant = ("link", "add", "slx-99", "type", "vxlan", "id", "99", "dstport", "4999", "nolearning", "proxy")
        pair.host.run(["ip", *remnant])
        pair.host.run(["ip", "link", "set", "slx-99", "alias", "spanlan segment=long-gone"])
        pair.host.start_daemon()
        until(lambda: devices(pair.host) == [pair.device], seconds=10, what="the remnant going")


# -- what belongs to others ----------------------------------------------------------------------------------------


@pytest.fixture
def foreign(clean_lab: Lab) -> Iterator[Host]:
    """A host with links, entries and devices of somebody else, some of them much like ours."""
    host = clean_lab.hosts[0]
    links = (
        "link add plain type bridge",
        "link add theirs type vxlan id 1000000 dstport 4790 nolearning proxy local 10.99.0.1 dev eth0",
        "link set theirs up",
        "link add slx-7 type vxlan id 7 dstport 4791 nolearning local 10.99.0.1 dev eth0",
        "link set slx-7 alias someone's",
        "link add sle-theirs link eth0 type macvlan mode bridge",
        f"neigh add 10.88.0.1 lladdr {STRAY_MAC} nud permanent dev theirs",
        f"neigh add 10.99.0.99 lladdr {STRAY_MAC} nud permanent dev eth0",
    )
    host.run(["ip", "-batch", "-"], input="\n".join(links))
    host.run(["bridge", "fdb", "add", STRAY_MAC, "dst", "10.99.0.77", "dev", "theirs"])
    host.run(["bridge", "fdb", "append", "00:00:00:00:00:00", "dst", "10.99.0.2", "dev", "theirs"])
    yield host
    for link in ("plain", "theirs", "slx-7", "sle-theirs"):
        host.run(["ip", "link", "del", link], check=False)
    host.run(["ip", "neigh", "del", "10.99.0.99", "dev", "eth0"], check=False)


def flags(host: Host, link: str) -> list[str]:
    return list(json.loads(host.run(["ip", "-j", "link", "show", link]).stdout)[0]["flags"])


def belongings(host: Host) -> list[str]:
    """All that the kernel says of the foreign links and entries."""
    listings = [["ip", "-d", "-o", "link", "show", link] for link in ("plain", "theirs", "slx-7", "sle-theirs")]
    listings += [["bridge", "fdb", "show", "dev", link] for link in ("theirs", "slx-7")]
    listings += [["ip", "neigh", "show", "nud", "permanent", "dev", link] for link in ("theirs", "eth0")]
    return [host.run(listing).stdout for listing in listings]


def test_links_devices_and_entries_of_others_are_left_alone(foreign: Host, clean_lab: Lab) -> None:
    before = belongings(foreign)
    assert "10.88.0.1" in "".join(before)
    make_network(clean_lab.hosts)
    here, there = (start(host, f"on-{host.name}") for host in clean_lab.hosts)
    foreign.kill_daemon()
    foreign.start_daemon()
    await_ready(foreign)
    own = next(name for name in devices(foreign) if name != "slx-7")
    foreign.run(["ip", "link", "del", own])
    until(lambda: own in devices(foreign), seconds=10, what="our device coming back")
    foreign.stop_daemon()
    foreign.start_daemon()
    await_ready(foreign)
    assert_all_reach_all([restart(here), there])
    assert fdb_of(foreign, own) == {clean_lab.hosts[1].address}
    for container in (here, there):
        container.remove()
    for host in clean_lab.hosts:
        host.docker("network", "rm", "blue")
    assert belongings(foreign) == before


def fdb_of(host: Host, link: str) -> set[str]:
    return {entry["dst"] for entry in json.loads(host.run(["bridge", "-j", "fdb", "show", "dev", link]).stdout)}
