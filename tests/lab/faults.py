"""Networks, containers and steady traffic for tests that break things while all that runs."""

import contextlib
import itertools
import json
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanlan.errors import Broken
from spanlan.lab import IMAGE, Lab
from spanlan.lab.commands import environment_of_caller, run, tail, until
from spanlan.lab.host import Host

SUBNET = "10.77.0.0/24"
DEVICE_PREFIX = "slx-"
STORE_ROOT = "/spanlan/v1"
_REPLY = re.compile(r"icmp_seq=(\d+) ttl=")


@dataclass(frozen=True, slots=True)
class Container:
    """A container that was started, and the address that it got then."""

    host: Host
    name: str
    network: str
    address: str

    @property
    def namespace(self) -> Path:
        return self.host.container_netns(self.name)

    def inside(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of this machine in the container's network: that needs no engine."""
        return run(["nsenter", f"--net={self.namespace}", "--", *command], check=False, timeout=20)

    def reaches(self, address: str) -> bool:
        """Whether a ping is answered, after all that the container remembered of its neighbours is forgotten."""
        self.inside("ip", "neigh", "flush", "dev", "eth0")
        return self.inside("ping", "-c", "1", "-W", "1", address).returncode == 0

    def remove(self) -> None:
        self.host.docker("rm", "-f", self.name)


def network_line(name: str, *more: str, subnet: str = SUBNET) -> list[str]:
    """What is typed on every host to make a network whose segment has its name."""
    pool = ("--ipam-driver", "spanlan", "--subnet", subnet)
    return ["network", "create", "-d", "spanlan", *pool, "-o", f"segment={name}", "--internal", *more, name]


def make_network(hosts: Sequence[Host], name: str = "blue", *more: str, subnet: str = SUBNET) -> None:
    for host in hosts:
        host.docker(*network_line(name, *more, subnet=subnet))


def run_line(name: str, network: str, *more: str) -> list[str]:
    # sleep(1) does not listen to SIGTERM when it is the first process: nobody shall wait ten seconds for that.
    return ["run", "-d", "--stop-signal", "KILL", "--name", name, "--network", network, *more, IMAGE, "sleep", "600"]


def start(host: Host, name: str, *more: str, network: str = "blue") -> Container:
    host.docker(*run_line(name, network, *more))
    return found(host, name, network)


def found(host: Host, name: str, network: str = "blue") -> Container:
    """A container that runs already, as it is now."""
    template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    address = host.docker("inspect", "--format", template, name).stdout.strip()
    assert address, f"{name} on {host.name} has no address"
    return Container(host, name, network, address)


def restart(container: Container) -> Container:
    """The container as it is after a restart: it may have another address."""
    container.host.docker("restart", container.name)
    return found(container.host, container.name, container.network)


def running(host: Host) -> set[str]:
    return set(host.docker("ps", "--format", "{{.Names}}").stdout.split())


def assert_all_reach_all(containers: Sequence[Container], *, seconds: float = 10) -> None:
    for one, other in itertools.permutations(containers, 2):
        until(
            lambda one=one, other=other: one.reaches(other.address),
            seconds=seconds,
            what=f"{one.name} on {one.host.name} reaching {other.name} on {other.host.name}",
        )


def assert_no_address_twice(containers: Sequence[Container]) -> None:
    addresses = [container.address for container in containers]
    assert len(set(addresses)) == len(addresses), addresses


# -- steady traffic ------------------------------------------------------------------------------------------------


class Pinging:
    """A ping from a container to an address, twenty times a second, that looks for gaps in what comes back."""

    def __init__(self, source: Container, address: str) -> None:
        self._name = f"{source.name} -> {address}"
        self._log = tempfile.NamedTemporaryFile(prefix="ping-", suffix=".log")  # noqa: SIM115 - closed in stop()
        self._process = subprocess.Popen(
            ["nsenter", f"--net={source.namespace}", "--", "ping", "-i", "0.05", address],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment_of_caller(),
        )

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=10)
        self._log.close()

    @property
    def answered(self) -> list[int]:
        return [int(number) for number in _REPLY.findall(Path(self._log.name).read_text())]

    @property
    def lost(self) -> list[int]:
        """The numbers that are missing between the first answer and the last."""
        answered = self.answered
        return sorted(set(range(answered[0], answered[-1] + 1)) - set(answered)) if answered else []

    def await_more(self, number: int = 10, *, since: int | None = None, seconds: float = 10) -> None:
        """Wait until so many more answers came (since there were ``since`` of them): the traffic flows now."""
        before = len(self.answered) if since is None else since
        until(lambda: len(self.answered) >= before + number, seconds=seconds, what=f"{number} answers for {self}")

    def __str__(self) -> str:
        return f"ping {self._name}"


