"""What crosses a host's wire, as tcpdump(8) tells it, tunnels decoded."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spanlan.lab.commands import until
from spanlan.lab.host import Host
from spanlan.lab.lan import Lan

if TYPE_CHECKING:
    import subprocess

_QUESTIONS = re.compile(r"\bARP\b|neighbor (solicitation|advertisement)|router (solicitation|advertisement)")


class Capture:
    """Everything that crosses an interface of a host, from the moment this object is made; ``more`` words for tcpdump.

    On the LAN itself, interface ``lan`` (names.LAN) sees what crosses it from any port to any other.
    """

    def __init__(self, host: Host | Lan, *more: str, interface: str = "eth0") -> None:
        # tcpdump that sheds its rights would outlive us: the kernel takes a process off our leash when it does that.
        self._process: subprocess.Popen[str] = host.popen(["tcpdump", "-Z", "root", "-l", "-n", "-i", interface, *more])
        self._lines: list[str] = []
        assert self._process.stderr is not None
        said = [self._process.stderr.readline() for _ in range(2)]
        assert f"listening on {interface}" in "".join(said), said
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(line.strip() for line in self._process.stdout)

    def stop(self) -> None:
        self._process.kill()
        self._reader.join(10)
        with self._process:  # closes its pipes
            pass

    def lines(self, *words: str) -> list[str]:
        """The packets so far whose text has all of the words."""
        return [line for line in list(self._lines) if all(word in line for word in words)]

    def wait_for(self, *words: str) -> None:
        until(lambda: self.lines(*words), seconds=10, what=f"a packet with {' '.join(words)} on the wire")

    def questions(self) -> list[str]:
        """ARP and neighbour discovery, on the wire itself and inside tunnels."""
        return [line for line in self.lines() if _QUESTIONS.search(line)]


@contextmanager
def capture(host: Host | Lan, *more: str, interface: str = "eth0") -> Iterator[Capture]:
    running = Capture(host, *more, interface=interface)
    try:
        yield running
    finally:
        running.stop()
