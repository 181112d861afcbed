"""The main job, shown: containers on two engines talk over one VXLAN network that etcd keeps in step.

Everything here is done as a user would do it, with the docker command and the kernel's own tools; each command is told
before it runs, so that the demo is also a recipe.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanlan.errors import Broken
from spanlan.lab import image
from spanlan.lab.host import Host
from spanlan.lab.lab import Lab

NETWORK = "blue"
SUBNET = "10.42.0.0/16"
MEGABYTES = 64

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Container:
    """A container of the demo: its host, its name, and the address that it got on the network."""

    host: Host
    name: str
    address: str


def show(lab: Lab, tell: Tell) -> None:
    """Run the demo in a lab that is up.  Raises Broken if anything is not as it should be."""
    tell(f"\n1. One network on both engines: the same line on {_names(lab.hosts)}")
    options = ("-d", "spanlan", "--ipam-driver", "spanlan", "--subnet", SUBNET, "-o", f"segment={NETWORK}", NETWORK)
    for host in lab.hosts:
        _docker(host, tell, "network", "create", *options)

    tell("\n2. A container on each; the cluster hands out the addresses")
    containers = [_start(host, tell) for host in lab.hosts]

    tell("\n3. They reach each other")
    pairs = [(one, other) for one in containers for other in containers if one is not other]
    for one, other in pairs:
        _ping(one, other, tell)

    tell(f"\n4. They transfer {MEGABYTES} MB of random bytes, each way, and compare them")
    for one, other in pairs:
        _transfer(one, other, tell)

    tell("\n5. What etcd knows, and what each kernel holds because of that")
    _table(tell, ("address", "MAC", "host"), _published(lab))
    for host in lab.hosts:
        _show_kernel(host, containers, tell)


def tidy(lab: Lab, tell: Tell) -> None:
    """Remove the demo's containers and networks, as a user would."""
    tell("\n6. Gone again")
    for host in lab.hosts:
        _docker(host, tell, "rm", "-f", _name_on(host))
        _docker(host, tell, "network", "rm", NETWORK)
    left = _published(lab)
    devices = [device for host in lab.hosts for device in _devices(host)]
    if left or devices:
        raise Broken(f"the demo left something behind: {left or devices}")
    tell("   no link, no entry and no key is left")


def _start(host: Host, tell: Tell) -> Container:
    name = _name_on(host)
    _docker(host, tell, "run", "-d", "--name", name, "--network", NETWORK, image.NAME, "httpd", "-f", "-h", "/www")
    template = f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}'
    address = host.docker("inspect", "--format", template, name).stdout.strip()
    tell(f"   {name} has {address}")
    return Container(host, name, address)


def _ping(one: Container, other: Container, tell: Tell) -> None:
    said = one.host.docker("exec", one.name, "ping", "-c", "3", "-i", "0.2", "-q", other.address).stdout
    loss = next((line for line in said.splitlines() if "packet loss" in line), "").split(", ")
    times = next((line for line in said.splitlines() if line.startswith("rtt")), "").partition(" = ")[2]
    average = times.split("/")[1] if times else "?"
    tell(f"   {one.name} → {other.name}: {loss[2] if len(loss) > 2 else 'no answer'}, {average} ms")  # noqa: PLR2004


def _transfer(one: Container, other: Container, tell: Tell) -> None:
    make = f"head -c {MEGABYTES * 1_000_000} /dev/urandom > /www/data && sha256sum < /www/data"
    expected = other.host.docker("exec", other.name, "sh", "-c", make).stdout
    started = time.monotonic()
    got = one.host.docker("exec", one.name, "sh", "-c", f"curl -sf http://{other.address}/data > /tmp/data").returncode
    seconds = time.monotonic() - started
    received = one.host.docker("exec", one.name, "sh", "-c", "sha256sum < /tmp/data; rm /tmp/data").stdout
    if got != 0 or received != expected:
        raise Broken(f"what {one.name} received from {other.name} is not what was sent")
    tell(f"   {one.name} ← {other.name}: the same bytes, {MEGABYTES / seconds:.0f} MB/s")


def _show_kernel(host: Host, containers: Sequence[Container], tell: Tell) -> None:
    known = {container.address: container for container in containers}
    for device in _devices(host):
        fdb = json.loads(host.run(["bridge", "-j", "fdb", "show", "dev", device]).stdout)
        behind = {entry["mac"]: entry["dst"] for entry in fdb if "dst" in entry}
        neighbours = json.loads(host.run(["ip", "-j", "neigh", "show", "dev", device]).stdout)
        rows: list[tuple[str, ...]] = []
        for neighbour in neighbours:
            of = known.get(neighbour["dst"])
            vtep = behind.get(neighbour["lladdr"], "?")
            rows.append((neighbour["dst"], neighbour["lladdr"], vtep, of.name if of else "?"))
        tell(f"   {host.name}: ip neigh and bridge fdb of {device}")
        _table(tell, ("address", "MAC", "behind VTEP", "is"), rows)


def _published(lab: Lab) -> list[tuple[str, str, str]]:
    values = lab.etcdctl("get", "--prefix", "--print-value-only", f"/spanlan/v1/segments/{NETWORK}/endpoints/").stdout
    records = [json.loads(line) for line in values.splitlines() if line]
    return [(record["address"], record["mac"], record["host"]) for record in records]


def _devices(host: Host) -> list[str]:
    links = json.loads(host.run(["ip", "-j", "link", "show", "type", "vxlan"]).stdout)
    return [link["ifname"] for link in links if link]


def _docker(host: Host, tell: Tell, *arguments: str) -> None:
    tell(f"   {host.name}$ docker {' '.join(arguments)}")
    host.docker(*arguments)


def _name_on(host: Host) -> str:
    return f"on-{host.name}"


def _names(hosts: Sequence[Host]) -> str:
    return " and ".join(host.name for host in hosts)


def _table(tell: Tell, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *sorted(rows)]:
        tell("      " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
