"""Segments on the LAN in the kernel, with ipvlan and VLANs: the host's own child, and routes between hosts."""

import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from example_parents import IPVLAN, VLAN, exists, show
from netns import NetworkNamespace
from spanlan.errors import Refuse
from spanlan.kernel.lan import LanState
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import Monitor
from spanlan.kernel.routes import Way, dump_routes
from spanlan.model.address import IPAddress, IPNetwork, ip_address, ip_network
from spanlan.model.host import ChildLink, HostLink, LanGround, Nic, OnLink, ParentLink, Wanted

POOL, POOL6 = ip_network("10.42.0.0/16"), ip_network("fd42::/64")
MODES = ["l2", "l3", "l3s"]


class Host:
    """A host in a network namespace, with one NIC on the LAN, one container and a link of its own."""

    def __init__(self, namespace: NetworkNamespace, number: int, mode: str, container: NetworkNamespace) -> None:
        self.namespace = namespace
        self.container = container
        self.nic = ("under0", "wire0")[number - 1]
        self.address, self.address6 = ip_address(f"10.9.0.{number}"), ip_address(f"fd09::{number}")
        self.own, self.own6 = POOL[256 * number + 1], POOL6[256 * number + 1]
        self.inner, self.inner6 = POOL[256 * number + 5], POOL6[256 * number + 5]
        child = dataclasses.replace(IPVLAN, name="slh-blue", alias="spanlan segment=blue host", parent=self.nic)
        self.state = LanState(ground((Nic(self.nic),), dataclasses.replace(child, mode=mode), self.own, self.own6))
        self.mode = mode

    def start(self, other: "Host") -> None:
        """Bring up the segment and the container, and route to those of the other host."""
        with self.namespace.entered():
            self.state.want_entries(
                Wanted(
                    routes={
                        **dict.fromkeys((other.own, other.inner), other.address),
                        **dict.fromkeys((other.own6, other.inner6), other.address6),
                    }
                )
            )
            report = self.state.sync()
            assert (report.failed, report.reasons) == (0, ())
            Links().make_child(dataclasses.replace(IPVLAN, parent=self.nic, mode=self.mode))
            self.container.take("sle-one", of=self.namespace)
        inside = self.container.command
        inside("ip", "addr", "add", f"{self.inner}/16", "dev", "sle-one")
        inside("ip", "addr", "add", f"{self.inner6}/64", "dev", "sle-one", "nodad")
        inside("ip", "link", "set", "sle-one", "up")
        inside("ip", "route", "add", "default", "dev", "sle-one")
        inside("ip", "-6", "route", "add", "default", "dev", "sle-one")


def ground(
    links: tuple[ParentLink, ...], child: ChildLink, *addresses: IPAddress, pools: tuple[IPNetwork, ...] = (POOL, POOL6)
) -> LanGround:
    """With a link of the host's own, over which the pools are."""
    subnets = tuple((pool, OnLink(child.name, address)) for pool, address in zip(pools, addresses, strict=True))
    return LanGround(links, HostLink(child, addresses), pools, subnets)


@pytest.fixture
def two_hosts(
    namespace: NetworkNamespace, new_namespace: Callable[[], NetworkNamespace]
) -> Callable[[str], list[Host]]:
    """Two hosts on one cable, whose kernels forward nothing and are strict about where packets come from."""

    def make(mode: str) -> list[Host]:
        second = new_namespace()
        second.take("wire0", of=namespace)
        second.command("ip", "addr", "add", "10.9.0.2/24", "dev", "wire0")
        second.command("ip", "addr", "add", "fd09::2/64", "dev", "wire0", "nodad")
        second.command("ip", "link", "set", "wire0", "up")
        hosts = [Host(namespace, 1, mode, new_namespace()), Host(second, 2, mode, new_namespace())]
        for host in hosts:
            with host.namespace.entered():
                Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
                Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("1")
        hosts[0].start(hosts[1])
        hosts[1].start(hosts[0])
        return hosts

    return make


def ping(where, address):
    where.command("ping", "-c", "1", "-W", "10", str(address))


