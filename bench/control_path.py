"""The daemon's control path by itself, in the network namespace of whoever runs this: store, watches, loop, kernel.

    python -m bench.control_path sync ETCD ENDPOINTS HOSTS       a full sync, then the bare writer; one line of JSON
    python -m bench.control_path change ETCD ENDPOINTS FEW HOSTS TIMES

These are the daemon's own parts, joined as the daemon joins them; stop watches are in subclasses, and around the one
function that writes.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench import cluster
from bench.figures import Samples, resident
from spanlan.control.drift import Drift
from spanlan.control.following import Following, Took, Work
from spanlan.control.loop import Loop
from spanlan.control.peers import Peers
from spanlan.drivers import DRIVERS
from spanlan.kernel import neighbours
from spanlan.kernel.links import EnsuredLink, Links
from spanlan.kernel.messages import SetFdb, SetNeighbour, Step
from spanlan.kernel.monitor import FdbSeen, Monitor, NeighbourSeen
from spanlan.kernel.neighbours import Failure
from spanlan.lab.commands import until
from spanlan.metrics import Metrics
from spanlan.model.address import ip_address
from spanlan.model.cluster import Endpoint
from spanlan.model.host import TunnelAttachment, VxlanLink
from spanlan.store import codec, keys
from spanlan.store.base import Delete, InSync, Put, Snapshot, WatchEvent
from spanlan.store.etcd import EtcdStore

UNDERLAY, UNDERLAY_ADDRESS = "underlay", "10.98.0.1"
LARGE, SMALL, BARE = ("large", 1001), ("small", 1002), ("bare", 1003)
"""Segments and their VNIs; the last one is only a device for the bare writer."""
_PATIENCE = 120.0


class Clock:
    """When things began and ended."""

    def __init__(self) -> None:
        self.taken: list[tuple[WatchEvent, float, float]] = []
        self.passes: list[float] = []
        self.devices: list[tuple[float, float]] = []
        self.dumps: list[tuple[float, float]] = []
        self.writes: list[tuple[float, float]] = []


class TimedFollowing(Following):
    """Notes when the watch fed it and when a pass began."""

    clock: Clock

    def take(self, event: WatchEvent) -> Took:
        """Take an event of the watch."""
        begun_at = time.perf_counter()
        took = super().take(event)
        self.clock.taken.append((event, begun_at, time.perf_counter()))
        return took

    def take_work(self) -> Work:
        """A pass begins."""
        self.clock.passes.append(time.perf_counter())
        return super().take_work()


class TimedLinks(Links):
    """Notes when devices were looked at or made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def ensure_vxlan(self, link: VxlanLink) -> EnsuredLink:
        """Make the device."""
        begun_at = time.perf_counter()
        try:
            return super().ensure_vxlan(link)
        finally:
            self._clock.devices.append((begun_at, time.perf_counter()))


@contextmanager
def _writes_timed(clock: Clock) -> Iterator[None]:
    write, dump_neighbours, dump_fdb = neighbours.write, neighbours.dump_neighbours, neighbours.dump_fdb

    def timed_write(interface: int, steps: Sequence[Step], **options: Any) -> list[Failure]:
        begun_at = time.perf_counter()
        try:
            return write(interface, steps, **options)
        finally:
            if steps:
                clock.writes.append((begun_at, time.perf_counter()))

    def timed_dump(dump: Any) -> Any:
        def timed(interface: int) -> Any:
            begun_at = time.perf_counter()
            try:
                return dump(interface)
            finally:
                clock.dumps.append((begun_at, time.perf_counter()))

        return timed

    neighbours.write = timed_write
    neighbours.dump_neighbours, neighbours.dump_fdb = timed_dump(dump_neighbours), timed_dump(dump_fdb)
    try:
        yield
    finally:
        neighbours.write = write
        neighbours.dump_neighbours, neighbours.dump_fdb = dump_neighbours, dump_fdb


