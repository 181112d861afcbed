"""How long it takes from nothing to a kernel that holds all remote endpoints of a segment, and what one change costs.

A network namespace that nobody else sees holds an etcd and, one after the other, fresh processes with the daemon's
control path (``control_path.py``).  ``python -m bench.full_sync …`` is the inside of that namespace; ``measure`` makes
it.  Everything in it goes with it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.control_path import LARGE, SMALL, UNDERLAY, UNDERLAY_ADDRESS
from bench.figures import Samples, Tell, environment, megabytes, milliseconds, table, tell
from spanlan.lab import commands
from spanlan.store import etcd3

ETCD = "127.0.0.1:2379"
HOSTS = 20
FEW = 100
STAGES = {
    "read": "read: the watch lists the segment",
    "decode": "decode: records become the view",
    "hand_over": "hand over: in sync, and the loop wakes",
    "device": "device: made, and its tables read",
    "plan": "plan: what is wanted, and the difference",
    "write": "write: FDB and neighbours",
    "finish": "finish: noted as done",
}
_LEASH = ("setpriv", "--pdeathsig", "KILL", "--")


def measure(*, endpoints: int, repeats: int, changes: int, tell: Tell) -> dict[str, Any]:
    """Run it; returns everything for the JSON file.  Needs root."""
    tell(f"full sync: a network namespace with an etcd, {endpoints} endpoints on {HOSTS} hosts")
    inside = ["-m", "bench.full_sync", str(endpoints), str(repeats), str(changes)]
    done = subprocess.run(
        ["unshare", "--net", "--", *_LEASH, sys.executable, *inside],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment(),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the full sync failed with status {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _inside(endpoints: int, repeats: int, changes: int) -> dict[str, Any]:
    commands.run(["ip", "link", "set", "lo", "up"])
    commands.run(["ip", "link", "add", UNDERLAY, "type", "veth", "peer", "name", "wire"])
    commands.run(["ip", "address", "add", f"{UNDERLAY_ADDRESS}/16", "dev", UNDERLAY])
    for link in (UNDERLAY, "wire"):
        commands.run(["ip", "link", "set", link, "up"])
    with _etcd():
        for (name, vni), size in ((LARGE, endpoints), (SMALL, FEW)):
            _run("bench.cluster", ETCD, name, vni, size, HOSTS)
        tell(f"full sync: {repeats} times, each in a fresh process, the bare writer beside it")
        runs = []
        for number in range(repeats):
            runs.append(json.loads(_run("bench.control_path", "sync", ETCD, endpoints, HOSTS)))
            tell(f"full sync: {number + 1} of {repeats}: {milliseconds(runs[-1]['total'])} ms")
        tell(f"full sync: {changes} changes at {endpoints} and at {FEW} endpoints, in turn")
        changed = json.loads(_run("bench.control_path", "change", ETCD, endpoints, FEW, HOSTS, changes))
    return {
        "endpoints": endpoints,
        "few": FEW,
        "hosts": HOSTS,
        "figures": {name: Samples([run[name] for run in runs]).as_record() for name in runs[0]},
        "ratio_to_bare": Samples([run["total"] / run["bare"] for run in runs]).as_record(),
        "changes": changed,
    }


def _run(module: str, *words: object) -> str:
    command = [*_LEASH, sys.executable, "-m", module, *map(str, words)]
    return commands.run(command, timeout=300, env=os.environ | environment(), what=f"{module} {words}").stdout


@contextmanager
def _etcd() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="spanlan-bench-") as directory, (Path(directory) / "log").open("wb") as log:
        command = [*_LEASH, "etcd", "--data-dir", f"{directory}/data", "--logger", "zap", "--log-level", "warn"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            commands.until(_answers, seconds=20, what="etcd's first answer")
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers() -> bool:
    client = etcd3.Client([ETCD], timeout=1)
    try:
        client.get(b"/")
    except etcd3.EtcdError:
        return False
    finally:
        client.close()
    return True


def report(result: dict[str, Any]) -> str:
    """The result as a person reads it."""
    figures, endpoints = result["figures"], result["endpoints"]

    def row(name: str, each: dict[str, float]) -> list[str]:
        share = f"{100 * each['p50'] / figures['total']['p50']:.0f} %"
        per = f"{1e6 * each['p50'] / endpoints:.1f}"
        return [name, milliseconds(each["min"]), milliseconds(each["p50"]), milliseconds(each["max"]), per, share]

    stages = [row(f"from nothing to {endpoints} endpoints in the kernel", figures["total"])]
    stages += [row(f"· {text}", figures[name]) for name, text in STAGES.items()]
    beside = [
        row("the bare netlink writer, the same entries", figures["bare"]),
        row("the kernel's tables read back and compared", figures["dump"]),
        row("processor time of the process until the kernel was right", figures["processor"]),
        row("… until it had looked through the echo of its writes", figures["processor_until_quiet"]),
    ]
    head = ["", "min ms", "median ms", "max ms", "µs/endpoint", "share"]
    before, after = figures["memory_before"]["p50"], figures["memory_after"]["p50"]
    memory = f"Memory (RSS): {megabytes(before)} MiB before, {megabytes(after)} MiB after: "
    memory += f"{(after - before) / endpoints:.0f} bytes an endpoint"
    return "\n\n".join(
        [
            f"Full sync of {endpoints} remote endpoints on {result['hosts']} hosts (n = {figures['total']['n']})",
            table(head, stages),
            "Beside it",
            table(head, beside),
            f"Full sync ÷ bare writer: {result['ratio_to_bare']['p50']:.1f}",
            memory,
            "What one change costs",
            _changes(result),
        ]
    )


def _changes(result: dict[str, Any]) -> str:
    texts = {
        "whole": "commit sent → entries in the kernel",
        "own": "watch event → kernel has acknowledged",
        "processor": "processor time, with the writer of the change",
    }
    large, small = result["changes"][LARGE[0]], result["changes"][SMALL[0]]
    rows = []
    for name, text in texts.items():
        of_large, of_small = large[name], small[name]
        cells = [milliseconds(each[share]) for each in (of_small, of_large) for share in ("p50", "p99")]
        rows.append([text, str(of_large["n"]), *cells, f"{of_large['p50'] / of_small['p50']:.2f}"])
    at = [f"{result['few']}: {share} ms" for share in ("p50", "p99")]
    at += [f"{result['endpoints']}: {share} ms" for share in ("p50", "p99")]
    return table(["one endpoint comes or goes at", "n", *at, "ratio"], rows)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_inside(*(int(word) for word in sys.argv[1:]))))
