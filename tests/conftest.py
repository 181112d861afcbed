"""What holds for the tests of every world."""

import os

import pytest
from hypothesis import settings

# The machine may be busy with other things: how long an example takes says nothing here.
settings.register_profile("spanlan", deadline=None, print_blob=True)
settings.load_profile("spanlan")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """As root everything can run, so a skipped test is a hole in the run and fails it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if skipped and os.geteuid() == 0 and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} tests were skipped; as root nothing may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
