"""What users do on the physical LAN: networks whose parent is a NIC, machines beside them, further NICs."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from lab.containers import IDLE, Container, running
from spanlan.lab import IMAGE, Lab
from spanlan.lab.host import Host

ROUTERS = {"10.50.0.0/24": "10.50.0.1", "fd50::/64": "fd50::1"}
"""Subnet to the address of its router, of a LAN that is not the hosts' own."""
OUR_ROUTES = "90"
"""The protocol number of routes that are ours, as ip-route(8) tells it."""


def lan_line(
    name: str,
    *more: str,
    mode: str = "macvlan",
    parent: str | None = "eth0",
    subnets: Mapping[str, str | None] | None = None,
    ipam: str | None = "spanlan",
) -> list[str]:
    """What is typed to make a network on the LAN; ``subnets`` with their routers, ``ipam``: None for Docker's own."""
    pools = ROUTERS if subnets is None else subnets
    words = [] if ipam is None else ["--ipam-driver", ipam]
    words += ["--ipv6"] if any(":" in subnet for subnet in pools) else []
    for subnet, router in pools.items():
        words += ["--subnet", subnet] + ([] if router is None else ["--gateway", router])
    words += ["-o", f"mode={mode}"] + ([] if parent is None else ["-o", f"parent={parent}"])
    return ["network", "create", "-d", "spanlan", *words, *more, name]


def create_lan(hosts: Iterable[Host], name: str, *more: str, **options: Any) -> None:
    """The same line on every host."""
    for host in hosts:
        host.docker(*lan_line(name, *more, **options))


def start_with_mac(host: Host, name: str, network: str, mac: str, *more: str) -> Container:
    """As ``docker run --mac-address --ip --ip6``, which newer command lines do not offer with older engines."""
    addresses = {("ipv6_address" if ":" in each else "ipv4_address"): each for each in more}
    with closing(host.docker_client()) as client:
        api = client.api
        endpoint = api.create_networking_config({network: api.create_endpoint_config(**addresses)})
        made = api.create_container(
            IMAGE,
            list(IDLE),
            name=name,
            mac_address=mac,
            stop_signal="KILL",
            networking_config=endpoint,
            host_config=api.create_host_config(network_mode=network),
        )
        api.start(made)
    return running(host, name, network)


@contextmanager
def router(lab: Lab, subnets: Mapping[str, str | None] = ROUTERS) -> Iterator[None]:
    """A machine on the LAN, no host of the cluster, that has the routers' addresses of these subnets and forwards.

    It sends no redirects: ping(8) would take the first one for the end.
    """
    addresses = [f"{address}/{subnet.partition('/')[2]}" for subnet, address in subnets.items() if address is not None]
    for address in addresses:
        lab.lan.run(["ip", "addr", "add", address, "dev", "lan", *(("nodad",) if ":" in address else ())])
    forward = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
    redirect = ["net.ipv4.conf.all.send_redirects", "net.ipv4.conf.lan.send_redirects"]
    lab.lan.run(["sysctl", "-qw", *(f"{name}=1" for name in forward), *(f"{name}=0" for name in redirect)])
    try:
        yield
    finally:
        lab.lan.run(["sysctl", "-qw", *(f"{name}=0" for name in forward)])
        for address in addresses:
            lab.lan.run(["ip", "addr", "del", address, "dev", "lan"])


@contextmanager
def reflecting(lab: Lab, host: Host) -> Iterator[None]:
    """The switch port of a host sends frames back to where they came from (IEEE 802.1Qbg, reflective relay)."""
    port = ["bridge", "link", "set", "dev", host.name, "hairpin"]
    lab.lan.run([*port, "on"])
    try:
        yield
    finally:
        lab.lan.run([*port, "off"])


@contextmanager
def second_nic(lab: Lab, *hosts: Host, name: str = "eth1", mtu: int = 1500) -> Iterator[None]:
    """A further NIC on these hosts, plugged into the same LAN; whatever its name is at the end, it goes."""
    for host in hosts:
        plug_in(lab, host, name, mtu=mtu)
    try:
        yield
    finally:
        for host in hosts:
            unplug(lab, host)


def plug_in(lab: Lab, host: Host, name: str = "eth1", *, mtu: int = 1500) -> None:
    """Give a host a second NIC, which is silent about the addresses of the first, as it should be on one LAN."""
    port = ("peer", "name", _port(host), "netns", lab.lan.netns.name, "mtu", str(mtu))
    # Run in the LAN's namespace, the one that knows the other by its name.
    lab.lan.run(["ip", "link", "add", name, "mtu", str(mtu), "netns", host.netns.name, "type", "veth", *port])
    lab.lan.run(["ip", "link", "set", _port(host), "master", "lan", "up"])
    host.run(["sysctl", "-qw", f"net.ipv4.conf.{name}.arp_ignore=1"])
    host.run(["ip", "link", "set", name, "up"])


def unplug(lab: Lab, host: Host) -> None:
    """Take the second NIC away, as a driver that is unloaded does; nothing to do is fine."""
    lab.lan.run(["ip", "link", "del", _port(host)], check=False)


def _port(host: Host) -> str:
    return f"{host.name}-second"


def pings(where: Host | Lab, address: str, *more: str, seconds: int = 2) -> bool:
    """Whether a host itself, or for a lab the machine on its LAN, gets an answer to one ping."""
    line = ["ping", "-c", "1", "-W", str(seconds), *more, address]
    return " 1 received," in (where.lan if isinstance(where, Lab) else where).run(line, check=False).stdout


def routes(container: Container) -> set[tuple[str, str | None, str]]:
    """All of a container's routes that reach further than one link: destination, router, interface."""
    told = [json.loads(container.inside("ip", "-j", family, "route")) for family in ("-4", "-6")]
    return {
        (route["dst"], route.get("gateway"), route["dev"])
        for table in told
        for route in table
        if not route["dst"].startswith("fe80:") and route.get("type", "unicast") == "unicast"
    }


def our_routes(host: Host) -> list[str]:
    """Destinations of the routes that spanlan has set on a host."""
    found: list[str] = []
    for family in ("-4", "-6"):
        told = host.run(["ip", "-j", family, "route", "show", "table", "all", "proto", OUR_ROUTES]).stdout
        found += [route["dst"] for route in json.loads(told or "[]")]
    return sorted(found)


def macvlan_of(container: Container, name: str = "eth0") -> dict[str, Any]:
    """What is told of a container's interface, its kind and mode among it."""
    link = container.links()[name]
    assert link["linkinfo"]["info_kind"] == "macvlan"
    return link


def mac_of(container: Container, name: str = "eth0") -> str:
    return str(container.links()[name]["address"])


def all_ping_all(containers: Sequence[Container]) -> None:
    """In both families."""
    for one in containers:
        for other in containers:
            for family in (4, 6):
                assert one is other or one.pings(other.on(family)), f"{one.name} to {other.name}, IPv{family}"
