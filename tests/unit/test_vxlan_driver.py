"""What a VXLAN segment needs on a host, worked out without a kernel."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from spanlan import drivers
from spanlan.drivers.common import child_name
from spanlan.drivers.vxlan import VxlanDriver, VxlanOptions, device_name, tunnel_of
from spanlan.errors import Refuse
from spanlan.model.cluster import Endpoint, Member, Segment, Tunnel
from spanlan.model.host import MacvlanLink, TunnelAttachment, Underlay
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import derive_mac, format_mac, parse_mac
from spanlan.model.request import NetworkRequest
from spanlan.model.view import SegmentView

V4 = ip_address("192.0.2.1")
V6 = ip_address("2001:db8::1")
ETH0 = Underlay(interface="eth0", mtu=1500, addresses=(V4, V6))
TUNNEL = Tunnel(vni=42, port=4789, mtu=1450, family=4)
BLUE = Segment("blue", "vxlan", tunnel=TUNNEL)

driver = VxlanDriver()


def view_with(*endpoints: Endpoint, members: dict[str, str] | None = None) -> SegmentView:
    view = SegmentView()
    hosts = members if members is not None else {"a": "192.0.2.1", "b": "192.0.2.2"}
    view.replace([Member("blue", host, (ip_address(vtep),), ("n",)) for host, vtep in hosts.items()], endpoints)
    return view


def endpoint(address: str, host: str, mac: str | None = None) -> Endpoint:
    where = ip_address(address)
    return Endpoint("blue", where, parse_mac(mac) if mac else derive_mac("blue", where), host, f"id-{address}")


class TestOptions:
    def test_an_unknown_option_names_the_nearest_known_one(self) -> None:
        with pytest.raises(Refuse, match="unknown option segmnet: did you mean segment"):
            driver.parse({"segmnet": "blue"})

    def test_all_mistakes_are_reported_at_once(self) -> None:
        with pytest.raises(Refuse) as caught:
            driver.parse({"vni": "0", "mtu": "big", "colour": "red", "segment": "blue"})
        text = str(caught.value)
        assert "option vni=0: must be a number from 1 to 16777215" in text
        assert "option mtu=big" in text
        assert "unknown option colour" in text

    @pytest.mark.parametrize("vni", ["0", "16777216", "-1", "x", "1.5", ""])
    def test_a_vni_out_of_range_is_refused_with_the_range(self, vni: str) -> None:
        with pytest.raises(Refuse, match="must be a number from 1 to 16777215"):
            driver.parse({"segment": "blue", "vni": vni})

    def test_without_segment_and_vni_the_message_says_what_to_add(self) -> None:
        with pytest.raises(Refuse, match="add -o segment=NAME"):
            driver.parse({})

    def test_a_vni_alone_names_the_segment(self) -> None:
        assert driver.segment_name(driver.parse({"vni": "42"}), NetworkRequest("n", {})) == "vni42"

    def test_dockers_own_names_of_mtu_and_prefix_are_taken(self) -> None:
        chosen = driver.parse(
            {
                "segment": "blue",
                "com.docker.network.driver.mtu": "1400",
                "com.docker.network.container_iface_prefix": "lan",
            }
        )
        assert (chosen.mtu, chosen.container_iface_prefix) == (1400, "lan")

    def test_a_bad_mode_is_refused_with_the_modes_there_are(self) -> None:
        with pytest.raises(Refuse, match=r"option mode=vlxan: must be one of vxlan.*did you mean vxlan"):
            drivers.choose({"mode": "vlxan"})

    @pytest.mark.parametrize("segment", ["", "a/b", "-x", "x" * 64, "ü", "a b"])
    def test_a_segment_name_that_would_not_do_as_a_key_is_refused(self, segment: str) -> None:
        with pytest.raises(Refuse, match="option segment="):
            driver.parse({"segment": segment})


class TestSegment:
    def test_the_mtu_leaves_room_for_the_tunnel_of_either_family(self) -> None:
        chosen = VxlanOptions(segment="blue")
        over_4 = driver.propose(chosen, "blue", ETH0, lambda: 42)
        over_6 = driver.propose(chosen, "blue", replace(ETH0, addresses=(V6,)), lambda: 42)
        assert (tunnel_of(over_4).mtu, tunnel_of(over_6).mtu) == (1450, 1430)

    def test_an_mtu_that_does_not_fit_names_the_one_that_does(self) -> None:
        with pytest.raises(Refuse, match="-o mtu=1450"):
            driver.propose(VxlanOptions(segment="blue", mtu=1451), "blue", ETH0, lambda: 42)

    def test_options_that_contradict_the_segment_are_refused_by_name(self) -> None:
        with pytest.raises(Refuse) as caught:
            driver.check(VxlanOptions(segment="blue", vni=43, vxlan_port=8472), BLUE, ETH0)
        assert "option vni=43: segment blue has vni 42" in str(caught.value)
        assert "option vxlan_port=8472: segment blue has vxlan_port 4789" in str(caught.value)

    def test_options_left_out_take_what_the_segment_has(self) -> None:
        driver.check(VxlanOptions(segment="blue"), replace(BLUE, tunnel=Tunnel(7, 8472, 1400, 4)), ETH0)

    def test_a_host_with_a_smaller_underlay_is_refused_with_both_cures(self) -> None:
        with pytest.raises(Refuse, match="-o mtu=1400 or raise the MTU of eth0 to 1500"):
            driver.check(VxlanOptions(segment="blue"), BLUE, replace(ETH0, mtu=1450))

    def test_the_vtep_is_of_the_segments_family(self) -> None:
        assert driver.attach(VxlanOptions(segment="blue"), BLUE, ETH0).vtep == V4
        assert (
            driver.attach(VxlanOptions(segment="blue"), replace(BLUE, tunnel=replace(TUNNEL, family=6)), ETH0).vtep
            == V6
        )

    def test_a_host_without_an_address_of_that_family_is_refused(self) -> None:
        with pytest.raises(Refuse, match="runs over IPv6"):
            driver.attach(
                VxlanOptions(segment="blue"),
                replace(BLUE, tunnel=replace(TUNNEL, family=6)),
                replace(ETH0, addresses=(V4,)),
            )

    def test_an_underlay_without_any_address_is_refused(self) -> None:
        with pytest.raises(Refuse, match="eth0 has no address"):
            driver.propose(VxlanOptions(segment="blue"), "blue", replace(ETH0, addresses=()), lambda: 42)


class TestEntries:
    def test_a_remote_endpoint_gets_a_neighbour_and_an_fdb_entry(self) -> None:
        there = endpoint("10.0.0.2", "b")
        view = view_with(there)
        assert driver.neighbour(view, "a", there.address) == there.mac
        assert driver.fdb(view, "a", there.mac) == ip_address("192.0.2.2")

    def test_an_endpoint_of_this_host_gets_none(self) -> None:
        here = endpoint("10.0.0.1", "a")
        view = view_with(here)
        assert driver.neighbour(view, "a", here.address) is None
        assert driver.fdb(view, "a", here.mac) is None

    def test_an_endpoint_whose_host_has_no_vtep_yet_gets_none(self) -> None:
        there = endpoint("10.0.0.2", "c")
        view = view_with(there)
        assert driver.neighbour(view, "a", there.address) is None
        assert driver.fdb(view, "a", there.mac) is None

    def test_a_withdrawn_host_leads_nowhere(self) -> None:
        there = endpoint("10.0.0.2", "b")
        view = view_with(there)
        view.withdraw(frozenset({"b"}))
        assert driver.neighbour(view, "a", there.address) is None
        assert driver.fdb(view, "a", there.mac) is None

    def test_a_mac_that_is_here_and_there_leads_there_only_once(self) -> None:
        one = endpoint("10.0.0.2", "a", mac="02:00:00:00:00:01")
        other = endpoint("10.0.0.3", "b", mac="02:00:00:00:00:01")
        assert driver.fdb(view_with(one, other), "a", one.mac) == ip_address("192.0.2.2")


class TestHandover:
    def test_the_link_is_a_child_of_the_segments_device(self) -> None:
        network = Network("n" * 64, BLUE, TunnelAttachment("eth0", V4), prefix="lan", internal=False)
        mac = derive_mac("blue", ip_address("10.0.0.1"))
        local = LocalEndpoint("0123456789abcdef" * 4, "n" * 64, "blue", (ip_address("10.0.0.1"),), mac)
        handover = driver.handover(network, local)
        assert isinstance(handover.link, MacvlanLink)
        assert handover.link.parent == device_name(BLUE) == "slx-42"
        assert handover.link.name == child_name(local.endpoint_id) == "sle-0123456789a"
        assert (handover.link.mac, handover.link.mtu, handover.prefix) == (mac, 1450, "lan")
        assert handover.gateway is None
        assert not handover.disable_gateway_service

    def test_link_names_fit_into_what_linux_takes(self) -> None:
        assert len(device_name(replace(BLUE, tunnel=replace(TUNNEL, vni=2**24 - 1)))) <= 15
        assert len(child_name("f" * 64)) <= 15


class TestMac:
    def test_it_depends_on_segment_and_address_and_on_nothing_else(self) -> None:
        address = ip_address("10.0.0.1")
        assert derive_mac("blue", address) == derive_mac("blue", address)
        assert derive_mac("blue", address) != derive_mac("red", address)
        assert derive_mac("blue", address) != derive_mac("blue", ip_address("10.0.0.2"))

    def test_it_is_unicast_and_locally_administered(self) -> None:
        for number in range(1, 300):
            mac = derive_mac("blue", ip_address(number))
            assert mac[0] & 0b11 == 0b10, format_mac(mac)
