"""What README promises of ``make demo``, through the very command that it runs."""

import os
import subprocess
import sys

from spanlan.lab import removal

COMMAND = [sys.executable, "-m", "spanlan", "lab", "demo"]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=110, check=False)


def test_the_demo_shows_two_engines_talk_and_leaves_nothing_behind() -> None:
    name = f"test-{os.getpid()}-demo"
    done = run_demo("--name", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("0% packet loss") == 2
    assert done.stdout.count("the same bytes") == 2
    assert "10.42.0.3  72:77:27:c6:50:90  10.99.0.2    on-host2" in done.stdout
    assert "no link, no entry and no key is left" in done.stdout
    assert name not in removal.labs()


def test_a_demo_that_is_kept_says_how_to_enter_and_how_to_remove_it() -> None:
    name = f"test-{os.getpid()}-kept"
    try:
        done = run_demo("--name", name, "--keep")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"spanlan lab exec --name {name} host1" in done.stdout
        assert f"spanlan lab down --name {name}" in done.stdout
        assert name in removal.labs()
    finally:
        subprocess.run(
            [sys.executable, "-m", "spanlan", "lab", "down", "--name", name],
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert name not in removal.labs()