@contextlib.contextmanager
def pinging(*pairs: tuple[Container, Container]) -> Iterator[list[Pinging]]:
    """Pings that run all the while, one per pair; no packet may be lost until they end."""
    with steady(*pairs) as pings:
        yield pings
        for ping in pings:
            ping.await_more()
            assert ping.lost == [], f"{ping} lost {len(ping.lost)} of {ping.answered[-1]}: {ping.lost[:20]}"


@contextlib.contextmanager
def steady(*pairs: tuple[Container, Container]) -> Iterator[list[Pinging]]:
    """Pings that run all the while, one per pair; what was lost is for the caller to judge."""
    pings: list[Pinging] = []
    try:
        for source, target in pairs:
            pings.append(Pinging(source, target.address))
        for ping in pings:
            ping.await_more(3)
        yield pings
    finally:
        for ping in pings:
            ping.stop()


# -- what is in the kernel, the store and the log -------------------------------------------------------------------


def device(host: Host, *, seconds: float = 10) -> str:
    """The one device of spanlan on a host."""
    return until(lambda: next(iter(devices(host)), None), seconds=seconds, what=f"a device on {host.name}")


def devices(host: Host) -> list[str]:
    links = json.loads(host.run(["ip", "-j", "link", "show", "type", "vxlan"]).stdout)
    return [link["ifname"] for link in links if link.get("ifname", "").startswith(DEVICE_PREFIX)]


def neighbours(host: Host) -> dict[str, str]:
    """Address to MAC: the permanent neighbours of the host's device."""
    said = _listing(host, ["ip", "-j", "neigh", "show", "nud", "permanent", "dev"])
    entries = [(entry["dst"], entry["lladdr"]) for entry in said if "lladdr" in entry]
    assert len(dict(entries)) == len(entries), entries
    return dict(entries)


def fdb(host: Host) -> dict[str, str]:
    """MAC to VTEP: the forwarding entries of the host's device."""
    entries = [(entry["mac"], entry["dst"]) for entry in _listing(host, ["bridge", "-j", "fdb", "show", "dev"])]
    assert len(dict(entries)) == len(entries), entries
    return dict(entries)


def _listing(host: Host, command: Sequence[str]) -> list[dict[str, Any]]:
    there = devices(host)
    if not there:
        return []
    said = host.run([*command, there[0]], check=False)  # it may go between two looks
    return json.loads(said.stdout or "[]") if said.returncode == 0 else []


def entries(host: Host) -> tuple[dict[str, str], dict[str, str]]:
    return neighbours(host), fdb(host)


def await_entries(host: Host, wanted: tuple[dict[str, str], dict[str, str]], *, seconds: float = 10) -> None:
    def right() -> bool:
        return entries(host) == wanted

    try:
        until(right, seconds=seconds, what="the right entries")
    except Broken as error:
        raise AssertionError(f"{host.name}: {entries(host)} instead of {wanted}") from error


def children(host: Host) -> list[str]:
    """Containers' links that are in the host's own namespace, where they have no business while nothing happens."""
    links = json.loads(host.run(["ip", "-j", "link", "show", "type", "macvlan"]).stdout)
    return [link["ifname"] for link in links if link]


def stored(lab: Lab, *, below: str = "") -> set[str]:
    return {key for key in lab.store_keys(STORE_ROOT + below) if not key.startswith(f"{STORE_ROOT}/hosts/")}


def published(lab: Lab, network: str = "blue") -> dict[str, str]:
    """Address to host: the endpoints in the store."""
    prefix = f"{STORE_ROOT}/segments/{network}/endpoints/"
    values = lab.etcdctl("get", "--prefix", "--print-value-only", prefix).stdout
    records = [json.loads(line) for line in values.splitlines() if line]
    return {record["address"]: record["host"] for record in records}


def status(host: Host) -> dict[str, Any]:
    """What the host's daemon says of itself."""
    said = host.run(["curl", "-sf", "-m", "5", "http://127.0.0.1:9580/status.json"], check=False)
    return dict(json.loads(said.stdout)) if said.returncode == 0 else {}


def await_ready(*hosts: Host, seconds: float = 20) -> None:
    """Wait until the daemons say that they are in sync with the store and owe it nothing."""
    for host in hosts:
        until(
            lambda host=host: (said := status(host)).get("ready") and not said["owed_to_the_store"],
            seconds=seconds,
            what=f"{host.name}'s daemon being in sync",
        )


class Log:
    """What a host's daemon says from now on."""

    def __init__(self, host: Host) -> None:
        self._path = host.daemon.log
        self._begins = self._path.stat().st_size if self._path.exists() else 0

    @property
    def text(self) -> str:
        return self._path.read_bytes()[self._begins :].decode(errors="replace")

    def await_line(self, pattern: str, *, seconds: float = 10) -> None:
        try:
            until(lambda: re.search(pattern, self.text), seconds=seconds, what=f"a line like {pattern!r}")
        except Broken as error:
            raise AssertionError(f"{error}; the log ends with:\n{tail(self._path)}") from error
