"""Addresses on the LAN: many at once from two hosts, and one that moves while others remember where it was."""

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.containers import Container, start
from lab.faults import published
from lab.lan_networks import create_lan, mac_of, pings, router, start_with_mac
from lab.plugin_calls import Engine
from lab.wire import capture
from spanlan.lab import Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

EACH = 250
THREADS = 8
SUBNET = "10.52.0.0/22"


class TestManyAtOnce:
    def test_five_hundred_containers_of_two_hosts_get_as_many_addresses(self, clean_lab: Lab) -> None:
        create_lan(clean_lab.hosts, "blue", subnets={SUBNET: "10.52.0.1"})
        networks = {
            host: host.docker("network", "inspect", "-f", "{{.Id}}", "blue").stdout.strip() for host in clean_lab.hosts
        }
        pools = {host: another_hold(host) for host in clean_lab.hosts}
        begin = time.monotonic()
        with ThreadPoolExecutor(2 * THREADS) as threads:
            shares = [(host, EACH // THREADS + (turn < EACH % THREADS)) for turn in range(THREADS) for host in pools]
            given = list(
                threads.map(lambda share: endpoints(share[0], networks[share[0]], pools[share[0]], share[1]), shares)
            )
        print(  # noqa: T201 - told, not judged: machines differ
            f"{2 * EACH} addresses and endpoints from two hosts in {time.monotonic() - begin:.1f} s"
        )
        addresses = [address for some in given for address in some]
        assert len(addresses) == 2 * EACH
        assert len(set(addresses)) == 2 * EACH
        told = published(clean_lab, "lan.10.52.0.0-22")
        assert set(told) == set(addresses)
        assert sorted(told.values()) == ["host1"] * EACH + ["host2"] * EACH
        for host, pool in pools.items():
            with Engine(host) as engine:
                engine.call("IpamDriver.ReleasePool", {"PoolID": pool})


def another_hold(host: Host) -> str:
    """The pool of the network, as one more network on it would get it."""
    with Engine(host) as engine:
        spaces = engine.call("IpamDriver.GetDefaultAddressSpaces", {})
        asked = {
            "AddressSpace": spaces["LocalDefaultAddressSpace"],
            "Pool": SUBNET,
            "SubPool": "",
            "Options": {},
            "V6": False,
        }
        return str(engine.call("IpamDriver.RequestPool", asked)["PoolID"])


def endpoints(host: Host, network: str, pool: str, number: int) -> list[str]:
    """What an engine asks for so many containers, one after the other, as far as their addresses go."""
    addresses = []
    with Engine(host) as engine:
        for _ in range(number):
            given = engine.call("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "", "Options": {}})["Address"]
            interface = {"Address": given, "AddressIPv6": "", "MacAddress": ""}
            endpoint = {
                "NetworkID": network,
                "EndpointID": secrets.token_hex(32),
                "Interface": interface,
                "Options": {},
            }
            engine.call("NetworkDriver.CreateEndpoint", endpoint)
            addresses.append(given.partition("/")[0])
    return addresses


FIXED = ("10.50.0.77", "fd50::77")
OLD, NEW = "02:00:00:00:50:01", "02:00:00:00:50:02"


def lan_knows(lab: Lab, address: str) -> str | None:
    """The MAC that the machine on the LAN remembers for an address."""
    told = json.loads(lab.lan.run(["ip", "-j", "neigh", "show", "to", address]).stdout)
    return next((entry["lladdr"] for entry in told if "lladdr" in entry), None)


@pytest.fixture
def watchers(clean_lab: Lab) -> Iterator[list[Container]]:
    """A container on each host, on a network of whose subnet a machine on the LAN is, too."""
    with router(clean_lab):
        create_lan(clean_lab.hosts, "blue")
        yield [start(host, "watcher", "blue") for host in clean_lab.hosts]


class TestAnAddressThatMoves:
    def test_it_is_reached_at_once_with_its_new_mac_by_all_who_remember_the_old_one(
        self, clean_lab: Lab, watchers: list[Container]
    ) -> None:
        here, there = clean_lab.hosts
        mover = start_with_mac(here, "mover", "blue", OLD, *FIXED)
        for address in FIXED:
            assert all(watcher.pings(address) for watcher in watchers)
            assert pings(clean_lab, address)
            assert [*(watcher.knows(address) for watcher in watchers), lan_knows(clean_lab, address)] == [OLD] * 3
        mover.remove()

        with capture(there, "-e") as wire:
            moved = start_with_mac(there, "mover", "blue", NEW, *FIXED)
            assert mac_of(moved) == NEW
            for address in FIXED:
                for watcher in watchers:
                    assert watcher.pings(address, seconds=1), f"{watcher.host.name} to {address}"
                assert pings(clean_lab, address, seconds=1), f"the LAN to {address}"
            wire.wait_for(f"{NEW} > ff:ff:ff:ff:ff:ff", "Request who-has 10.50.0.77", "tell 10.50.0.77")
            wire.wait_for(f"{NEW} > 33:33:00:00:00:01", "neighbor advertisement, tgt is fd50::77")
        # Nobody had to ask: they were told.
        questions = [line for line in wire.lines("who-has 10.50.0.77") if "tell 10.50.0.77" not in line]
        assert questions == []

    def test_it_is_found_on_the_way_back_too_with_the_mac_that_follows_from_the_address(
        self, clean_lab: Lab, watchers: list[Container]
    ) -> None:
        # The MAC stays; what has to learn is the switch.
        here, there = clean_lab.hosts
        fixed = ("--ip", FIXED[0], "--ip6", FIXED[1])
        for place in (here, there, here):
            mover = start(place, "mover", "blue", *fixed)
            for address in FIXED:
                for watcher in watchers:
                    assert watcher.pings(address, seconds=1), f"{watcher.host.name} to {address} on {place.name}"
                assert pings(clean_lab, address, seconds=1), f"the LAN to {address} on {place.name}"
            mover.remove()

    def test_what_is_announced_is_seen_by_the_other_containers_of_its_host(
        self, clean_lab: Lab, watchers: list[Container]
    ) -> None:
        here = clean_lab.hosts[0]
        mover = start_with_mac(here, "mover", "blue", OLD, *FIXED)
        near = watchers[0]
        assert all(near.pings(address) for address in FIXED)
        mover.remove()
        start_with_mac(here, "mover", "blue", NEW, *FIXED)
        for address in FIXED:
            until(lambda address=address: near.knows(address) == NEW, seconds=10, what=f"news of {address}")
            assert near.pings(address, seconds=1)
