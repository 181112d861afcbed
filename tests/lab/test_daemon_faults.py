"""The daemon is killed, stopped, started beside another: containers run on, and nothing is given twice or left over."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.faults import (
    STORE_ROOT,
    Container,
    Log,
    assert_all_reach_all,
    assert_no_address_twice,
    await_ready,
    children,
    device,
    devices,
    entries,
    found,
    make_network,
    neighbours,
    network_line,
    pinging,
    published,
    run_line,
    running,
    start,
    stored,
)
from spanlan.errors import Broken
from spanlan.lab import IMAGE, Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

TTL = 3
LONGER_THAN_ANY_LEASE = 20 * (TTL + 3 + 2)  # in answers to pings, of which there are twenty a second


def host_record(lab: Lab, name: str) -> tuple[dict[str, str], int]:
    """What a host shows of itself, and the lease that it is bound to."""
    said = json.loads(lab.etcdctl("get", "-w", "json", "--hex=false", f"{STORE_ROOT}/hosts/{name}").stdout)
    value = lab.etcdctl("get", "--print-value-only", f"{STORE_ROOT}/hosts/{name}").stdout
    return json.loads(value), said["kvs"][0].get("lease", 0)


@pytest.fixture(scope="module")
def rough_lab(raise_lab: Callable[..., Lab]) -> Lab:
    """A lab in which addresses may stay that dockerd, in the end, never took back: they are there to be collected."""
    return raise_lab(hosts=2)


class TestKilled:
    def test_traffic_goes_on_and_afterwards_old_and_new_containers_are_on_one_network(self, clean_lab: Lab) -> None:
        make_network(clean_lab.hosts)
        here, there = (start(host, f"on-{host.name}") for host in clean_lab.hosts)
        for host, other in zip(clean_lab.hosts, (there, here), strict=True):
            until(lambda host=host, other=other: other.address in neighbours(host), seconds=10, what="the entries")
        with pinging((here, there), (there, here)) as pings:
            for host in clean_lab.hosts:
                host.kill_daemon()
            for ping in pings:
                ping.await_more(40)
            for host in clean_lab.hosts:
                host.start_daemon()
            await_ready(*clean_lab.hosts)
            newcomers = [start(host, f"new-on-{host.name}") for host in clean_lab.hosts]
            everyone = [here, there, *newcomers]
            assert_no_address_twice(everyone)
            assert_all_reach_all(everyone)
            for ping in pings:
                ping.await_more(20)
        assert published(clean_lab) == {container.address: container.host.name for container in everyone}
        assert [len(devices(host)) for host in clean_lab.hosts] == [1, 1]

        here.remove()

        until(lambda: here.address not in neighbours(there.host), seconds=10, what="the old one's entry going")
        assert here.address not in published(clean_lab)
        assert_all_reach_all([there, *newcomers])

    @pytest.mark.parametrize("moments", [(0.05, 0.15, 0.25), (0.1, 0.2, 0.3)])
    def test_at_any_moment_of_a_run_the_container_can_be_started_later_and_no_address_is_given_twice(
        self, rough_lab: Lab, moments: tuple[float, ...]
    ) -> None:
        lab = rough_lab
        first, second = lab.hosts
        make_network(lab.hosts)
        there = start(second, "there")
        for number, moment in enumerate(moments):
            with begun(first, *run_line(f"number{number}", "blue")) as process:
                time.sleep(moment)  # the moment of the fault, not a wait for anything
                first.kill_daemon()
                first.start_daemon()
                process.communicate(timeout=60)
            ensure_running(first, f"number{number}")
        self.assert_in_order(lab, [there, *(found(first, f"number{number}") for number in range(len(moments)))])

    @pytest.mark.parametrize("key", ["/pools/cluster/10.77.0.0-24/addresses/", "/segments/blue/endpoints/"])
    def test_as_soon_as_an_address_is_claimed_or_published_the_container_can_be_started_later(
        self, rough_lab: Lab, key: str
    ) -> None:
        """Keys that RequestAddress and CreateEndpoint write: mostly, the answer is not out yet."""
        lab = rough_lab
        first, second = lab.hosts
        make_network(lab.hosts)
        there = start(second, "there")
        with key_written(lab, STORE_ROOT + key) as await_key, begun(first, *run_line("interrupted", "blue")) as process:
            await_key()
            first.kill_daemon()
            first.start_daemon()
            process.communicate(timeout=60)
        ensure_running(first, "interrupted")
        self.assert_in_order(lab, [there, found(first, "interrupted"), start(second, "other")])

    def assert_in_order(self, lab: Lab, containers: list[Container]) -> None:
        assert_no_address_twice(containers)
        assert_all_reach_all(containers)
        for host in lab.hosts:
            host.clear()
            host.kill_daemon()
            host.start_daemon()
        await_ready(*lab.hosts)
        assert [children(host) + devices(host) for host in lab.hosts] == [[], []]
        assert {key for key in stored(lab) if "/pools" not in key} == set()


def begun(host: Host, *arguments: str) -> "subprocess.Popen[str]":
    """A docker command that runs while the test does other things."""
    command = ["docker", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, env=host.docker_environment(), stdin=subprocess.DEVNULL, **pipes)


@contextlib.contextmanager
def key_written(lab: Lab, prefix: str) -> Iterator[Callable[[], None]]:
    """A function that waits until somebody writes a key that starts with ``prefix``; what was written before is not."""
    revision = json.loads(lab.etcdctl("get", "-w", "json", prefix).stdout)["header"]["revision"]
    command = ["etcdctl", f"--endpoints={lab.etcd.endpoint}", "watch", f"--rev={revision + 1}", "--prefix", prefix]
    process = lab.lan.popen(["env", "ETCDCTL_API=3", *command])
    assert process.stdout is not None
    words = iter(process.stdout)

    def wait() -> None:
        assert any(line.strip() == "PUT" for line in words), "the watch ended"

    try:
        yield wait
    finally:
        process.kill()
        process.communicate(timeout=10)


def ensure_running(host: Host, name: str) -> None:
    """Start a container whose start was interrupted, with what a user would type."""
    known = set(host.docker("ps", "-a", "--format", "{{.Names}}").stdout.split())
    if name not in known:
        host.docker(*run_line(name, "blue"))
    elif name not in running(host):
        host.docker("start", name)


def test_after_a_clean_stop_traffic_goes_on_for_longer_than_a_lease_and_a_start_changes_nothing(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(daemon_environment={"SPANLAN_LEASE_TTL": f"{TTL}"})
    first, second = lab.hosts
    make_network(lab.hosts)
    here, there = start(first, "here"), start(second, "there")
    until(lambda: here.address in neighbours(second), seconds=10, what="the entry")
    before = entries(second)
    shown, lease = host_record(lab, "host1")
    assert lease
    with pinging((here, there), (there, here)) as pings:
        first.stop_daemon()
        pings[0].await_more(LONGER_THAN_ANY_LEASE, seconds=60)
        assert entries(second) == before
        assert host_record(lab, "host1") == (shown, 0)
        assert there.reaches(here.address)
        first.start_daemon()
        await_ready(first)
        until(lambda: host_record(lab, "host1")[1], seconds=10, what="the record being bound to a lease again")
        assert host_record(lab, "host1")[0] == shown
        assert entries(second) == before
        assert_all_reach_all([here, there, start(first, "newcomer")])


def test_a_clean_stop_without_containers_takes_the_host_out_of_the_cluster_at_once(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    until(lambda: len(clean_lab.store_keys(f"{STORE_ROOT}/hosts/")) == 2, seconds=10, what="both hosts being there")
    host.stop_daemon()
    assert clean_lab.store_keys(f"{STORE_ROOT}/hosts/") == [f"{STORE_ROOT}/hosts/host2"]
    host.start_daemon()
    until(lambda: len(clean_lab.store_keys(f"{STORE_ROOT}/hosts/")) == 2, seconds=10, what="the host being back")


def test_a_second_daemon_of_one_name_is_refused_and_the_first_is_not_disturbed(clean_lab: Lab) -> None:
    first, second = clean_lab.hosts
    make_network([first])
    here = start(first, "here")
    shown, _ = host_record(clean_lab, "host1")
    keys = stored(clean_lab)
    second.stop_daemon()
    log = Log(second)
    second.start_daemon({"SPANLAN_HOST": "host1"})
    for line in (network_line("green", subnet="10.78.0.0/24"), network_line("blue")):
        done = second.docker(*line, check=False)
        assert done.returncode != 0
        assert "another host of this cluster is called host1" in done.stderr
        assert "SPANLAN_HOST" in done.stderr
    log.await_line("another host of this cluster is called host1: .* SPANLAN_HOST")
    second.stop_daemon()
    assert stored(clean_lab) == keys
    record, lease = host_record(clean_lab, "host1")
    assert record == shown
    assert lease, "the first one's record is still bound to its lease"
    second.start_daemon()
    make_network([second])
    assert_all_reach_all([here, start(second, "there"), start(first, "newcomer")])


def test_a_host_that_has_networks_cannot_be_renamed(clean_lab: Lab) -> None:
    first, second = clean_lab.hosts
    make_network(clean_lab.hosts)
    here, there = start(first, "here"), start(second, "there")
    with pinging((here, there)):
        second.stop_daemon()
        with pytest.raises(Broken, match=r"this host was host2 .* SPANLAN_HOST is host5: set it to host2 again"):
            second.start_daemon({"SPANLAN_HOST": "host5"})
        second.start_daemon()
        await_ready(second)
    there.remove()
    second.docker("network", "rm", "blue")
    second.stop_daemon()
    second.start_daemon({"SPANLAN_HOST": "host5"})
    until(lambda: f"{STORE_ROOT}/hosts/host5" in clean_lab.store_keys(), seconds=10, what="the host of the new name")
    second.stop_daemon()
    second.start_daemon()


def test_without_a_cluster_the_embedded_store_serves_one_host_also_after_a_crash(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(hosts=1, daemon_environment={"SPANLAN_STORE": "sqlite:///var/lib/spanlan/spanlan.db"})
    (host,) = lab.hosts
    make_network(lab.hosts)
    one, other = start(host, "one"), start(host, "other")
    assert_all_reach_all([one, other])
    with pinging((one, other)):
        host.kill_daemon()
        host.start_daemon()
    late = start(host, "late")
    assert_no_address_twice([one, other, late])
    assert_all_reach_all([one, other, late])
    assert lab.store_keys(STORE_ROOT) == [], "nothing of it is in etcd"
    host.clear()
    until(lambda: not devices(host), seconds=10, what="the device going")
    make_network(lab.hosts)
    assert start(host, "again").address.startswith("10.77.0.")


def test_thirty_short_runs_leave_no_thread_and_no_descriptor_behind(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    make_network([host])

    def short_runs(number: int) -> None:
        for _ in range(number):
            host.docker("run", "--rm", "--network", "blue", IMAGE, "true")

    def open_things() -> tuple[int, int]:
        process = Path("/proc", str(host.daemon.pid))
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    short_runs(3)
    before = open_things()
    short_runs(30)

    def as_before() -> bool:
        return all(now <= then for now, then in zip(open_things(), before, strict=True))

    until(as_before, seconds=20, what=f"descriptors and threads going back from {open_things()} to {before}")
    assert device(host)
