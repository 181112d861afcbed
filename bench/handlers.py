"""How long handlers take: dockerd's requests to a real daemon, its store an etcd on the LAN of a lab.

Two hosts of a lab, each with its daemon; this program plays dockerd on both, so that nothing but the daemon is in the
figures.  Every cycle goes through the life of a network and that of a container on host1, looks when host2's kernel
knows the container, and measures each of the limits once: an empty method, and the steps that handlers are made of,
each by itself.  The *floor* of a method is an empty method plus the steps that it takes, which are counted, not
assumed.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import dockerd
from bench.agent import Agent, KernelWatch, disk_commits
from bench.dockerd import Answer, PluginSocket
from bench.figures import Samples, Tell, milliseconds, records, table
from bench.inside import STEPS
from spanlan.lab import Lab
from spanlan.lab.host import Host

CONTAINERS = ("bench-containers", "10.42.0.0/16")
NETWORKS = ("bench-networks", "10.43.0.0/16")
"""Segments: the one that containers come to and go from, and the one that host1 joins and leaves again."""

EMPTY = "Plugin.Activate"
METHODS = {
    "IpamDriver.RequestPool": "RequestPool",
    "IpamDriver.RequestAddress (gateway)": "RequestAddress (gateway)",
    "NetworkDriver.CreateNetwork": "CreateNetwork",
    "IpamDriver.RequestAddress": "RequestAddress",
    "NetworkDriver.CreateEndpoint": "CreateEndpoint",
    "NetworkDriver.Join": "Join",
    "NetworkDriver.Leave": "Leave",
    "NetworkDriver.DeleteEndpoint": "DeleteEndpoint",
    "IpamDriver.ReleaseAddress": "ReleaseAddress",
    "NetworkDriver.DeleteNetwork": "DeleteNetwork",
    "IpamDriver.ReleaseAddress (gateway)": "ReleaseAddress (gateway)",
    "IpamDriver.ReleasePool": "ReleasePool",
}
LINKS = {
    "NetworkDriver.Join": "macvlan_made",
    "NetworkDriver.DeleteEndpoint": "macvlan_deleted",
    "NetworkDriver.CreateNetwork": "vxlan_made",
    "NetworkDriver.DeleteNetwork": "vxlan_deleted",
}
"""What a method does to links; that cannot be counted from outside."""

APPEARS, DISAPPEARS = "CreateEndpoint answered → entries in host2's kernel", "DeleteEndpoint answered → entries gone"
_WARMING = 3
_COUNTED = 5


@dataclass(frozen=True, slots=True)
class Network:
    """A network of one engine, as dockerd knows it."""

    id: str
    pool: str
    gateway: str


class Engine:
    """dockerd's part on one host; ``took`` has the seconds of every call by method."""

    def __init__(self, host: Host) -> None:
        self._socket = PluginSocket(host.plugin_socket)
        self.took: dict[str, Samples] = {}

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ask(self, method: str, body: dict[str, Any] | None = None, *, note: str = "") -> Answer:
        """One call; ``note`` tells uses of a method apart."""
        answer = self._socket.call(method, body)
        self.took.setdefault(method + note, Samples()).add(answer.seconds)
        return answer

    def make_network(self, segment: str, subnet: str) -> Network:
        """``docker network create``."""
        pool = self.ask("IpamDriver.RequestPool", dockerd.request_pool(subnet)).body["PoolID"]
        gateway = self.ask("IpamDriver.RequestAddress", dockerd.request_gateway(pool), note=" (gateway)").body[
            "Address"
        ]
        network = Network(secrets.token_hex(32), pool, gateway)
        self.ask("NetworkDriver.CreateNetwork", dockerd.create_network(network.id, segment, subnet, gateway))
        return network

    def remove_network(self, network: Network) -> None:
        """``docker network rm``."""
        self.ask("NetworkDriver.DeleteNetwork", dockerd.of_network(network.id))
        released = dockerd.release_address(network.pool, network.gateway)
        self.ask("IpamDriver.ReleaseAddress", released, note=" (gateway)")
        self.ask("IpamDriver.ReleasePool", dockerd.release_pool(network.pool))


@dataclass(slots=True)
class Bench:
    """What a cycle needs."""

    lab: Lab
    engine: Engine
    network: Network
    limits: Agent
    watch: KernelWatch

    def cycle(self) -> Iterator[tuple[str, float]]:
        """Everything once; yields what was measured besides the calls."""
        engine, network = self.engine, self.network
        engine.remove_network(engine.make_network(*NETWORKS))
        yield "nothing", engine.ask(EMPTY).seconds
        endpoint = secrets.token_hex(32)
        address = engine.ask("IpamDriver.RequestAddress", dockerd.request_address(network.pool)).body["Address"]
        created = engine.ask("NetworkDriver.CreateEndpoint", dockerd.create_endpoint(network.id, endpoint, address))
        entries = (address.partition("/")[0], created.body["Interface"]["MacAddress"])
        # Both hosts share the processors here: host2 shall have done before host1 goes on.
        yield APPEARS, self.watch.when(entries, there=True) - created.at
        engine.ask("NetworkDriver.Join", dockerd.join(network.id, endpoint))
        engine.ask("NetworkDriver.Leave", dockerd.of_endpoint(network.id, endpoint))
        deleted = engine.ask("NetworkDriver.DeleteEndpoint", dockerd.of_endpoint(network.id, endpoint))
        yield DISAPPEARS, self.watch.when(entries, there=False) - deleted.at
        engine.ask("IpamDriver.ReleaseAddress", dockerd.release_address(network.pool, address))
        for step in STEPS:
            yield step, self.limits.order(step)["seconds"]


