"""One host of a lab: a machine made of namespaces, with an engine and a spanlan daemon of its own.

Inside, everything has its default path (``/run/docker.sock``, ``/run/docker/plugins``, ``/var/lib/docker``,
``/var/lib/spanlan``); outside, ``/proc/PID/root`` of the host's first process is the way in.  ``kill -9`` of that
process is a power cut: the kernel ends every process of the host and takes its mounts away, the disks stay.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spanlan
from spanlan.errors import Broken, Gone
from spanlan.lab import commands, image, processes, unix_http
from spanlan.lab.names import LAN, LAN_ADDRESS, LAN_ADDRESS6, Names, host_name
from spanlan.lab.services import Service, midwife

if TYPE_CHECKING:
    from docker import DockerClient

ENGINE_SECONDS = 60.0
DAEMON_SECONDS = 30.0
DOCKER_SECONDS = 60.0
MOUNT_POINTS = {"/etc/docker": "etc-docker", "/var/lib/docker": "docker", "/var/lib/spanlan": "spanlan"}
"""Folder of a host to the folder on its disk."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every host of a lab gets.

    ``store``: the daemons' ``SPANLAN_STORE``.  ``ipv6_underlay``: tunnels end at the hosts' IPv6 addresses.
    ``daemon``: whether a booting host starts a spanlan daemon.  ``daemon_environment``: its further settings.
    ``engine_arguments``: further arguments of dockerd.  ``docker``: the command line client to use.
    """

    store: str
    ipv6_underlay: bool = False
    daemon: bool = True
    daemon_environment: Mapping[str, str] = field(default_factory=dict)
    engine_arguments: Sequence[str] = ()
    docker: str = "docker"


class Host:
    """A host of a lab; see the module for what it is made of."""

    def __init__(self, names: Names, number: int, equipment: Equipment) -> None:
        self.number = number
        self.name = host_name(number)
        self.address = f"10.99.0.{number}"
        self.address6 = f"fd99::{number}"
        self.mac = f"02:99:00:00:00:{number:02x}"
        self.netns = names.netns(self.name)
        self.run_dir = names.run_dir / self.name
        self.disk = names.disk_dir / self.name
        self.engine = self._service(names, "dockerd")
        self.daemon = self._service(names, "daemon")
        self._names = names
        self._equipment = equipment
        self._mark = names.mark(f"{self.name}.init")
        self._pid: int | None = None

    def __repr__(self) -> str:
        return f"<Host {self.name} of lab {self._names.lab}>"

    # -- the machine

    @property
    def pid(self) -> int:
        """PID of the host's first process, as seen from outside; raises Gone when the host is down."""
        if self._pid is None or processes.mark_of(self._pid) != self._mark:
            self._pid = processes.find(self._mark)
        if self._pid is None:
            raise Gone(f"{self.name} of lab {self._names.lab} is down")
        return self._pid

    @property
    def up(self) -> bool:
        """Whether the host's first process lives."""
        try:
            return self.pid > 0
        except Gone:
            return False

    @property
    def root(self) -> Path:
        """The host's root folder, as a path that works from outside while the host is up."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def storage_driver(self) -> str:
        """Docker's storage driver: ``overlay2`` where the kernel can stack one on the disk folder, else ``vfs``."""
        return (self.run_dir / "storage-driver").read_text().strip()

    def boot(self) -> None:
        """Plug the host in, start its daemon (if the lab has daemons) and its engine, and wait until both answer.

        Raises Broken, with the end of the log, if something does not come up.
        """
        # Where processors are slow, both at once would take longer than dockerd waits for its containerd.
        in_turn = commands.slowness() > 1
        self.power_on()
        if self._equipment.daemon:
            self.start_daemon(wait=in_turn)
        self.start_engine(wait=in_turn)
        if self._equipment.daemon:
            self._await_daemon()
        self._await_engine()
        self._import_image()

    def power_on(self) -> None:
        """Make the namespaces and the wire, and nothing that runs in them but the first process."""
        if self.up:
            raise Broken(f"{self.name} is up already")
        for folder in (self.run_dir, self.disk, *(self.disk / name for name in MOUNT_POINTS.values())):
            folder.mkdir(parents=True, exist_ok=True)
        if self.netns.exists():  # its first process was killed by somebody else
            self._unplug()
        self._plug_in()
        order = {
            "netns": str(self.netns),
            "hostname": self.name,
            "disk": str(self.disk),
            "binds": {target: str(self.disk / name) for target, name in MOUNT_POINTS.items()},
        }
        said = midwife("boot", order, mark=self._mark)
        (self.run_dir / "storage-driver").write_text(f"{said['storage']}\n")
        self._pid = int(said["pid"])

    def crash(self) -> None:
        """Cut the power: every process ends without a word, kernel state and ``/run`` are lost, the disks stay."""
        processes.end(self.pid, self._mark)
        self._pid = None
        self._unplug()

    def _plug_in(self) -> None:
        port, lan = self.name, self._names.netns(LAN).name
        commands.run(["ip", "netns", "add", self.netns.name])
        ends = ("link", "add", "eth0", "netns", self.netns.name, "type", "veth", "peer", "name", port, "netns", lan)
        commands.run(["ip", *ends])
        commands.run(["ip", "-n", lan, "link", "set", port, "master", LAN, "up"])
        setup = (
            "link set lo up",
            # A network card keeps its address over a crash; the neighbours of this host remember it.
            f"link set eth0 address {self.mac}",
            f"addr add {self.address}/24 dev eth0",
            f"addr add {self.address6}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add 0.0.0.0/0 via {LAN_ADDRESS}",
            f"route add ::/0 via {LAN_ADDRESS6}",
        )
        commands.run(["ip", "-n", self.netns.name, "-batch", "-"], input="\n".join(setup))

    def _unplug(self) -> None:
        # The port goes first: the namespace is taken apart in the background, and would hold the port's name meanwhile.
        commands.run(["ip", "-n", self._names.netns(LAN).name, "link", "del", self.name], check=False)
        commands.run(["ip", "netns", "del", self.netns.name])

    # -- running things

    def run(
        self,
        command: Sequence[str | Path],
        *,
        timeout: float = 30.0,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - the name that subprocess has for it
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host to its end.  ``timeout`` in seconds; errors as :func:`commands.run`."""
        env = self.environment(env)
        return commands.run(self.inside(command), timeout=timeout, check=check, input=input, env=env)

    def popen(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        """Start a program on the host; ``options`` are those of subprocess.Popen.

        The process object stands for nsenter(1): when that ends, for whatever reason, the program is killed.
        """
        return commands.popen(self.inside(command), env=self.environment(), options=options)

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs ``command`` on the host.

        A program that gives up root is let go by the leash (the kernel clears it then): ``tcpdump`` needs ``-Z root``.
        """
        into = ("nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "--")
        # Without it, a program would run on inside after the nsenter that waits for it was killed by a time-out.
        leash = ("setpriv", "--pdeathsig", "KILL", "--")
        return [*into, *leash, *(str(word) for word in command)]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment of a program that is run on the host."""
        return commands.environment(self._names.mark(f"{self.name}.run"), more)

    # -- the engine

    @property
    def docker_socket(self) -> Path:
        """The engine's socket, as a path that works from outside."""
        return self.root / "run/docker.sock"

    def docker_environment(self) -> dict[str, str]:
        """Environment in which the docker command talks to this engine, whatever contexts the user has."""
        more = {"DOCKER_HOST": f"unix://{self.docker_socket}", "DOCKER_CONFIG": str(self.run_dir / "docker-config")}
        return self.environment(more)

    def docker(
        self,
        *arguments: str,
        timeout: float = DOCKER_SECONDS,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - the name that subprocess has for it
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker command against this engine; errors as :func:`commands.run`."""
        what = f"docker {' '.join(arguments)}` on `{self.name}"
        command = [self._equipment.docker, *arguments]
        env = self.docker_environment()
        return commands.run(command, timeout=timeout, check=check, input=input, env=env, what=what)

    def docker_client(self) -> "DockerClient":
        """A client of the Docker SDK for this engine; the caller closes it."""
        from docker import DockerClient  # noqa: PLC0415 - takes longer to import than a host takes to boot

        return DockerClient(base_url=f"unix://{self.docker_socket}", timeout=int(DOCKER_SECONDS))

    def container_netns(self, container: str) -> Path:
        """The network namespace of a running container, as a path for ``nsenter --net=``."""
        key = self.docker("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container).stdout.strip()
        if not key:
            raise Gone(f"container {container} on {self.name} does not run, so it has no network namespace")
        return self.root / key.removeprefix("/var").lstrip("/")

    def start_engine(self, arguments: Sequence[str] = (), *, wait: bool = True) -> None:
        """Start dockerd; raises Broken with the end of its log if it does not answer."""
        # After SIGKILL the old PID file names a process that is gone, or by now another one.
        (self.root / "run/docker.pid").unlink(missing_ok=True)
        command = [
            "dockerd",
            *("--host", "unix:///run/docker.sock", "--storage-driver", self.storage_driver),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self._names.part(self.name)}"),
            *self._equipment.engine_arguments,
            *arguments,
        ]
        self.engine.start(command, {}, pid=self.pid)
        if wait:
            self._await_engine()

    def stop_engine(self) -> None:
        """Ask dockerd to end (SIGTERM) and wait; it stops its containers, each with up to ten seconds of grace."""
        self.engine.end(signal.SIGTERM, seconds=ENGINE_SECONDS)

    def kill_engine(self) -> None:
        """End dockerd at once (SIGKILL); its containers and containerd live on."""
        self.engine.end(signal.SIGKILL)

    def engine_answers(self) -> bool:
        """Whether dockerd answers requests."""
        return self.up and unix_http.status(self.docker_socket, "GET", "/_ping") == HTTPStatus.OK

    def _await_engine(self) -> None:
        self.engine.wait_until(
            self.engine_answers, seconds=ENGINE_SECONDS, what=f"the first answer of {self.name}'s engine"
        )

    def _import_image(self) -> None:
        tarball, key = image.tarball()
        look = ("image", "inspect", "--format", f'{{{{index .Config.Labels "{image.LABEL}"}}}}', image.NAME)
        if self.docker(*look, check=False).stdout.strip() != key:
            change = ("--change", 'CMD ["/bin/sh"]', "--change", f"LABEL {image.LABEL}={key}")
            self.docker("import", *change, str(tarball), image.NAME)

    # -- the daemon

    @property
    def plugin_socket(self) -> Path:
        """The spanlan daemon's socket, as a path that works from outside."""
        return self.root / "run/docker/plugins/spanlan.sock"

    def start_daemon(self, env: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Start ``spanlan serve``; ``env`` goes over the lab's settings.  Raises Broken if it does not answer."""
        settings = {
            "PYTHONPATH": str(Path(spanlan.__file__).parent.parent),
            "SPANLAN_STORE": self._equipment.store,
            "SPANLAN_HOST": self.name,
            "SPANLAN_UNDERLAY": self.address6 if self._equipment.ipv6_underlay else "eth0",
            "SPANLAN_LOG": "info",
            "SPANLAN_STATE_DIR": "/var/lib/spanlan",
            "SPANLAN_SOCKET": "/run/docker/plugins/spanlan.sock",
            **self._equipment.daemon_environment,
            **(env or {}),
        }
        self.daemon.start([sys.executable, "-m", "spanlan", "serve"], settings, pid=self.pid)
        if wait:
            self._await_daemon()

    def stop_daemon(self) -> None:
        """Ask the daemon to end (SIGTERM) and wait; raises Broken if it does not within 30 s."""
        self.daemon.end(signal.SIGTERM)

    def kill_daemon(self) -> None:
        """End the daemon at once (SIGKILL)."""
        self.daemon.end(signal.SIGKILL)

    def daemon_answers(self) -> bool:
        """Whether the daemon answers what an engine asks first."""
        return self.up and unix_http.status(self.plugin_socket, "POST", "/Plugin.Activate") == HTTPStatus.OK

    def _await_daemon(self) -> None:
        self.daemon.wait_until(
            self.daemon_answers, seconds=DAEMON_SECONDS, what=f"the first answer of {self.name}'s daemon"
        )

    # -- tidying

    def clear(self) -> None:
        """Remove all containers and all networks that a user made; images stay."""
        containers = self.docker("ps", "-aq").stdout.split()
        if containers:
            self.docker("rm", "-f", "-v", *containers, timeout=2 * DOCKER_SECONDS)
        listing = self.docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").stdout.split()
        networks = [name for name in listing if name != "docker_gwbridge"]
        if networks:
            self.docker("network", "rm", *networks)

    def _service(self, names: Names, role: str) -> Service:
        return Service(
            mark=names.mark(f"{self.name}.{role}"),
            pid_file=self.run_dir / f"{role}.pid",
            log=self.run_dir / f"{role}.log",
        )
