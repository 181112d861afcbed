"""What runs on a host of the lab: the limits, measured where the daemon stands, and a look at the kernel's tables.

python -m bench.inside limits ETCD PARENT      orders come in as lines, an answer goes out for each
python -m bench.inside watch                   a line for each FDB or neighbour entry that comes or goes
"""

import itertools
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATE_DIR = Path("/var/lib/spanlan")
COUNTED = {"Range": "reads", "Txn": "writes"}
_PREFIX = b"/spanlan-bench/"
_VALUE = b"x" * 128


class Limits:
    """The steps that handlers are made of, each by itself and as bare as it can be had from Python."""

    def __init__(self, etcd: str, parent: str) -> None:
        from pyroute2 import IPRoute  # noqa: PLC0415 - the watcher has no use for these

        from spanlan.store import etcd3  # noqa: PLC0415
        from spanlan.store.sqlite import SqliteStore  # noqa: PLC0415

        self._etcd3 = etcd3
        self._url = f"http://{etcd}/metrics"
        self._client = etcd3.Client([etcd])
        self._disk = SqliteStore(STATE_DIR / "bench.db")
        self._routes = IPRoute()
        self._parent = self._index(parent)
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Leave nothing."""
        self._routes.close()
        self._disk.close()
        for path in STATE_DIR.glob("bench.db*"):
            path.unlink()
        self._client.transaction([], [self._etcd3.delete_prefix(_PREFIX)], [])
        self._client.close()

    def read(self) -> None:
        """One linearizable read of etcd."""
        self._client.get(_PREFIX + b"absent")

    def write(self) -> None:
        """One transaction of etcd: a condition, a put."""
        key = _PREFIX + b"%08d" % next(self._numbers)
        done = self._client.transaction([self._etcd3.absent(key)], [self._etcd3.put(key, _VALUE)], [])
        assert done.succeeded

    def disk(self) -> None:
        """One durable commit to a SQLite file beside the daemon's own."""
        from spanlan.store.base import Put  # noqa: PLC0415

        self._disk.commit([], [Put("/bench", _VALUE)])

    def macvlan_made(self) -> None:
        """One link as Join makes it."""
        self._routes.link("add", ifname="bench-macvlan", kind="macvlan", link=self._parent, macvlan_mode="bridge")

    def macvlan_deleted(self) -> None:
        """The same as DeleteEndpoint deletes it."""
        self._routes.link("del", index=self._index("bench-macvlan"))

    def vxlan_made(self) -> None:
        """One device as CreateNetwork makes it."""
        self._routes.link("add", ifname="bench-vxlan", kind="vxlan", vxlan_id=1, vxlan_port=4790, vxlan_proxy=True)
        self._routes.link("set", index=self._index("bench-vxlan"), state="up")

    def vxlan_deleted(self) -> None:
        """The same as DeleteNetwork deletes it."""
        self._routes.link("del", index=self._index("bench-vxlan"))

    def requests(self) -> dict[str, int]:
        """How many reads and transactions etcd has served so far, to anybody."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        counts = dict.fromkeys(COUNTED.values(), 0)
        for line in lines:
            if line.startswith("grpc_server_handled_total{") and 'grpc_code="OK"' in line:
                for method, name in COUNTED.items():
                    if f'grpc_method="{method}"' in line:
                        counts[name] += int(float(line.rsplit(" ", 1)[1]))
        return counts

    @staticmethod
    def _index(name: str) -> int:
        return socket.if_nametoindex(name)


STEPS = ("read", "write", "disk", "macvlan_made", "macvlan_deleted", "vxlan_made", "vxlan_deleted")


def measure_limits(etcd: str, parent: str) -> None:
    """Serve orders until the input ends."""
    limits = Limits(etcd, parent)
    try:
        _say({"ready": True})
        for line in sys.stdin:
            order = line.strip()
            if order == "requests":
                _say(limits.requests())
            else:
                _say({"seconds": _timed(getattr(limits, order))})
    finally:
        limits.close()


def _timed(step: Callable[[], None]) -> float:
    begun_at = time.perf_counter()
    step()
    return time.perf_counter() - begun_at


def watch() -> None:
    """Tell of every permanent entry as the kernel tells of it, until the input ends."""
    import threading  # noqa: PLC0415

    from spanlan.kernel.monitor import FdbSeen, Monitor, NeighbourSeen  # noqa: PLC0415
    from spanlan.model.mac import format_mac  # noqa: PLC0415

    with Monitor() as monitor:

        def end_with_input() -> None:
            sys.stdin.read()
            monitor.close()

        threading.Thread(target=end_with_input, daemon=True).start()
        _say({"ready": True})
        while not monitor.closed:
            events = monitor.events(60)
            at = time.monotonic()
            for event in events:
                if isinstance(event, NeighbourSeen):
                    _say({"at": at, "key": str(event.address), "there": event.mac is not None})
                elif isinstance(event, FdbSeen):
                    _say({"at": at, "key": format_mac(event.mac), "there": event.vtep is not None})


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(record)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {"limits": measure_limits, "watch": watch}
    programs[sys.argv[1]](*sys.argv[2:])
