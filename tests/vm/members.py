"""Containers on the guest's LAN: what tests of its networks do with them and ask of them.

A start takes the guest some seconds, and twice that with IPv6 (dockerd runs itself once more for each interface that
has it).  So tests share containers, and connect them to further networks while they run.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from lab.containers import SERVER, Container, at_once, links, start
from lab.lan_networks import lan_line, routes
from spanlan.lab.host import Host
from vm.trunk import LanLab

SERVED = "spanlan lab\n"


def create_everywhere(lan_lab: LanLab, name: str, *more: str, **options: object) -> None:
    """The same ``docker network create`` line on both hosts, at once: see :func:`lab.lan_networks.lan_line`."""
    lan_lab.on_both(lambda host: create_on(host, name, *more, **options))


def create_on(host: Host, name: str, *more: str, **options: object) -> None:
    """An ipvlan network on one host."""
    host.docker(*lan_line(name, *more, **{"mode": "ipvlan", **options}))  # type: ignore[arg-type]


def start_together(*places: tuple[Host, str, str, Sequence[str]]) -> list[Container]:
    """Containers with a web server: host, name, network and further words each."""
    return at_once(lambda place: start(*place[:3], *place[3], command=SERVER), places, threads=2)


def connect(container: Container, network: str, address: str, address6: str | None = None) -> Container:
    """Put a container on one more network while it runs, with these addresses; the container as it is on that one."""
    v6 = () if address6 is None else ("--ip6", address6)
    container.host.docker("network", "connect", "--ip", address, *v6, network, container.name)
    return replace(container, address=address, address6=address6)


def connect_together(network: str, *places: tuple[Container, str]) -> list[Container]:
    """Containers and the addresses that they get there."""
    return at_once(lambda place: connect(place[0], network, place[1]), places, threads=2)


def disconnect(container: Container, network: str) -> None:
    container.host.docker("network", "disconnect", network, container.name)


def fetches(client: Container, server: Container, family: int) -> bool:
    """Whether a client gets a page over TCP."""
    address = f"[{server.on(6)}]" if family == 6 else server.on(4)
    return client.inside("curl", "-s", "--max-time", "5", f"http://{address}/", check=False) == SERVED


def interface_of(container: Container) -> str:
    """The interface with the container's address: dockerd numbers them on when networks come and go."""
    told = json.loads(container.inside("ip", "-j", "addr", "show", "to", container.address))
    return str(next(link["ifname"] for link in told if link.get("ifname")))


def link_of(host: Host, name: str) -> tuple[int, str] | None:
    """The index of a host's link and the mark on it: the same link has the same ones, one made anew has not."""
    link = links(host).get(name)
    return None if link is None else (link["ifindex"], link.get("ifalias", ""))


def routes_on(container: Container) -> set[tuple[str, str | None]]:
    """Destination and router of the routes over the interface with the container's address."""
    interface = interface_of(container)
    return {(destination, router) for destination, router, over in routes(container) if over == interface}


def next_hops(host: Host) -> dict[str, str]:
    """Where the routes lead that spanlan has set on a host: destination to next hop, or to the link if it has none."""
    found = {}
    for family in ("-4", "-6"):
        told = host.run(["ip", "-j", family, "route", "show", "proto", "90"]).stdout
        found |= {route["dst"]: route.get("gateway", route["dev"]) for route in json.loads(told or "[]")}
    return found
