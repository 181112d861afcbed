"""The physical LAN of the lab, as a network engineer has it: a switch that passes tags, and a router on it.

    lan_lab.a, lan_lab.b     the hosts; their ``eth0`` is a trunk: untagged frames and any VLAN pass
    lan_lab.router           a machine on the same switch with a leg in VLAN 10, in VLAN 20 and untagged, which routes
                             between them in both families
    lan_lab.wire()           what crosses the switch, tags and all, as tcpdump(8) tells it

Networks of the router's legs, for ``docker network create``: ``lan_lab.router.leg(10).words()``.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from lab.containers import at_once
from lab.wire import Capture, capture
from netns import NetworkNamespace
from spanlan.lab import Lab
from spanlan.lab.commands import run
from spanlan.lab.host import Host
from spanlan.lab.names import LAN

T = TypeVar("T")

PORT = "router"
"""The router's port on the switch; there is one router for a lab."""
MAC = "02:99:00:00:00:fe"
UNTAGGED = 0
VLANS = (UNTAGGED, 10, 20)


@dataclass(frozen=True, slots=True)
class Leg:
    """Where the router stands in a VLAN (0: untagged): its interface, the subnets, its own address in each."""

    vlan: int

    @property
    def interface(self) -> str:
        return f"eth0.{self.vlan}" if self.vlan else "eth0"

    @property
    def subnet(self) -> str:
        return f"192.168.{self.vlan}.0/24"

    @property
    def subnet6(self) -> str:
        return f"{self._prefix6}::/64"

    @property
    def gateway(self) -> str:
        return f"192.168.{self.vlan}.1"

    @property
    def gateway6(self) -> str:
        return f"{self._prefix6}::1"

    @property
    def _prefix6(self) -> str:
        return f"fd00:{self.vlan}" if self.vlan else "fd01"

    def words(self, families: tuple[int, ...] = (4, 6)) -> list[str]:
        """Subnets and gateways, as ``docker network create`` takes them."""
        v4 = ["--subnet", self.subnet, "--gateway", self.gateway] if 4 in families else []
        v6 = ["--ipv6", "--subnet", self.subnet6, "--gateway", self.gateway6] if 6 in families else []
        return [*v4, *v6]


class Router:
    """A router on a stick, plugged into the LAN of a lab; it goes with this object."""

    def __init__(self, lab: Lab) -> None:
        self._lan = lab.names.netns(LAN).name
        self.namespace = NetworkNamespace()
        ends = ("link", "add", PORT, "netns", self._lan, "type", "veth", "peer", "name", "eth0")
        run(["ip", *ends, "netns", self.namespace.path])
        run(["ip", "-n", self._lan, "link", "set", PORT, "master", LAN, "up"])
        for setting in ("ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv4.conf.all.send_redirects=0"):
            self.command("sysctl", "-qw", f"net.{setting}")
        self.command("ip", "link", "set", "eth0", "address", MAC, "up")
        for vlan in VLANS:
            self.join(self.leg(vlan))

    @staticmethod
    def leg(vlan: int) -> Leg:
        """The router's place in a VLAN."""
        return Leg(vlan)

    def join(self, leg: Leg) -> None:
        """Stand in one more VLAN."""
        if leg.vlan:
            words = ("name", leg.interface, "type", "vlan", "id", str(leg.vlan))
            self.command("ip", "link", "add", "link", "eth0", *words)
        self.command("ip", "addr", "add", f"{leg.gateway}/24", "dev", leg.interface)
        self.command("ip", "addr", "add", f"{leg.gateway6}/64", "dev", leg.interface, "nodad")
        self.command("ip", "link", "set", leg.interface, "up")

    def command(self, *words: str, **more: Any) -> Any:
        """Run a program on the router."""
        return self.namespace.command(*words, **more)

    def remove(self) -> None:
        """Pull the plug."""
        run(["ip", "-n", self._lan, "link", "del", PORT], check=False)
        self.namespace.close()


@dataclass(frozen=True, slots=True)
class LanLab:
    """The shared lab, seen as a LAN; see the module."""

    lab: Lab
    router: Router

    @property
    def hosts(self) -> list[Host]:
        return self.lab.hosts

    @property
    def a(self) -> Host:
        return self.lab.hosts[0]

    @property
    def b(self) -> Host:
        return self.lab.hosts[1]

    def on_both(self, work: Callable[[Host], T]) -> list[T]:
        """Do something on both hosts at once (half the time of one after the other); the results in order."""
        return at_once(work, self.hosts, threads=2)

    def wire(self, *more: str) -> AbstractContextManager[Capture]:
        """What crosses the switch during a ``with`` block: ``wire.wait_for("vlan 10", "echo request")``."""
        return capture(self.lab.lan, "-e", *more, interface=LAN)
