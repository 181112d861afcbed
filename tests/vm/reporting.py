"""Inside the guest: what pytest finds out about each test, one line of JSON each, into a file that is read outside.

A plugin of the guest's pytest (``-p vm.reporting``); the other end is ``vm.remote``.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATH_VARIABLE = "VM_REPORTS"
_KERNEL_LINES = 30


def tell(progress: str) -> None:
    """Say outside what is going on here."""
    if PATH_VARIABLE in os.environ:
        _append(progress=progress)


def _append(**what: Any) -> None:
    """One line, in one write: nobody reads half of it, and threads do not mix theirs."""
    with Path(os.environ[PATH_VARIABLE]).open("ab", buffering=0) as file:
        file.write(f"{json.dumps(what)}\n".encode())


class Reporting:
    """Writes reports as they come."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        _append(report=data)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        """Add to each failure what the kernel said lately."""
        report = yield
        if report.failed:
            said = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout.splitlines()
            report.sections.append(("the kernel's last words", "\n".join(said[-_KERNEL_LINES:])))
        return report

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        tell(f"{len(session.items)} tests collected")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reporting(config))
