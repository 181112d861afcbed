"""Two hosts, a container on each, and what is on the wire between them."""

import dataclasses
import re
import socket

import pytest

from example_links import BLUE
from netns import NetworkNamespace
from spanlan.kernel.links import Links
from spanlan.kernel.overlay import OverlayState
from spanlan.model.address import ip_address
from spanlan.model.host import MacvlanLink, Overlay
from spanlan.model.mac import derive_mac, format_mac

VTEPS = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd09::1", "fd09::2")}
MTU = {4: 1450, 6: 1430}
CONTAINERS = (("10.42.0.1", "fd42::1"), ("10.42.0.2", "fd42::2"))


class Pair:
    """Two hosts on one wire, with a container each, on one segment over an underlay of the given version."""

    def __init__(self, new_namespace, version, **link_options):
        self.hosts = [new_namespace(), new_namespace()]
        self.containers = [new_namespace(), new_namespace()]
        self.macs = [derive_mac("blue", ip_address(v4)) for v4, _ in CONTAINERS]
        self._wire()
        self.overlays = []
        for side, host in enumerate(self.hosts):
            local, remote = (ip_address(VTEPS[version][number]) for number in (side, 1 - side))
            link = dataclasses.replace(BLUE, local=local, mtu=MTU[version], **link_options)
            mac = self.macs[1 - side]
            wanted = Overlay(link, {ip_address(text): mac for text in CONTAINERS[1 - side]}, {mac: remote})
            overlay = OverlayState(link)
            overlay.want(wanted)
            report = host.run(overlay.sync)
            assert (report.failed, report.pending) == (0, 0), report
            self.overlays.append(overlay)
            self._container(side, link)

    def _wire(self):
        one, other = self.hosts
        one.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "far0")
        other.take("far0", of=one)
        other.command("ip", "link", "set", "far0", "name", "under0")
        for side, host in enumerate(self.hosts):
            host.command("ip", "addr", "add", f"{VTEPS[4][side]}/24", "dev", "under0")
            host.command("ip", "addr", "add", f"{VTEPS[6][side]}/64", "dev", "under0", "nodad")
            host.command("ip", "link", "set", "under0", "up")

    def _container(self, side, link):
        host, container = self.hosts[side], self.containers[side]
        child = MacvlanLink("sep0", "spanlan endpoint", link.name, self.macs[side], link.mtu)
        host.run(Links().make_child, child)
        container.take("sep0", of=host)
        container.command("ip", "link", "set", "sep0", "name", "eth0")
        v4, v6 = CONTAINERS[side]
        container.command("ip", "addr", "add", f"{v4}/24", "dev", "eth0")
        container.command("ip", "addr", "add", f"{v6}/64", "dev", "eth0", "nodad")
        container.command("ip", "link", "set", "eth0", "up")

    def ping(self, side, address, *options):
        output = self.containers[side].command(
            "ping", "-c", "3", "-i", "0.02", "-W", "2", *options, address, check=False
        )
        return int(re.search(r"(\d+) received", output)[1])


class Wiretap:
    """Counts ARP and neighbour discovery inside the tunnel, by looking at every packet on the wire."""

    def __init__(self, host: NetworkNamespace) -> None:
        self._host = host
        with host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            self._socket.bind(("under0", 0))
        self._socket.settimeout(0.2)

    def frames(self) -> list[bytes]:
        """The frames inside the tunnel's packets."""
        found = []
        while True:
            try:
                packet = self._socket.recv(65536)
            except TimeoutError:
                return found
            kind = packet[12:14]
            start = 14 + (20 if kind == b"\x08\x00" else 40)
            protocol = packet[23] if kind == b"\x08\x00" else packet[20]
            if kind in {b"\x08\x00", b"\x86\xdd"} and protocol == 17 and packet[start + 2 : start + 4] == b"\x12\xb5":
                found.append(packet[start + 16 :])

    def close(self):
        self._socket.close()


