"""The wire between the hosts: a network namespace with a bridge in it, and the etcd that all hosts can reach.

The bridge has a namespace of its own so that this machine's packet filter never sees what the hosts say to each other.
Host N is plugged into port ``hostN`` (a capture there sees what crosses that host's wire).  Bridge and ports are made
where they belong: no name of theirs ever shows up among this machine's own interfaces.
"""

import platform
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spanlan.lab import commands
from spanlan.lab.names import ETCD_ROLE, LAN, LAN_ADDRESS, LAN_ADDRESS6, LAN_MAC, Names
from spanlan.lab.services import Service

CLIENT_PORT = 2379
START_SECONDS = 20.0


class Lan:
    """The LAN's namespace: running programs in it."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.netns = names.netns(LAN)

    def build(self) -> None:
        """Make the namespace and the bridge, with the addresses that the hosts' default routes point to."""
        commands.run(["ip", "netns", "add", self.netns.name])
        setup = (
            "link set lo up",
            # A bridge without a MAC of its own takes the lowest of its ports, so another one whenever a host comes or
            # goes, and the hosts would not reach etcd until they ask for it again.
            # With snooping and no querier, neighbour solicitations to a silent group would be dropped.
            # VLAN filtering is off by default: tags pass as they are.
            f"link add {LAN} address {LAN_MAC} type bridge mcast_snooping 0",
            f"addr add {LAN_ADDRESS}/24 dev {LAN}",
            f"addr add {LAN_ADDRESS6}/64 dev {LAN} nodad",
            f"link set {LAN} up",
        )
        commands.run(["ip", "-n", self.netns.name, "-batch", "-"], input="\n".join(setup))
        # Absent without the br_netfilter module, and then there is nothing to switch off.
        for family in ("iptables", "ip6tables", "arptables"):
            self.run(["sysctl", "-qw", f"net.bridge.bridge-nf-call-{family}=0"], check=False)

    def run(
        self, command: Sequence[str | Path], *, timeout: float = 30.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the LAN's network namespace; errors as :func:`spanlan.lab.commands.run`."""
        return commands.run(self._inside(command), timeout=timeout, check=check, env=self._environment())

    def popen(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        """Start a program in the LAN's network namespace; ``options`` are those of subprocess.Popen."""
        return commands.popen(self._inside(command), env=self._environment(), options=options)

    def _inside(self, command: Sequence[str | Path]) -> list[str]:
        return ["nsenter", f"--net={self.netns}", "--", *(str(word) for word in command)]

    def _environment(self) -> dict[str, str]:
        return commands.environment(self._names.mark("lan.run"))


class Etcd:
    """The one etcd server of a lab; it keeps its data over stop, kill and start."""

    def __init__(self, names: Names, lan: Lan) -> None:
        self._names = names
        self._lan = lan
        self.endpoint = f"{LAN_ADDRESS}:{CLIENT_PORT}"
        self.service = Service(
            mark=names.mark(ETCD_ROLE),
            pid_file=names.run_dir / "etcd.pid",
            log=names.run_dir / "etcd.log",
        )

    @property
    def url(self) -> str:
        """What a daemon's ``SPANLAN_STORE`` is set to."""
        return f"etcd://{self.endpoint}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        client = f"http://{self.endpoint},http://[{LAN_ADDRESS6}]:{CLIENT_PORT}"
        peer = "http://127.0.0.1:2380"
        # Alone, it need not wait a second for the voices of others before it serves.
        heartbeat = int(20 * commands.slowness())
        command = [
            "etcd",
            *("--name", "lab", "--data-dir", str(self._names.disk_dir / "etcd")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"lab={peer}"),
            *("--heartbeat-interval", str(heartbeat), "--election-timeout", str(10 * heartbeat)),
            *("--logger", "zap", "--log-level", "warn"),
        ]
        # etcd 3.4 starts on other processors than amd64 only if it is told that this is meant.
        env = {"ETCD_UNSUPPORTED_ARCH": "arm64"} if platform.machine() == "aarch64" else {}
        self.service.start(command, env, netns=self._lan.netns)
        self.service.wait_until(self.answers, seconds=START_SECONDS, what="etcd's first answer")

    def answers(self) -> bool:
        """Whether the server answers a read that needs its agreement."""
        health = self.control("endpoint", "health", f"--command-timeout={commands.patience(1):g}s", check=False)
        return health.returncode == 0

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait."""
        self.service.end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.service.end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nobody answers."""
        self.service.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after :meth:`pause`."""
        self.service.send(signal.SIGCONT)

    def control(self, *arguments: str, timeout: float = 15.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``etcdctl`` (API version 3) against this server."""
        command = ["nsenter", f"--net={self._lan.netns}", "--", "etcdctl", f"--endpoints={self.endpoint}", *arguments]
        more: Mapping[str, str] = {"ETCDCTL_API": "3"}
        env = commands.environment(self._names.mark("etcdctl"), more)
        return commands.run(command, timeout=timeout, check=check, env=env)
