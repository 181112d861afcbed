"""ipvlan L3 and L3S across hosts without a router: routes by way of the hosts, which come and go with containers."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab.containers import STORE_ROOT, Container, kept_clean
from lab.faults import Log, status
from spanlan.lab.commands import until
from spanlan.lab.host import Host
from vm.members import (
    connect,
    create_everywhere,
    create_on,
    disconnect,
    fetches,
    interface_of,
    next_hops,
    routes_on,
    start_together,
)
from vm.trunk import LanLab

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
L3_WILL_DO = pytest.mark.parametrize("routed", ["l3"], indirect=True)  # nothing in it knows of l3s, and time is dear
SUBNETS = {"10.60.0.0/24": None, "fd60::/64": None}
SEGMENT = "lan.10.60.0.0-24"
FOREIGN = "10.60.0.200"
PLACES = {"one": ("10.60.0.16", "fd60::10"), "beside": ("10.60.0.17", "fd60::11"), "far": ("10.60.0.32", "fd60::20")}


@dataclass(frozen=True)
class Routed:
    """A container on each host of a segment of a mode; with l3 another beside the first, with the next address."""

    mode: str
    containers: list[Container]

    @property
    def one(self) -> Container:
        return self.containers[0]

    @property
    def far(self) -> Container:
        return self.containers[1]

    @property
    def beside(self) -> Container:
        return self.containers[2]


def at(name: str) -> list[str]:
    address, address6 = PLACES[name]
    return ["--ip", address, "--ip6", address6]


@pytest.fixture(scope="module", params=["l3", "l3s"])
def routed(request: pytest.FixtureRequest, lan_lab: LanLab) -> Iterator[Routed]:
    mode, here, there = request.param, lan_lab.a, lan_lab.b
    with kept_clean(lan_lab.lab):
        there.run(["ip", "route", "add", FOREIGN, "via", here.address, "proto", "static"])
        create_everywhere(lan_lab, "red", "-o", f"ipvlan_mode={mode}", subnets=SUBNETS)
        order = [(here, "one"), (there, "far"), *([(here, "beside")] if mode == "l3" else [])]
        yield Routed(mode, start_together(*((host, name, "red", at(name)) for host, name in order)))
    assert [next_hops(host) for host in lan_lab.hosts] == [{}, {}]
    there.run(["ip", "route", "del", FOREIGN, "proto", "static"])  # ours to remove: it is still there


def wait_for_routes(host: Host, wanted: dict[str, str]) -> None:
    until(lambda: next_hops(host) == wanted, seconds=5, what=f"the routes {wanted} of {host.name}")


def to_one_and_beside(routed: Routed) -> dict[str, str]:
    host = routed.one.host
    return {"10.60.0.16/31": host.address, "fd60::10/127": host.address6}


class TestContainersOnTwoHosts:
    @FAMILIES
    def test_each_reaches_each_other(self, routed: Routed, family: int) -> None:
        for one, other in itertools.permutations(routed.containers, 2):
            assert one.pings(other.on(family)), f"{one.name} to {other.name}"

    @FAMILIES
    def test_tcp_is_served_to_each(self, routed: Routed, family: int) -> None:
        for client, server in itertools.permutations(routed.containers, 2):
            assert fetches(client, server, family), f"{client.name} from {server.name}"

    def test_the_default_route_is_the_interface_without_a_gateway(self, routed: Routed) -> None:
        for container in routed.containers:
            assert routes_on(container) == {(destination, None) for destination in ("default", *SUBNETS)}
            for family in ("-4", "-6"):
                told = json.loads(container.inside("ip", "-j", family, "route", "show", "default"))
                assert [(route["dev"], "gateway" in route) for route in told] == [(interface_of(container), False)]

    @L3_WILL_DO
    def test_on_an_internal_network_there_is_none(self, routed: Routed, lan_lab: LanLab) -> None:
        mode = ("-o", f"ipvlan_mode={routed.mode}")
        create_on(lan_lab.a, "inner", "--internal", *mode, subnets={"10.61.0.0/24": None})
        within = connect(routed.one, "inner", "10.61.0.5")
        assert routes_on(within) == {("10.61.0.0/24", None)}
        disconnect(within, "inner")

    @L3_WILL_DO
    def test_what_lies_beyond_is_reached_by_the_hosts_own_routes(self, routed: Routed, lan_lab: LanLab) -> None:
        back = ["10.60.0.16", "via", routed.one.host.address]
        lan_lab.lab.lan.run(["ip", "route", "add", *back])
        try:
            assert routed.one.pings("10.99.0.250")
        finally:
            lan_lab.lab.lan.run(["ip", "route", "del", *back])

    @L3_WILL_DO
    def test_nobody_is_asked_for_a_container_and_the_frames_go_from_host_to_host(
        self, routed: Routed, lan_lab: LanLab
    ) -> None:
        one, far = routed.one, routed.far
        one.forget_neighbours()
        with lan_lab.wire() as wire:
            for family in (4, 6):
                assert one.pings(far.on(family))
                macs = f"{one.host.mac} > {far.host.mac}"
                wire.wait_for(macs, f"{one.on(family)} > {far.on(family)}", "echo request")
            assert [line for line in wire.questions() if "10.60." in line or "fd60::" in line] == []

    def test_only_l3s_passes_the_hosts_own_packet_filter(self, routed: Routed) -> None:
        rule = ["INPUT", "-d", routed.far.address, "-j", "DROP"]
        routed.far.host.run(["iptables", "-I", *rule])
        try:
            assert routed.one.pings(routed.far.address, seconds=1) == (routed.mode == "l3")
        finally:
            routed.far.host.run(["iptables", "-D", *rule])


@L3_WILL_DO
class TestRoutes:
    def test_each_host_has_those_to_the_other_and_neighbours_share_one(self, routed: Routed) -> None:
        here, there = routed.one.host, routed.far.host
        assert next_hops(there) == to_one_and_beside(routed)
        assert next_hops(here) == {"10.60.0.32": there.address, "fd60::20": there.address6}

    def test_they_follow_a_container_that_goes_and_comes_again(self, routed: Routed) -> None:
        here, there = routed.one.host, routed.far.host
        disconnect(routed.beside, "red")
        wait_for_routes(there, {"10.60.0.16": here.address, "fd60::10": here.address6})
        assert not routed.far.pings(routed.beside.address, seconds=1)
        connect(routed.beside, "red", *PLACES["beside"])
        wait_for_routes(there, to_one_and_beside(routed))
        assert routed.far.pings(routed.beside.address)

    def test_those_that_are_deleted_or_changed_by_hand_are_put_back(self, routed: Routed) -> None:
        there = routed.far.host
        there.run(["ip", "route", "del", "10.60.0.16/31"])
        there.run(["ip", "-6", "route", "replace", "fd60::10/127", "dev", "lo", "proto", "90"])
        wait_for_routes(there, to_one_and_beside(routed))

    def test_those_of_others_in_the_same_subnet_stay(self, routed: Routed) -> None:
        there = routed.far.host
        there.run(["ip", "route", "add", "10.60.0.201", "via", routed.one.host.address])
        try:
            there.run(["ip", "route", "del", "10.60.0.16/31"])
            wait_for_routes(there, to_one_and_beside(routed))
            told = json.loads(there.run(["ip", "-j", "route"]).stdout)
            foreign = {route["dst"]: route.get("protocol", "boot") for route in told if "10.60.0.20" in route["dst"]}
            assert foreign == {FOREIGN: "static", "10.60.0.201": "boot"}
        finally:
            there.run(["ip", "route", "del", "10.60.0.201"])


@L3_WILL_DO
def test_a_host_that_is_on_another_lan_is_told_of_and_disturbs_no_other(routed: Routed, lan_lab: LanLab) -> None:
    here = routed.one.host
    said = Log(here)
    with stranger(lan_lab, "10.77.0.9", "10.60.0.77"):
        said.await_line(r"10\.60\.0\.77.* the host 10\.77\.0\.9 and this one are not on one LAN")
        assert next_hops(here).keys() == {"10.60.0.32", "fd60::20"}
        assert routed.one.pings(routed.far.address)
        until(lambda: "10.77.0.9" in trouble(here), seconds=5, what="the trouble in the daemon's status")
    until(lambda: not trouble(here), seconds=10, what="the end of the trouble")


@contextmanager
def stranger(lan_lab: LanLab, underlay: str, address: str) -> Iterator[None]:
    """A further host of the cluster, as the store knows it, reached by ``underlay``, with a container."""
    spelled = ".".join(f"{int(part):03d}" for part in address.split("."))
    segment = f"{STORE_ROOT}/segments/{SEGMENT}"
    records = {
        f"{STORE_ROOT}/hosts/stranger": {"version": "0", "instance": "0"},
        f"{segment}/members/stranger": {"underlay": [underlay], "networks": ["0"]},
        f"{segment}/endpoints/{spelled}": {"address": address, "mac": None, "host": "stranger", "endpoint": "0"},
    }
    for key, record in records.items():
        lan_lab.lab.etcdctl("put", key, json.dumps(record))
    try:
        yield
    finally:
        for key in records:
            lan_lab.lab.etcdctl("del", key)


def trouble(host: Host) -> str:
    """What the daemon says is wrong with its segments."""
    return " ".join(str(segment["trouble"]) for segment in status(host)["segments"] if segment["trouble"])