class ControlPath:
    """Store, watches, drift and loop, running."""

    def __init__(self, etcd: str) -> None:
        self.clock = Clock()
        self.links = TimedLinks(self.clock)
        self.store = EtcdStore([etcd])
        metrics = Metrics()
        self.loop = Loop(self.links, resync=3600, metrics=metrics)
        self._drift = Drift(self.loop)
        self.peers = Peers(self.store, self.loop, me=cluster.ME, grace=3.0, metrics=metrics)
        self._drift.start()
        self.loop.start()
        self.peers.start()
        until(lambda: self.peers.lost is None, seconds=10, what="the watch of the hosts")

    def following(self, name: str, vni: int) -> TimedFollowing:
        """What can be followed."""
        attachment = TunnelAttachment(interface=UNDERLAY, vtep=ip_address(UNDERLAY_ADDRESS))
        following = TimedFollowing(cluster.segment(name, vni), attachment, DRIVERS["vxlan"], cluster.ME)
        following.clock = self.clock
        return following

    def follow(self, following: TimedFollowing) -> None:
        """Follow it, and return when the kernel holds all that the store does."""
        self.peers.follow(following)
        if not following.wait(_PATIENCE):
            raise RuntimeError(f"segment {following.segment.name} was not in sync within {_PATIENCE:g} s")

    def stop(self) -> None:
        """End it; devices stay."""
        self.peers.stop()
        self.loop.stop()
        self._drift.stop()
        self.store.close()


def _index(path: ControlPath, following: Following) -> int:
    index, differences = path.links.find_vxlan(following.ground)
    assert index is not None, differences
    return index


def _verify(index: int, endpoints: int, hosts: int) -> float:
    """Compare the kernel's tables with what must be there; the seconds that it took to read them."""
    pairs, fdb = cluster.wanted(LARGE[0], endpoints, hosts)
    begun_at = time.perf_counter()
    found_pairs, found_fdb = neighbours.dump_neighbours(index), neighbours.dump_fdb(index)
    took = time.perf_counter() - begun_at
    if (found_pairs, found_fdb) != (pairs, fdb):
        raise RuntimeError(
            f"the kernel holds {len(found_pairs)} neighbours and {len(found_fdb)} FDB entries, which are not the "
            f"{len(pairs)} and {len(fdb)} that the store says"
        )
    return took


def _until_quiet() -> float:
    """Wait until this process does nothing any more; the processor seconds that it has used so far."""
    used = time.process_time()
    while True:
        time.sleep(0.2)
        now = time.process_time()
        if now - used < 0.01:
            return now
        used = now


def sync(etcd: str, endpoints: int, hosts: int) -> dict[str, Any]:
    """From nothing to a kernel that holds everything."""
    path = ControlPath(etcd)
    try:
        following = path.following(*LARGE)
        with _writes_timed(path.clock):
            _until_quiet()
            memory, processor = resident(), time.process_time()
            begun_at = time.perf_counter()
            path.follow(following)
            ended_at = time.perf_counter()
            at_end = resident()
            result: dict[str, Any] = {"total": ended_at - begun_at, **_stages(path.clock, begun_at, ended_at)}
            result["processor"] = time.process_time() - processor
            result["processor_until_quiet"] = _until_quiet() - processor
            result["memory_before"], result["memory_at_end"], result["memory_after"] = memory, at_end, resident()
        result["dump"] = _verify(_index(path, following), endpoints, hosts)
        result["bare"] = _write_bare(path, following, endpoints, hosts)
        result["passes"] = len(path.clock.passes)
        path.peers.unfollow(following.segment.name, _PATIENCE)
    finally:
        path.stop()
    return result


def _stages(clock: Clock, begun_at: float, ended_at: float) -> dict[str, float]:
    (snapshot,) = ((begun, ended) for event, begun, ended in clock.taken if isinstance(event, Snapshot))
    (in_sync,) = (ended for event, _, ended in clock.taken if isinstance(event, InSync))
    (write,) = clock.writes
    pass_at = max(at for at in clock.passes if at < write[0])
    kernel = sum(ended - begun for begun, ended in [*clock.devices, *clock.dumps] if pass_at <= begun <= write[0])
    return {
        "read": snapshot[0] - begun_at,
        "decode": snapshot[1] - snapshot[0],
        "hand_over": max(in_sync, pass_at) - snapshot[1],
        "plan": write[0] - pass_at - kernel,
        "device": kernel,
        "write": write[1] - write[0],
        "finish": ended_at - write[1],
    }


