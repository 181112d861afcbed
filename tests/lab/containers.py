"""What users do with Docker, in few words: a network on several hosts, containers on it, and whom those reach."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, TypeVar

from lab.cleanliness import assert_nothing_left, heal
from spanlan.lab import IMAGE, Lab
from spanlan.lab.commands import run
from spanlan.lab.host import Host

S = TypeVar("S")
T = TypeVar("T")

IDLE = ("sleep", "600")
SERVER = ("sh", "-c", "httpd -p 80 -h /www && exec iperf3 -s")
"""Serves ``spanlan lab`` over HTTP on port 80, and iperf3's own port."""
STORE_ROOT = "/spanlan/v1"


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runs, and its addresses on the network that it was started on (IPv6: None if it has none)."""

    host: Host
    name: str
    namespace: Path
    address: str
    address6: str | None

    def on(self, family: int) -> str:
        """Its address of a family."""
        address = {4: self.address, 6: self.address6}[family]
        assert address, f"{self.name} has no IPv{family} address"
        return address

    def inside(self, *command: str, check: bool = True, timeout: float = 20) -> str:
        """What a program of this machine says that is run in the container's network, with all rights there."""
        line = ["nsenter", f"--net={self.namespace}", "--", *command]
        return run(line, check=check, timeout=timeout, what=f"{self.name}: {' '.join(command)}").stdout

    def pings(self, address: str, *more: str, count: int = 1, seconds: int = 2) -> bool:
        """Whether every one of ``count`` pings is answered within ``seconds``; none is sent twice."""
        said = self.inside(
            "ping", "-c", str(count), "-i", "0.05", "-W", str(seconds), *more, address, check=False, timeout=30
        )
        return f" {count} received," in said

    def knows(self, address: str) -> str | None:
        """The MAC that the container itself remembers for an address."""
        entries = json.loads(self.inside("ip", "-j", "neigh", "show", "to", address))
        return next((entry["lladdr"] for entry in entries if "lladdr" in entry), None)

    def forget_neighbours(self) -> None:
        for family in ("-4", "-6"):
            self.inside("ip", family, "neigh", "flush", "all")

    def links(self) -> dict[str, dict[str, Any]]:
        """Its interfaces by name, as ``ip -d -j link`` tells them."""
        return {link["ifname"]: link for link in json.loads(self.inside("ip", "-d", "-j", "link", "show"))}

    def addresses(self) -> set[str]:
        """All of its addresses that reach further than one link."""
        told = json.loads(self.inside("ip", "-j", "addr", "show", "scope", "global"))
        return {entry["local"] for link in told for entry in link.get("addr_info", ()) if "local" in entry}

    def remove(self) -> None:
        self.host.docker("rm", "-f", self.name)


# -- making ---------------------------------------------------------------------------------------------------------


def line(name: str, *more: str, subnets: Sequence[str] = (), segment: str | None = None) -> list[str]:
    """What is typed to make a network; ``segment`` is its own name if not given."""
    v6 = ("--ipv6",) if any(":" in subnet for subnet in subnets) else ()
    pools = [word for subnet in subnets for word in ("--subnet", subnet)]
    plugin = ("-d", "spanlan", "--ipam-driver", "spanlan", "-o", f"segment={segment or name}")
    return ["network", "create", *plugin, *v6, *pools, *more, name]


def create(
    hosts: Iterable[Host], name: str, *more: str, subnets: Sequence[str] = (), segment: str | None = None
) -> None:
    """The same line on every host, as users do."""
    for host in hosts:
        host.docker(*line(name, *more, subnets=subnets, segment=segment))


def start(
    host: Host, name: str, network: str, *more: str, command: Sequence[str] = IDLE, image: str = IMAGE
) -> Container:
    """``docker run -d``, with a signal that even a first process heeds: it ignores SIGTERM, and docker waits 10 s."""
    host.docker("run", "-d", "--stop-signal", "KILL", "--name", name, "--network", network, *more, image, *command)
    return running(host, name, network)


def running(host: Host, name: str, network: str) -> Container:
    """A container that runs already, as it is now."""
    told = inspect(host, name)["NetworkSettings"]
    joined = told["Networks"][network]
    key = told["SandboxKey"].removeprefix("/var").lstrip("/")
    assert key, f"{name} does not run"
    return Container(host, name, host.root / key, joined["IPAddress"], joined["GlobalIPv6Address"] or None)


def inspect(host: Host, name: str) -> dict[str, Any]:
    """What ``docker inspect`` tells of a container."""
    found: dict[str, Any] = json.loads(host.docker("container", "inspect", name).stdout)[0]
    return found


def at_once(call: Callable[[S], T], each: Iterable[S], *, threads: int = 40) -> list[T]:
    """Make a call for each, in parallel; the results in order, or the first error."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, each))


def refusal(host: Host, *words: str) -> str:
    """What docker says to a command that it must refuse."""
    result = host.docker(*words, check=False)
    assert result.returncode != 0, f"docker {' '.join(words)} was not refused: {result.stdout}"
    return result.stderr


# -- looking ----------------------------------------------------------------------------------------------------------


def links(host: Host) -> dict[str, dict[str, Any]]:
    """The host's interfaces by name."""
    return {link["ifname"]: link for link in json.loads(host.run(["ip", "-d", "-j", "link", "show"]).stdout)}


def device(host: Host, segment: str) -> dict[str, Any]:
    """The VXLAN device of a segment on a host."""
    alias = f"spanlan segment={segment}"
    found = [link for link in links(host).values() if link.get("ifalias") == alias]
    assert len(found) == 1, f"{host.name} has {len(found)} devices of segment {segment}"
    return found[0]


def neighbours(host: Host, segment: str) -> dict[str, str]:
    """Address to MAC, as the host's kernel knows them on the segment's device."""
    told = json.loads(host.run(["ip", "-j", "neigh", "show", "dev", device(host, segment)["ifname"]]).stdout)
    return {entry["dst"]: entry["lladdr"] for entry in told if "PERMANENT" in entry["state"]}


def fdb(host: Host, segment: str) -> dict[str, str]:
    """MAC to VTEP, as the host's kernel knows them on the segment's device."""
    told = json.loads(host.run(["bridge", "-j", "fdb", "show", "dev", device(host, segment)["ifname"]]).stdout)
    return {entry["mac"]: entry["dst"] for entry in told if "dst" in entry}


def egress_legs(container: Container) -> list[str]:
    """Interfaces that dockerd added for the way out, beside the one that spanlan made."""
    return [name for name, link in container.links().items() if link.get("linkinfo", {}).get("info_kind") == "veth"]


def pool_of(host: Host, network: str) -> str:
    """The subnet of a network as its engine tells it (an engine may tell the gateway's address with it)."""
    pool = json.loads(host.docker("network", "inspect", network).stdout)[0]["IPAM"]["Config"][0]["Subnet"]
    return str(ip_interface(pool).network)


@contextmanager
def kept_clean(lab: Lab) -> Iterator[Lab]:
    """As the fixture ``clean_lab``, for what several tests share."""
    yield lab
    heal(lab)
    lab.clear()
    assert_nothing_left(lab)
