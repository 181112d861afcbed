"""``python -m bench``: run what is measured, print tables, write JSON."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import full_sync, handlers
from bench.figures import load, tell
from spanlan import __version__
from spanlan.errors import SpanlanError
from spanlan.lab import requirements

PARTS = ("handlers", "sync")
PACKAGES = ("flask", "waitress", "grpcio", "protobuf", "pyroute2")


def main(arguments: Sequence[str]) -> int:
    """Run; the exit status says whether everything could be measured, never how fast it was."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure spanlan on the real thing: a daemon on a lab's host, etcd on its LAN, this kernel's "
        "tables. Needs root, and what `make system` installs. Every figure stands beside a limit that was measured in "
        "the same run: compare ratios, not times. Nothing is left behind.",
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure (default: all)")
    parser.add_argument("--cycles", type=_count, default=300, help="of the handlers (default: 300; about 0.25 s each)")
    parser.add_argument("--endpoints", type=_count, default=10_000, help="of the full sync (default: 10000)")
    parser.add_argument("--repeats", type=_count, default=10, help="of the full sync (default: 10)")
    parser.add_argument("--changes", type=_count, default=200, help="at each size (default: 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, times in seconds")
    chosen = parser.parse_args(arguments)
    parts = chosen.parts or PARTS
    result: dict[str, Any] = {"machine": machine(), "load_before": load()}
    try:
        requirements.check()
        if "handlers" in parts:
            result["handlers"] = handlers.measure(cycles=chosen.cycles, tell=tell)
        if "sync" in parts:
            result["full_sync"] = full_sync.measure(
                endpoints=chosen.endpoints, repeats=chosen.repeats, changes=chosen.changes, tell=tell
            )
    except SpanlanError as error:
        tell(f"bench: {error}")
        return 1
    result["load_after"] = load()
    print(report(result))
    if chosen.json is not None:
        chosen.json.write_text(f"{json.dumps(result, indent=2)}\n", encoding="utf-8")
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def machine() -> dict[str, str]:
    """What it was measured on."""
    return {
        "processor": f"{os.cpu_count()} of {_processor()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "etcd": _first_line("etcd", "--version"),
        "spanlan": __version__,
        **{name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _first_line(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return "not installed"
    return said.partition("\n")[0].rpartition(" ")[2]


def report(result: dict[str, Any]) -> str:
    """Everything as a person reads it."""
    of = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    loads = " → ".join(" ".join(f"{each:.2f}" for each in result[when]) for when in ("load_before", "load_after"))
    parts = [f"Machine: {of}", f"Load (1, 5, 15 minutes), with what is run here: {loads}"]
    if "handlers" in result:
        parts.append(handlers.report(result["handlers"]))
    if "full_sync" in result:
        parts.append(full_sync.report(result["full_sync"]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