def _write_bare(path: ControlPath, following: Following, endpoints: int, hosts: int) -> float:
    """The same entries, by the writer alone, on a device of its own."""
    link = path.following(*BARE).ground
    index = path.links.ensure_vxlan(link).index
    pairs, fdb = cluster.wanted(following.segment.name, endpoints, hosts)
    steps: list[Step] = [SetFdb(mac, vtep) for mac, vtep in fdb.items()]
    steps += [SetNeighbour(address, mac) for address, mac in pairs.items()]
    begun_at = time.perf_counter()
    failures = neighbours.write(index, steps)
    took = time.perf_counter() - begun_at
    assert not failures, failures[:3]
    _verify(index, endpoints, hosts)
    path.links.delete(link.name)
    return took


def change(etcd: str, endpoints: int, few: int, hosts: int, times: int) -> dict[str, Any]:
    """One endpoint comes and goes, on the large segment and on the small one in turn."""
    path = ControlPath(etcd)
    sizes = {LARGE: endpoints, SMALL: few}
    try:
        with _writes_timed(path.clock):
            followed = {which: path.following(*which) for which in sizes}
            for following in followed.values():
                path.follow(following)
            _until_quiet()
            threading.current_thread().name = "change"
            changing = {which: _Changing(path, followed[which], sizes[which], hosts) for which in sizes}
            for _ in range(times):
                for each in changing.values():
                    each.once()
        for following in followed.values():
            path.peers.unfollow(following.segment.name, _PATIENCE)
    finally:
        path.stop()
    return {name: changing[name, vni].as_record() for name, vni in sizes}


class _Changing:
    """Changes of one segment, measured."""

    def __init__(self, path: ControlPath, following: TimedFollowing, number: int, hosts: int) -> None:
        self._path = path
        self._index = _index(path, following)
        self._endpoint = cluster.endpoint(following.segment.name, number, hosts)
        self._key = keys.endpoint(self._endpoint.segment, self._endpoint.address)
        self.whole = Samples()
        self.own = Samples()
        self.processor = Samples()

    def as_record(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "whole": self.whole.as_record(),
            "own": self.own.as_record(),
            "processor": self.processor.as_record(),
        }

    def once(self) -> None:
        """It comes, and it goes."""
        self._measure(Put(self._key, codec.encode_endpoint(self._endpoint)), there=True)
        self._measure(Delete(self._key), there=False)

    def _measure(self, operation: Put | Delete, *, there: bool) -> None:
        clock = self._path.clock
        with Monitor(of_interest=lambda index: index == self._index) as monitor:
            events, writes = len(clock.taken), len(clock.writes)
            processor = time.process_time()
            begun_at = time.perf_counter()
            self._path.store.commit([], [operation])
            self._await(monitor, self._endpoint, there=there)
            self.whole.add(time.perf_counter() - begun_at)
            # The writer's last step is to see the kernel's acknowledgement, a moment after the kernel told everybody.
            until(lambda: len(clock.writes) > writes, seconds=10, what="the end of the write")
            self.own.add(clock.writes[-1][1] - clock.taken[events][1])
            self.processor.add(time.process_time() - processor)

    @staticmethod
    def _await(monitor: Monitor, endpoint: Endpoint, *, there: bool) -> None:
        missing: set[object] = {endpoint.address, endpoint.mac}
        ends_at = time.monotonic() + 10
        while missing:
            if time.monotonic() > ends_at:
                raise RuntimeError(f"{endpoint.address} did not {'come' if there else 'go'} within 10 s")
            for event in monitor.events(1):
                if isinstance(event, NeighbourSeen) and (event.mac is not None) is there:
                    missing.discard(event.address)
                elif isinstance(event, FdbSeen) and (event.vtep is not None) is there:
                    missing.discard(event.mac)


if __name__ == "__main__":
    programs: dict[str, Callable[..., dict[str, Any]]] = {"sync": sync, "change": change}
    numbers = [int(word) for word in sys.argv[3:]]
    sys.stdout.write(f"{json.dumps(programs[sys.argv[1]](sys.argv[2], *numbers))}\n")
