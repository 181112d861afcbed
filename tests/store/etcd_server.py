"""Real etcd servers for tests: started on loopback, made to fail in every way a server can, gone afterwards.

Ports are chosen below 32768: above, an outgoing connection may hold the port at the wrong moment (trap 25).  Data and
log of a server live in the directory given.  Servers die with the process that started them, so start them from
pytest's main thread.
"""

import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from store.certificates import KeyPair

FIRST_PORT, LAST_PORT = 20000, 32000
STARTS_WITHIN = 30.0


@dataclass(frozen=True)
class Tls:
    """What a server needs to speak TLS; with ``client_authority`` it demands a certificate of its clients."""

    server: KeyPair
    authority: Path
    demand_client_certificate: bool = False


class EtcdServer:
    """One etcd member: ``start`` it, ``pause``, ``resume``, ``kill``, ``restart`` or ``stop`` it.

    Alone it is a cluster of one; ``peers`` are the members of a larger one (see EtcdCluster).  ``options`` are added to
    its command line.
    """

    def __init__(
        self, directory: Path, *, name: str = "one", tls: Tls | None = None, options: Sequence[str] = ()
    ) -> None:
        self.directory = directory
        self.name = name
        self.tls = tls
        self.options = tuple(options)
        self.client_port, self.peer_port, self.metrics_port = free_ports(3)
        self.peers: tuple[EtcdServer, ...] = (self,)
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    # -- what callers want to know ---------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """Where clients connect: ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"{'https' if self.tls else 'http'}://{self.endpoint}"

    @property
    def peer_url(self) -> str:
        """Where the other members connect."""
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None, f"etcd {self.name} does not run"
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> "EtcdServer":
        """Start it and return when it serves reads and writes."""
        self.launch()
        self.wait_until_healthy()
        return self

    def launch(self) -> None:
        """Start the process and return at once."""
        assert self.process is None, f"etcd {self.name} runs already"
        # setpriv: the kernel ends the server when the test process dies, however that happens
        command = ["setpriv", "--pdeathsig", "KILL", "--", "etcd", *self._arguments()]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def _arguments(self) -> list[str]:
        arguments = [
            f"--name={self.name}",
            f"--data-dir={self.directory / self.name}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={','.join(f'{peer.name}={peer.peer_url}' for peer in self.peers)}",
            f"--initial-cluster-token=test-{self.peers[0].peer_port}",
            f"--listen-metrics-urls=http://127.0.0.1:{self.metrics_port}",
            "--logger=zap",
            "--log-level=info",
            "--bcrypt-cost=4",
        ]
        if self.tls:
            arguments += [f"--cert-file={self.tls.server.certificate}", f"--key-file={self.tls.server.key}"]
            if self.tls.demand_client_certificate:
                arguments += ["--client-cert-auth", f"--trusted-ca-file={self.tls.authority}"]
        return [*arguments, *self.options]

    def healthy(self) -> bool:
        """Whether it has a leader and serves linearizable reads."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.metrics_port}/health", timeout=2) as answer:
                return b'"true"' in answer.read()
        except OSError:  # refused, timed out, or a status that says "not healthy"
            return False

    def wait_until_healthy(self) -> None:
        """Return when it serves."""

        def healthy() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"etcd {self.name} ended:\n{self.log_tail()}"
            return self.healthy()

        wait_until(healthy, STARTS_WITHIN, lambda: f"etcd {self.name} does not get healthy:\n{self.log_tail()}")

    def stop(self) -> None:
        """End it in good order; nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, which: signal.Signals) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(which)
        process.send_signal(signal.SIGCONT)  # a frozen server would not see the first one
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def restart(self) -> "EtcdServer":
        """Stop it and start it again on the same data and ports."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        wait_until(
            lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", 5, lambda: "SIGSTOP did not freeze etcd"
        )

    def resume(self) -> None:
        """Thaw it."""
        os.kill(self.pid, signal.SIGCONT)

    # -- operating it ----------------------------------------------------------------------------------------------

    def ctl(self, *arguments: str, user: str | None = None, pair: KeyPair | None = None, given: str = "") -> str:
        """Run etcdctl against this member and return what it prints; ``given`` is its standard input."""
        command = ["etcdctl", f"--endpoints={self.url}", "--command-timeout=10s"]
        if self.tls:
            command.append(f"--cacert={self.tls.authority}")
        if pair:
            command += [f"--cert={pair.certificate}", f"--key={pair.key}"]
        if user:
            command.append(f"--user={user}")
        environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
        done = subprocess.run(
            [*command, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=30,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, f"etcdctl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def enable_auth(self, password: str, *, pair: KeyPair | None = None) -> None:
        """Make the user ``root`` and switch user/password on."""
        self.ctl("user", "add", f"root:{password}", pair=pair)
        self.ctl("user", "grant-role", "root", "root", pair=pair)
        self.ctl("auth", "enable", pair=pair)

    def log_tail(self, size: int = 3000) -> str:
        """The end of what the server wrote."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else "(no log)"


class EtcdCluster:
    """Several members on this machine."""

    def __init__(
        self, directory: Path, *, members: int = 3, tls: Tls | None = None, options: Sequence[str] = ()
    ) -> None:
        names = [f"member{number}" for number in range(1, members + 1)]
        self.members = tuple(EtcdServer(directory, name=name, tls=tls, options=options) for name in names)
        for member in self.members:
            member.peers = self.members

    @property
    def endpoints(self) -> list[str]:
        """Where clients connect."""
        return [member.endpoint for member in self.members]

    def start(self) -> "EtcdCluster":
        """Start those members that do not run, and return when all serve."""
        for member in self.members:
            if member.process is None:
                member.launch()
        for member in self.members:
            member.wait_until_healthy()
        return self

    def kill(self) -> None:
        """kill -9 of all members: their last."""
        for member in self.members:
            member.kill()


def free_ports(count: int) -> list[int]:
    """Ports below the range of outgoing connections that nobody listens on now."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randint(FIRST_PORT, LAST_PORT)  # pytest-randomly seeds the plain one
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def wait_until(condition: Callable[[], bool], seconds: float, complaint: Callable[[], str]) -> None:
    """Return as soon as ``condition`` holds; fail with ``complaint`` if it does not within ``seconds``."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, complaint()
        time.sleep(0.02)
