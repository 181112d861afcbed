"""Long-running programs of a lab: started once, known by mark and PID file, ended by pidfd.

A service outlives the process that started it, as the lab outlives ``spanlan lab up``; so any later command finds it
again through its PID file, and believes that file only if the process bears the service's mark.
"""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanlan.errors import Broken, Gone
from spanlan.lab import commands, processes

_INIT = Path(__file__).with_name("init.py")


@dataclass(frozen=True, slots=True)
class Service:
    """One program of a lab: where its PID and its log are kept, and the mark in its environment."""

    mark: str
    pid_file: Path
    log: Path

    @property
    def pid(self) -> int | None:
        """PID as this process sees it; None if the service does not run."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if processes.mark_of(pid) == self.mark else None

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self.pid is not None

    def start(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        pid: int | None = None,
        netns: Path | None = None,
    ) -> None:
        """Start inside the host whose first process is ``pid``, or in a network namespace; no wait for readiness.

        Raises Broken if it runs already or the program cannot be executed.
        """
        if self.running:
            raise Broken(f"{self.mark} runs already")
        order = {
            "pid": pid,
            "netns": str(netns),
            "command": [str(word) for word in command],
            "environment": commands.environment(self.mark, env),
            "log": str(self.log),
        }
        said = midwife("start", order, mark=self.mark)
        self.pid_file.write_text(f"{said['pid']}\n")

    def wait_until(self, ready: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Wait for ``ready``; raises Broken with the end of the log if the program dies first or takes too long."""

        def settled() -> bool:
            return ready() or not self.running

        try:
            commands.until(settled, seconds=seconds, what=what)
        except Broken as error:
            raise Broken(f"{error}; the end of {self.log}:\n{commands.tail(self.log)}") from error
        if not self.running:
            raise Broken(f"{self.mark} ended while it was starting; the end of {self.log}:\n{commands.tail(self.log)}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; raises Gone if the service does not run."""
        processes.send(self._known_pid(), self.mark, number)

    def end(self, number: signal.Signals, *, seconds: float = 30.0) -> None:
        """Send a signal and wait for the end; nothing to do if it does not run.  Raises Broken if it does not end."""
        with contextlib.suppress(Gone):
            processes.end(self._known_pid(), self.mark, number, seconds=seconds)
        self.pid_file.unlink(missing_ok=True)

    def _known_pid(self) -> int:
        pid = self.pid
        if pid is None:
            raise Gone(f"{self.mark} is not running")
        return pid


def midwife(order: str, specification: Mapping[str, Any], *, mark: str) -> dict[str, str]:
    """Give ``init.py`` an order and return what it said, as words by their first; raises Broken on its ``error``."""
    command = [sys.executable, "-I", "-S", str(_INIT), order, json.dumps(specification)]
    result = commands.run(command, env=commands.environment(mark), check=False, what=f"{order} {mark}")
    said = dict(line.split(" ", 1) for line in result.stdout.splitlines() if " " in line)
    if "error" in said or "pid" not in said:
        raise Broken(f"{order} {mark}: {said.get('error') or result.stderr.strip()}")
    return said