@pytest.mark.parametrize("mode", MODES)
def test_the_host_and_its_containers_reach_each_other(two_hosts, mode):
    for host in two_hosts(mode):
        for address in (host.inner, host.inner6):
            ping(host.namespace, address)
        for address in (host.own, host.own6):
            ping(host.container, address)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_containers_of_two_hosts_reach_each_other_without_a_router_and_without_forwarding(two_hosts, mode):
    one, other = two_hosts(mode)
    for address in (other.inner, other.inner6):
        ping(one.container, address)
    for address in (one.inner, one.inner6):
        ping(other.container, address)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_a_host_and_the_containers_of_another_one_reach_each_other(two_hosts, mode):
    one, other = two_hosts(mode)
    for address in (other.inner, other.inner6, other.own, other.own6):
        ping(one.namespace, address)
    for address in (one.own, one.own6):
        ping(other.container, address)


def test_the_hosts_own_link_gets_no_address_that_a_container_has(namespace, new_namespace):
    Links().make_child(IPVLAN)
    inside = new_namespace()
    inside.take("sle-one", of=namespace)
    inside.command("ip", "addr", "add", "10.42.0.5/16", "dev", "sle-one")
    inside.command("ip", "link", "set", "sle-one", "up")
    child = dataclasses.replace(IPVLAN, name="slh-blue", alias="spanlan segment=blue host")
    report = LanState(ground((Nic("under0"),), child, POOL[5], POOL6[5])).sync()
    assert any("address 10.42.0.5 cannot be put on slh-blue" in reason for reason in report.reasons)
    assert POOL6 in dump_routes()


def test_the_hosts_own_link_in_another_mode_than_the_containers_is_refused(namespace):
    Links().make_child(IPVLAN)
    child = dataclasses.replace(IPVLAN, name="slh-blue", alias="spanlan segment=blue host", mode="l3")
    with pytest.raises(Refuse, match=r"slh-blue: .* have mode l2 and flag bridge, such as sle-one"):
        LanState(ground((Nic("under0"),), child, POOL[1], POOL6[1])).sync()
    assert not exists(namespace, "slh-blue")


def test_a_vlan_its_host_link_and_routes_come_back_when_the_nic_was_deleted_and_made_again(namespace):
    child = dataclasses.replace(IPVLAN, name="slh-blue", alias="spanlan segment=blue host", parent="under0.10")
    state = LanState(ground((VLAN,), child, POOL[1], POOL6[1]))
    report = state.sync()
    assert report.changes == ("made", "slh-blue: made")
    assert set(dump_routes()) == {POOL, POOL6}
    with Monitor() as monitor:
        namespace.command("ip", "link", "delete", "under0")
        assert True in [state.observe(event) for event in monitor.events(5)]
        with pytest.raises(Refuse, match="its parent under0 is not there"):
            state.sync()
        namespace.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "wire0")
        namespace.command("ip", "link", "set", "wire0", "up")
        namespace.command("ip", "link", "set", "under0", "up")
        assert True in [state.observe(event) for event in monitor.events(5)]
    assert state.sync().changes == ("made", "slh-blue: made")
    own = socket.if_nametoindex("slh-blue")
    assert dump_routes() == {POOL: Way(own, source=POOL[1]), POOL6: Way(own, source=POOL6[1])}
    assert state.remove() is True
    assert not exists(namespace, "under0.10")
    assert dump_routes() == {}


def test_segments_that_share_a_vlan_leave_it_to_each_other(namespace):
    child = dataclasses.replace(IPVLAN, name="slh-blue", alias="spanlan segment=blue host", parent="under0.10")
    blue = LanState(ground((VLAN,), child, POOL[1], POOL6[1]))
    red = LanState(LanGround((VLAN,)))
    blue.sync()
    assert red.sync().changes == ()
    assert red.remove(keep={"under0.10", "slh-blue"}) is False
    assert red.remove() is False  # also if nobody says that it is wanted: the host's own link is on it
    assert show(namespace, "slh-blue")["link"] == "under0.10"
    assert blue.remove() is True