@contextmanager
def _bench(tell: Tell) -> Iterator[Bench]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(f"bench-{os.getpid()}", hosts=2, progress=lambda text: tell(f"   {text}")))
        near, far = (Engine(host) for host in lab.hosts)
        stack.callback(near.close)
        stack.callback(far.close)
        for segment in (CONTAINERS, NETWORKS):
            far.make_network(*segment)
        network = near.make_network(*CONTAINERS)
        device = lab.hosts[0].run(["sh", "-c", "basename /sys/class/net/slx-*"]).stdout.strip()
        limits = stack.enter_context(Agent(lab.hosts[0], "limits", lab.etcd.endpoint, device))
        watch = stack.enter_context(KernelWatch(lab.hosts[1]))
        yield Bench(lab, near, network, limits, watch)


def measure(*, cycles: int, tell: Tell) -> dict[str, Any]:
    """Run it; returns everything for the JSON file.  Needs root.  Takes about 0.2 s a cycle."""
    tell("handlers: a lab of two hosts")
    with _bench(tell) as bench:
        tell(f"handlers: {_WARMING} cycles to warm up, {_COUNTED} in which the steps are counted")
        for _ in range(_WARMING):
            list(bench.cycle())
        steps = _count_steps(bench)
        bench.engine.took.clear()
        beside: dict[str, Samples] = {}
        for number in range(cycles):
            for name, seconds in bench.cycle():
                beside.setdefault(name, Samples()).add(seconds)
            if (number + 1) % max(1, cycles // 10) == 0:
                tell(f"handlers: {number + 1} of {cycles} cycles")
        took = bench.engine.took
    limits = {name: beside[name] for name in ("nothing", *STEPS)}
    methods = {name: took[name] for name in METHODS}
    return {
        "cycles": cycles,
        "methods": {
            METHODS[name]: each.as_record() | {"steps": steps[name], "floor": _floor(steps[name], limits)}
            for name, each in methods.items()
        },
        "limits": records(limits),
        "other_host": records({name: beside[name] for name in (APPEARS, DISAPPEARS)}),
    }


def _floor(steps: dict[str, int], limits: dict[str, Samples]) -> float:
    return limits["nothing"].p50 + sum(count * limits[step].p50 for step, count in steps.items())


def _count_steps(bench: Bench) -> dict[str, dict[str, int]]:
    """The steps of each method, by the counters of etcd and of the daemon's own store; the most frequent count."""
    disk = bench.lab.hosts[0].disk
    seen: dict[str, list[tuple[int, int, int]]] = {}
    plain = bench.engine.ask

    def counts() -> tuple[int, int, int]:
        etcd = bench.limits.order("requests")
        return etcd["reads"], etcd["writes"], disk_commits(disk)

    def counting(method: str, body: dict[str, Any] | None = None, *, note: str = "") -> Answer:
        before = counts()
        answer = plain(method, body, note=note)
        after = counts()
        seen.setdefault(method + note, []).append((after[0] - before[0], after[1] - before[1], after[2] - before[2]))
        return answer

    bench.engine.ask = counting  # type: ignore[method-assign]
    try:
        for _ in range(_COUNTED):
            list(bench.cycle())
    finally:
        del bench.engine.ask
    return {method: _steps(method, each) for method, each in seen.items()}


def _steps(method: str, seen: list[tuple[int, int, int]]) -> dict[str, int]:
    usual = max(set(seen), key=seen.count)
    steps = dict(zip(("read", "write", "disk"), usual, strict=True))
    if method in LINKS:
        steps[LINKS[method]] = 1
    return steps


def report(result: dict[str, Any]) -> str:
    """The result as a person reads it."""
    names = {
        "nothing": f"an empty method ({EMPTY}) on the same socket",
        "read": "a bare read of etcd from the same host",
        "write": "a bare transaction of etcd from the same host",
        "disk": "a durable commit to SQLite on the same disk",
        "macvlan_made": "a macvlan link made",
        "macvlan_deleted": "a macvlan link deleted",
        "vxlan_made": "a VXLAN device made and set up",
        "vxlan_deleted": "a VXLAN device deleted",
    }
    limits = result["limits"]
    empty, write = limits["nothing"]["p50"], limits["write"]["p50"]
    rows = []
    for name, each in result["methods"].items():
        steps = each["steps"]
        rows.append(
            [
                name,
                str(each["n"]),
                milliseconds(each["p50"]),
                milliseconds(each["p99"]),
                f"{each['p50'] / empty:.1f}",
                f"{each['p50'] / write:.1f}",
                str(steps["read"]),
                str(steps["write"]),
                str(steps["disk"]),
                milliseconds(each["floor"]),
                f"{each['p50'] / each['floor']:.2f}",
            ]
        )
    head = ["method", "n", "p50 ms", "p99 ms", "÷ empty", "÷ etcd write"]
    head += ["etcd reads", "etcd writes", "disk commits", "floor ms", "p50 ÷ floor"]
    plain = ["", "n", "p50 ms", "p99 ms"]
    return "\n\n".join(
        [
            "Handlers (etcd on the LAN)",
            table(head, rows),
            "The limits, measured in the same cycles",
            table(plain, [_row(names[name], each) for name, each in limits.items()]),
            "The other host",
            table(plain, [_row(name, each) for name, each in result["other_host"].items()]),
        ]
    )


def _row(name: str, each: dict[str, float]) -> list[str]:
    return [name, str(each["n"]), milliseconds(each["p50"]), milliseconds(each["p99"])]
