"""A host loses its power, an engine is restarted: containers come back with their network, nothing is given twice."""

from collections.abc import Callable

import pytest

from lab.faults import (
    STORE_ROOT,
    Container,
    assert_all_reach_all,
    assert_no_address_twice,
    await_entries,
    await_ready,
    children,
    devices,
    entries,
    fdb,
    found,
    make_network,
    neighbours,
    pinging,
    published,
    run_line,
    running,
    start,
)
from spanlan.lab import Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

TTL, GRACE, MARGIN = 3, 3, 8  # seconds; the margin is for a machine that does other things as well
ALWAYS = ("--restart", "always")


def test_a_host_that_crashed_is_withdrawn_but_keeps_its_addresses_and_comes_back(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(daemon_environment={"SPANLAN_LEASE_TTL": f"{TTL}"})
    first, second = lab.hosts
    make_network(lab.hosts)
    always, plain = start(first, "always", *ALWAYS), start(first, "plain")
    witness, other = start(second, "witness"), start(second, "other")
    until(lambda: len(neighbours(second)) == 2, seconds=10, what="the entries")
    before = published(lab)

    with pinging((witness, other)):
        first.crash()
        await_entries(second, ({}, {}), seconds=TTL + GRACE + MARGIN)
        assert lab.store_keys(f"{STORE_ROOT}/hosts/") == [f"{STORE_ROOT}/hosts/host2"]

        assert published(lab) == before
        done = second.docker(*run_line("greedy", "blue", "--ip", plain.address), check=False)
        assert done.returncode != 0
        assert plain.address in done.stderr
        assert "host1" in done.stderr
        second.docker("rm", "-f", "greedy")

        first.boot()

        await_ready(first)
        until(lambda: "always" in running(first), seconds=30, what="the container that is always restarted")
        first.docker("start", "plain")
        everyone = [found(first, "always"), found(first, "plain"), witness, other]
        assert_no_address_twice(everyone)
        assert_all_reach_all(everyone)
    assert published(lab) == {each.address: each.host.name for each in everyone}
    assert set(neighbours(second)) == {each.address for each in everyone[:2]}
    assert set(fdb(second).values()) == {first.address}
    assert always.name == "always"
    lab.clear()
    until(lambda: not published(lab) and not devices(first), seconds=15, what="the last of it going")


@pytest.mark.parametrize("end", [Host.stop_engine, Host.kill_engine], ids=["stopped", "killed"])
def test_containers_come_back_with_their_network_when_the_engine_was(
    clean_lab: Lab, end: Callable[[Host], None]
) -> None:
    first, second = clean_lab.hosts
    make_network(clean_lab.hosts)
    for number in range(3):
        start(first, f"always-{number}", *ALWAYS)
    witness = start(second, "witness")
    end(first)
    first.start_engine()
    until(lambda: len(running(first)) == 3, seconds=60, what="the containers being restarted")
    everyone = [witness, *(found(first, f"always-{number}") for number in range(3))]
    assert_no_address_twice(everyone)
    assert_all_reach_all(everyone)
    assert published(clean_lab) == {each.address: each.host.name for each in everyone}
    assert children(first) == []
    assert set(neighbours(second)) == {each.address for each in everyone[1:]}
    assert_all_reach_all([start(first, "newcomer"), witness])


@pytest.mark.parametrize("end", [Host.stop_engine, Host.kill_engine], ids=["stopped", "killed"])
def test_with_live_restore_containers_keep_their_traffic_when_the_engine_was(
    make_lab: Callable[..., Lab], end: Callable[[Host], None]
) -> None:
    lab = make_lab(engine_arguments=("--live-restore",))
    first, second = lab.hosts
    make_network(lab.hosts)
    here, there = start(first, "here", *ALWAYS), start(second, "there")
    until(lambda: here.address in neighbours(second), seconds=10, what="the entry")
    before = entries(second), published(lab)
    with pinging((here, there), (there, here)) as pings:
        end(first)
        for ping in pings:
            ping.await_more(20)
        first.start_engine()
        assert found(first, "here").address == here.address
        assert (entries(second), published(lab)) == before
        newcomer = start(first, "newcomer")
        assert_all_reach_all([here, there, newcomer])
    first.docker("restart", "here")
    again: Container = found(first, "here")
    assert_no_address_twice([again, there, newcomer])
    assert_all_reach_all([again, there, newcomer])
    assert len(published(lab)) == 3