def questions(frames):
    """ARP requests, and ICMPv6 of types 133 to 137 (neighbour discovery), among frames."""
    arp = [frame for frame in frames if frame[12:14] == b"\x08\x06"]
    discovery = [
        frame for frame in frames if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and 133 <= frame[54] <= 137
    ]
    return arp + discovery


@pytest.mark.parametrize("underlay", [4, 6])
def test_containers_of_two_hosts_reach_each_other_and_nothing_is_asked_on_the_wire(new_namespace, underlay):
    pair = Pair(new_namespace, underlay)
    tap = Wiretap(pair.hosts[0])
    try:
        for side in (0, 1):
            for address in CONTAINERS[1 - side]:
                assert pair.ping(side, address) == 3, f"host {side} to {address}"
        frames = tap.frames()
    finally:
        tap.close()
    assert len(frames) >= 4 * 3 * 2
    assert questions(frames) == []


def test_the_kernel_answers_for_the_remote_container_with_its_mac(new_namespace):
    pair = Pair(new_namespace, 4)
    for address in CONTAINERS[1]:
        assert pair.ping(0, address) == 3
        (entry,) = pair.containers[0].json("ip", "-j", "neigh", "show", "to", address, "dev", "eth0")
        assert entry["lladdr"] == format_mac(pair.macs[1])


def test_an_unknown_address_is_not_asked_for_on_the_wire(new_namespace):
    pair = Pair(new_namespace, 4)
    tap = Wiretap(pair.hosts[0])
    try:
        assert pair.ping(0, "10.42.0.77") == 0
        assert pair.ping(0, "fd42::77") == 0
        assert questions(tap.frames()) == []
    finally:
        tap.close()


@pytest.mark.parametrize("underlay", [4, 6])
def test_packets_of_the_full_mtu_pass_and_larger_ones_do_not(new_namespace, underlay):
    pair = Pair(new_namespace, underlay)
    largest = MTU[underlay]
    assert pair.ping(0, CONTAINERS[1][0], "-M", "do", "-s", str(largest - 28)) == 3
    assert pair.ping(0, CONTAINERS[1][1], "-M", "do", "-s", str(largest - 48)) == 3
    assert pair.ping(0, CONTAINERS[1][0], "-M", "do", "-s", str(largest - 27)) == 0


def test_over_ipv6_a_host_that_sends_no_checksum_is_understood(new_namespace):
    pair = Pair(new_namespace, 6, udp_csum=False)
    assert pair.ping(0, CONTAINERS[1][0]) == 3
    mixed = dataclasses.replace(pair.overlays[1].link, udp_csum=True)
    pair.overlays[1].want_link(mixed)
    pair.hosts[1].run(pair.overlays[1].sync)
    pair._container(1, mixed)
    assert pair.ping(0, CONTAINERS[1][1]) == 3


def test_an_endpoint_taken_out_of_the_segment_is_reached_no_more(new_namespace):
    pair = Pair(new_namespace, 4)
    assert pair.ping(0, CONTAINERS[1][0]) == 3
    pair.overlays[0].want_fdb(pair.macs[1], None)
    pair.hosts[0].run(pair.overlays[0].sync)
    assert pair.ping(0, CONTAINERS[1][0]) == 0


def test_a_device_whose_underlay_moved_in_place_keeps_its_containers(new_namespace):
    pair = Pair(new_namespace, 4)
    moved = dataclasses.replace(pair.overlays[0].link, local=ip_address("10.9.0.7"), ttl=7)
    pair.hosts[0].command("ip", "addr", "add", "10.9.0.7/24", "dev", "under0")
    pair.overlays[0].want_link(moved)
    pair.hosts[0].run(pair.overlays[0].sync)
    pair.overlays[1].want_fdb(pair.macs[0], ip_address("10.9.0.7"))
    pair.hosts[1].run(pair.overlays[1].sync)
    pair.hosts[0].command("ip", "addr", "del", "10.9.0.1/24", "dev", "under0")
    pair.hosts[0].command("ip", "addr", "replace", "10.9.0.7/24", "dev", "under0")
    assert pair.ping(0, CONTAINERS[1][0]) == 3
    assert pair.ping(1, CONTAINERS[0][1]) == 3
