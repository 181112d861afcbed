"""etcd stops, freezes, comes back, or comes back empty: containers do not notice, and engines get answers."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.cleanliness import assert_nothing_left, heal
from lab.faults import (
    STORE_ROOT,
    Container,
    assert_all_reach_all,
    assert_no_address_twice,
    await_entries,
    await_ready,
    entries,
    found,
    make_network,
    neighbours,
    network_line,
    pinging,
    published,
    run_line,
    start,
    steady,
    stored,
)
from spanlan.lab import Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

TTL = 3
GRACE = 3
LONGER_THAN_ANY_LEASE = 20 * (TTL + GRACE + 2)  # in answers to pings, of which there are twenty a second
LONGEST_REFUSAL = 20


@pytest.fixture(scope="module")
def brief(raise_lab: Callable[..., Lab]) -> Lab:
    """A lab whose hosts are held for dead after three seconds instead of ten."""
    return raise_lab(hosts=2, daemon_environment={"SPANLAN_LEASE_TTL": f"{TTL}"})


@pytest.fixture
def brief_lab(brief: Lab) -> Iterator[Lab]:
    yield brief
    heal(brief)
    await_ready(*brief.hosts)
    brief.clear()
    assert_nothing_left(brief)


@pytest.fixture
def pair(brief_lab: Lab) -> tuple[Container, Container]:
    """A container on each host, each known to the other host."""
    make_network(brief_lab.hosts)
    here, there = (start(host, f"on-{host.name}") for host in brief_lab.hosts)
    for host, other in zip(brief_lab.hosts, (there, here), strict=True):
        until(lambda host=host, other=other: other.address in neighbours(host), seconds=10, what="the entries")
    return here, there


def assert_refused_soon(host: Host, *arguments: str) -> None:
    begun = time.monotonic()
    done = host.docker(*arguments, check=False)
    took = time.monotonic() - begun
    assert done.returncode != 0
    assert "etcd at 10.99.0.250:2379" in done.stderr, done.stderr
    assert took < LONGEST_REFUSAL, f"docker {arguments[0]} took {took:.1f} s"


def stop(lab: Lab) -> None:
    lab.etcd.stop()


def pause(lab: Lab) -> None:
    lab.etcd.pause()


def bring_back(lab: Lab) -> None:
    if lab.etcd.service.running:
        lab.etcd.resume()
    else:
        lab.etcd.start()
    until(lab.etcd.answers, seconds=20, what="etcd's answer")


def start_with_patience(host: Host, name: str) -> Container:
    """Start a container after the pools were lost: addresses that endpoints hold are offered and refused, once each."""
    done = host.docker(*run_line(name, "blue"), check=False)
    for _ in range(4):
        if done.returncode == 0:
            break
        assert "is held by endpoint" in done.stderr, done.stderr
        done = host.docker("start", name, check=False)
    return found(host, name)


@pytest.mark.parametrize("switch_off", [stop, pause])
def test_while_etcd_is_away_traffic_flows_run_is_refused_soon_and_removals_are_made_up_for(
    brief_lab: Lab, pair: tuple[Container, Container], switch_off: Callable[[Lab], None]
) -> None:
    first, second = brief_lab.hosts
    here, there = pair
    removed, stopped = start(first, "removed"), start(first, "stopped")
    first.docker(*network_line("other", subnet="10.78.0.0/24"))
    until(lambda: stopped.address in neighbours(second), seconds=10, what="the last entry")
    before = {host.name: entries(host) for host in brief_lab.hosts}

    with pinging((here, there), (there, here)) as pings:
        begin = len(pings[0].answered)
        switch_off(brief_lab)
        with ThreadPoolExecutor() as pool:
            run = pool.submit(assert_refused_soon, first, *run_line("too-early", "blue"))
            create = pool.submit(assert_refused_soon, second, *network_line("third", subnet="10.79.0.0/24"))
            run.result()
            create.result()
        first.docker("rm", "-f", "removed", timeout=30)
        first.docker("stop", "stopped", timeout=30)
        first.docker("network", "rm", "other", timeout=30)
        pings[0].await_more(LONGER_THAN_ANY_LEASE, since=begin, seconds=60)
        assert {host.name: entries(host) for host in brief_lab.hosts} == before

        bring_back(brief_lab)

        await_ready(first, second)
        until(lambda: removed.address not in neighbours(second), seconds=10, what="the removed one's entry going")
        assert published(brief_lab) == {here.address: "host1", there.address: "host2"}
        assert not [key for key in stored(brief_lab) if "other" in key or "10.78" in key or "third" in key]
        again = start(second, "again", "--ip", removed.address)
        first.docker("start", "too-early")
        newcomers = [again, found(first, "too-early"), start(second, "newcomer")]
        assert_no_address_twice([here, there, *newcomers])
        assert_all_reach_all([here, there, *newcomers])


def test_a_removal_that_etcd_interrupts_is_made_up_for_without_another_request(
    brief_lab: Lab, pair: tuple[Container, Container]
) -> None:
    """etcd freezes for less time than it takes to notice: the removal fails, and the store never seems to be away."""
    first, second = brief_lab.hosts
    here, there = pair
    brief_lab.etcd.pause()
    try:
        first.docker("rm", "-f", here.name, timeout=40)
    finally:
        bring_back(brief_lab)
    await_ready(first, second)
    until(lambda: here.address not in neighbours(second), seconds=10, what="its entry going")
    assert published(brief_lab) == {there.address: "host2"}


class TestDataLost:
    @staticmethod
    def delete_keys(lab: Lab) -> None:
        lab.etcdctl("del", "--prefix", "/spanlan/")

    @staticmethod
    def wipe_disk(lab: Lab) -> None:
        lab.etcd.stop()
        shutil.rmtree(lab.names.disk_dir / "etcd")
        lab.etcd.start()

    @pytest.mark.parametrize("lose", [delete_keys, wipe_disk])
    def test_hosts_segments_and_endpoints_are_written_again_and_traffic_goes_on(
        self, brief_lab: Lab, pair: tuple[Container, Container], lose: Callable[[Lab], None]
    ) -> None:
        here, there = pair
        before = {host.name: entries(host) for host in brief_lab.hosts}
        endpoints = published(brief_lab)
        segment_keys = {key for key in stored(brief_lab) if "/pools" not in key}

        with steady((here, there), (there, here)) as pings:
            lose(brief_lab)
            until(
                lambda: {key for key in stored(brief_lab) if "/pools" not in key} == segment_keys,
                seconds=15,
                what="the segment being written again",
            )
            assert published(brief_lab) == endpoints
            until(
                lambda: len(brief_lab.store_keys(f"{STORE_ROOT}/hosts/")) == 2, seconds=15, what="hosts showing again"
            )
            await_ready(*brief_lab.hosts)
            for host in brief_lab.hosts:
                await_entries(host, before[host.name])
            for ping in pings:
                ping.await_more(20)
                # Between the moment when a host hears of the loss and the one when the other has written again.
                assert len(ping.lost) <= 40, ping.lost
        newcomers = [start_with_patience(host, f"newcomer-{host.name}") for host in brief_lab.hosts]
        assert_no_address_twice([here, there, *newcomers])
        assert_all_reach_all([here, there, *newcomers])


def test_a_daemon_that_starts_while_etcd_is_down_answers_at_once_and_gets_in_step_later(
    brief_lab: Lab, pair: tuple[Container, Container]
) -> None:
    first, second = brief_lab.hosts
    here, there = pair
    before = entries(first)
    with pinging((here, there), (there, here)):
        brief_lab.etcd.stop()
        first.kill_daemon()
        first.start_daemon()
        first.docker("network", "ls", timeout=10)
        first.docker("network", "inspect", "blue", timeout=10)
        assert_refused_soon(first, *run_line("too-early", "blue"))
        assert entries(first) == before

        bring_back(brief_lab)

        await_ready(first, second)
        assert entries(first) == before
        assert_all_reach_all([here, there, start(first, "newcomer")])
