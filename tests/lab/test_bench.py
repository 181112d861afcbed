"""``make bench`` still works: tiny numbers, and the shape of what comes out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import spanlan
from spanlan.lab import removal

ROOT = Path(__file__).resolve().parents[2]
METHODS = {
    "RequestPool",
    "RequestAddress (gateway)",
    "CreateNetwork",
    "RequestAddress",
    "CreateEndpoint",
    "Join",
    "Leave",
    "DeleteEndpoint",
    "ReleaseAddress",
    "DeleteNetwork",
    "ReleaseAddress (gateway)",
    "ReleasePool",
}
STAGES = {"read", "decode", "hand_over", "device", "plan", "write", "finish"}


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(Path(spanlan.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def measure(tmp_path, *arguments: str) -> tuple[dict, subprocess.CompletedProcess[str]]:
    done = run_bench(*arguments, "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((tmp_path / "figures.json").read_text()), done


def test_the_bench_measures_every_handler_beside_its_limits_and_leaves_no_lab(tmp_path):
    figures, done = measure(tmp_path, "handlers", "--cycles", "4")
    handlers = figures["handlers"]
    assert set(handlers["methods"]) == METHODS
    for name, each in handlers["methods"].items():
        assert each["n"] == 4
        assert 0 < each["p50"] <= each["p99"]
        assert f"| {name} " in done.stdout
    # What the handlers are known to do, whatever it takes.
    steps = {name: each["steps"] for name, each in handlers["methods"].items()}
    assert steps["CreateEndpoint"] == {"read": 0, "write": 1, "disk": 1}
    assert steps["Leave"] == {"read": 0, "write": 0, "disk": 0}
    assert steps["Join"]["macvlan_made"] == steps["DeleteEndpoint"]["macvlan_deleted"] == 1
    assert all(each["n"] == 4 and each["p50"] > 0 for each in handlers["limits"].values())
    assert all(each["n"] == 4 for each in handlers["other_host"].values())
    assert "full_sync" not in figures
    (lab,) = re.findall(r"removing lab (\S+)", done.stderr)
    assert lab not in removal.labs()


def test_the_bench_takes_a_full_sync_apart_and_compares_it_with_the_bare_writer(tmp_path):
    figures, done = measure(tmp_path, "sync", "--endpoints", "200", "--repeats", "2", "--changes", "3")
    sync = figures["full_sync"]
    assert sync["endpoints"] == 200
    assert sync["figures"]["total"]["n"] == 2
    whole, parts = sync["figures"]["total"], [sync["figures"][stage] for stage in STAGES]
    assert sum(part["min"] for part in parts) <= whole["max"]
    assert sum(part["max"] for part in parts) >= whole["min"]
    assert sync["figures"]["bare"]["p50"] < whole["p50"]
    assert {name: each["whole"]["n"] for name, each in sync["changes"].items()} == {"large": 6, "small": 6}
    assert "from nothing to 200 endpoints in the kernel" in done.stdout
    assert "Full sync ÷ bare writer" in done.stdout
    assert "handlers" not in figures


def test_the_bench_says_what_it_takes():
    done = run_bench("--help")
    assert done.returncode == 0
    for option in ("--cycles", "--endpoints", "--json"):
        assert option in done.stdout
    assert run_bench("--cycles", "0").returncode != 0
