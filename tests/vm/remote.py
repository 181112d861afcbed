"""Outside the guest: its tests as if they ran here.

The tests are collected here and run by two pytests in one guest, one for each of its processors; each test's reports
are handed on to this pytest as they come.  So progress, selection (``-k``), failures with their logs, and result files
are pytest's own.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from spanlan.lab.commands import PATIENCE
from vm.guest import BOOT_SECONDS, Guest, GuestError
from vm.reporting import PATH_VARIABLE

WORLD_SECONDS = 1080.0
"""Bound on everything.  On a machine with nothing else to do it is a half of that."""
SILENCE_SECONDS = 480.0
"""Bound on the collection, and on each test: longer than that without a word, the guest hangs."""
TEST_SECONDS = 420
"""Bound inside on one test, with the fixtures that it waits for: ends it with a stack trace."""
SLOWNESS = 6
"""A processor that a program translates needs up to so many times as long."""
LAB_FACTORIES = {"make_lab", "raise_lab"}
"""Fixtures that stand behind every lab."""
_POLL_SECONDS = 0.1
_AT_ONCE = """
pids= worst=0 lists=
while [ "$1" != -- ]; do lists="$lists $1"; shift; done
shift
for list in $lists; do "$@" "@$list" & pids="$pids $!"; done
for pid in $pids; do wait "$pid"; status=$?; [ $status -le $worst ] || worst=$status; done
exit $worst
"""
"""``sh -c`` of this, with ``LIST… -- COMMAND``, runs the command with each of the lists; the highest exit status."""


class RemoteRun:
    """One guest and the pytest processes in it, which are told at the start what to run."""

    def __init__(self, config: pytest.Config, items: Sequence[pytest.Item], tell: Callable[[str], None]) -> None:
        self._config = config
        self._tell = tell
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self._rest = ""
        self._read_to = 0
        self._heard = time.monotonic()
        self._stages: set[str] = set()
        self._end: GuestError | None = None
        groups = [group for group in _groups(items) if group]
        lists = [f"/out/tests-{number}" for number in range(len(groups))]
        pytests = [sys.executable, "-m", "pytest", *_options(config)]
        self._guest = Guest(["sh", "-c", _AT_ONCE, "sh", *lists, "--", *pytests], _environment())
        for number, group in enumerate(groups):
            self._guest.give(f"tests-{number}", "\n".join(item.nodeid for item in group))
        self._guest.power_on()

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """What the guest found out about one test, as soon as it is done with it; a failure if the guest is lost."""
        while not self._is_done(item.nodeid):
            if self._end is not None:
                return [self._failure(item, self._end)]
            going = self._guest.running
            self._read()
            if not going and not self._is_done(item.nodeid):
                self._end = self._guest.error("the guest's pytest ended before it came to this test")
            elif going:
                self._check_time()
                time.sleep(_POLL_SECONDS)
        return self._reports.pop(item.nodeid)

    def finish(self) -> str | None:
        """Wait for the power-off, and remove the guest; what went wrong, if not only in tests."""
        try:
            if self._end is None:
                status = self._guest.wait(seconds=SILENCE_SECONDS)
                if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
                    return str(self._guest.error(f"the guest's pytest ended with status {status}"))
                self._tell(f"off after {self._guest.seconds:.0f} s")
        except GuestError as error:
            return str(error)
        finally:
            self._guest.remove()
        return None

    def abandon(self) -> None:
        """Switch the guest off in the midst of its work, and remove it."""
        self._guest.remove()

    def _is_done(self, nodeid: str) -> bool:
        return any(report.when == "teardown" for report in self._reports.get(nodeid, ()))

    def _read(self) -> None:
        for name, what in self._guest.stages().items():
            self._stage(name, what)
        try:
            with (self._guest.out / "reports").open() as file:
                file.seek(self._read_to)
                text = self._rest + file.read()
                self._read_to = file.tell()
        except FileNotFoundError:
            return
        *lines, self._rest = text.split("\n")
        for line in lines:
            self._heard = time.monotonic()
            self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        if "progress" in told:
            self._tell(f"{told['progress']} ({self._guest.seconds:.0f} s)")
        if "report" in told:
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=told["report"])
            self._reports[report.nodeid].append(report)

    def _stage(self, name: str, what: str) -> None:
        if name not in self._stages:
            self._stages.add(name)
            self._heard = time.monotonic()
            self._tell(what)

    def _check_time(self) -> None:
        silent = time.monotonic() - self._heard
        if not self._guest.up and silent > BOOT_SECONDS:
            self._end = self._guest.error(f"the guest did not boot within {BOOT_SECONDS:g} s")
        elif silent > SILENCE_SECONDS:
            self._end = self._guest.error(f"nothing was heard from the guest for {silent:.0f} s")
        elif self._guest.seconds > WORLD_SECONDS:
            self._end = self._guest.error(f"the guest was not done after {WORLD_SECONDS:g} s")

    def _failure(self, item: pytest.Item, error: GuestError) -> pytest.TestReport:
        """Told in full once: all further tests are lost for the same reason."""
        text = str(error)
        self._end = GuestError("the guest was lost before it came to this test; see the first one that failed so")
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords=dict.fromkeys(item.keywords, 1),
            outcome="failed",
            longrepr=text,
            when="call",
        )


def _groups(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Tests that use a lab, and all others: each half runs on one of the guest's processors, beside the other."""
    halves: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    for item in items:
        halves[LAB_FACTORIES.isdisjoint(getattr(item, "fixturenames", ()))].append(item)
    return halves


def _options(config: pytest.Config) -> list[str]:
    """The order was made here; to look for plugins, and load those that make it, takes the guest half a minute."""
    plugins = [word for plugin in ("pytest_timeout", "vm.reporting", "no:cacheprovider") for word in ("-p", plugin)]
    return ["--quiet", *plugins, f"--override-ini=timeout={TEST_SECONDS}", f"--tb={config.getoption('tbstyle')}"]


def _environment() -> dict[str, str]:
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return {
        "VM": "inside",
        "PYTHONPATH": os.pathsep.join(["tests", "plugin", *folders]),
        PATH_VARIABLE: "/out/reports",
        PATIENCE: str(SLOWNESS),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
