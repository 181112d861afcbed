"""Parents of children on the LAN: how they are named, what cannot be one, and who shares one with whom."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from example_parents import NIC
from spanlan.drivers import parents
from spanlan.drivers.ipvlan import IpvlanDriver
from spanlan.drivers.lan import LanDriver
from spanlan.drivers.macvlan import MacvlanDriver
from spanlan.errors import Refuse
from spanlan.model.cluster import Segment
from spanlan.model.host import IsolatedLink, LanAttachment, Parent, TunnelAttachment, VlanLink
from spanlan.model.local import Network

TAGGED = replace(NIC, name="eth0.100", kind="vlan", vlan=100, vlan_protocol="802.1q", below="eth0")
SERVICE_TAGGED = replace(TAGGED, vlan_protocol="802.1ad")

macvlan, ipvlan = MacvlanDriver(), IpvlanDriver()
BOTH = pytest.mark.parametrize("driver", [macvlan, ipvlan], ids=lambda driver: driver.mode)


def attached(driver: LanDriver, nic: Parent | None = NIC, segment: str = "lan", **options: str) -> LanAttachment:
    chosen = driver.parse({"parent": "eth0", **options})  # type: ignore[attr-defined]
    there = Segment(segment, driver.mode, driver.variant(chosen))
    return driver.attach(chosen, there, nic)  # type: ignore[attr-defined,no-any-return]


def network(attachment: LanAttachment | TunnelAttachment, network_id: str = "1" * 64, mode: str = "macvlan") -> Network:
    return Network(network_id, Segment("other", mode), attachment, prefix="eth", internal=False)


class TestNames:
    def test_a_name_with_a_number_behind_a_dot_names_a_vlan(self) -> None:
        assert parents.split("eth0.10") == ("eth0", (10,))
        assert parents.split("bond0.100.10") == ("bond0.100", (10,))

    @pytest.mark.parametrize("name", ["eth0", "eth0.lan", "eth0.", ".10", "eth0.-1", "eth0.١٠"])  # noqa: RUF001
    def test_other_names_name_none(self, name: str) -> None:
        assert parents.split(name) == (name, None)

    @pytest.mark.parametrize("vlan", ["0", "4095", "4096", "99999"])
    def test_a_vlan_in_the_name_that_cannot_be_is_refused(self, vlan: str) -> None:
        with pytest.raises(Refuse) as caught:
            macvlan.vlan_of_name(macvlan.parse({"parent": f"eth0.{vlan}"}))
        assert str(caught.value) == f"option parent=eth0.{vlan}: a VLAN is a number from 1 to 4094, not {vlan}"

    def test_a_vlan_in_the_name_becomes_the_option(self) -> None:
        chosen = macvlan.vlan_of_name(macvlan.parse({"parent": "eth0.10"}))
        assert (chosen.parent, chosen.vlan) == ("eth0", (10,))

    def test_a_vlan_in_the_name_and_the_same_one_as_option_are_one(self) -> None:
        chosen = macvlan.vlan_of_name(macvlan.parse({"parent": "eth0.10", "vlan": "10"}))
        assert (chosen.parent, chosen.vlan) == ("eth0", (10,))

    def test_two_vlans_that_differ_are_refused(self) -> None:
        with pytest.raises(Refuse, match=r"eth0\.10 and vlan=20 name different VLANs; give -o vlan= with the NIC"):
            macvlan.vlan_of_name(macvlan.parse({"parent": "eth0.10", "vlan": "20"}))

    def test_a_name_without_vlan_stays(self) -> None:
        chosen = macvlan.parse({"parent": "eth0", "vlan": "20"})
        assert macvlan.vlan_of_name(chosen) == chosen
        isolated = macvlan.parse({})
        assert macvlan.vlan_of_name(isolated) == isolated


class TestVlanOption:
    @pytest.mark.parametrize("text", ["0", "4095", "", "ten", "-1", "10.", "1.2.3", "100.4095", "0.10", "+5", "1e1"])
    @BOTH
    def test_what_is_no_vlan_is_refused(self, driver: LanDriver, text: str) -> None:
        with pytest.raises(Refuse) as caught:
            driver.parse({"parent": "eth0", "vlan": text})  # type: ignore[attr-defined]
        assert str(caught.value) == f"option vlan={text}: must be a VLAN from 1 to 4094, or OUTER.INNER for QinQ"

    @pytest.mark.parametrize(("text", "vlans"), [("1", (1,)), ("4094", (4094,)), ("100.10", (100, 10))])
    def test_one_vlan_or_two(self, text: str, vlans: tuple[int, ...]) -> None:
        assert parents.vlan_ids(text) == vlans

    @pytest.mark.parametrize("text", ["", "1", "1:", ":1", "1:8", "a:1", "1:1,", "1-1", "4294967296:1", "0:1,0:2"])
    def test_what_is_no_map_of_priorities_is_refused(self, text: str) -> None:
        with pytest.raises(Refuse, match=f"option vlan_qos={text}: must be pairs FROM:TO such as 0:1,6:5"):
            macvlan.parse({"parent": "eth0", "vlan": "10", "vlan_qos": text})

    def test_a_map_of_priorities_is_the_same_in_any_order(self) -> None:
        assert parents.priorities("6:5,0:1") == parents.priorities("0:1,6:5") == ((0, 1), (6, 5))

    @BOTH
    def test_a_map_of_priorities_without_a_vlan_is_refused(self, driver: LanDriver) -> None:
        with pytest.raises(Refuse, match=r"option vlan_qos= needs a VLAN to set them in: add -o vlan="):
            attached(driver, vlan_qos="0:1")

    @BOTH
    def test_a_vlan_without_a_parent_is_refused(self, driver: LanDriver) -> None:
        with pytest.raises(Refuse, match="option vlan= needs a NIC that carries the VLAN: add -o parent=INTERFACE"):
            attached(driver, None, vlan="10")


class TestVlanLinks:
    def test_none(self) -> None:
        attachment = attached(macvlan)
        assert (attachment.parent, attachment.links) == ("eth0", ())

    def test_one_on_the_nic(self) -> None:
        attachment = attached(macvlan, vlan="10", vlan_qos="0:1,6:5")
        assert attachment.parent == "eth0.10"
        assert attachment.links == (
            VlanLink("eth0.10", "spanlan vlan=10", "eth0", 10, protocol="802.1q", egress_qos=((0, 1), (6, 5))),
        )

    def test_two_have_the_service_tag_outside_and_the_priorities_inside(self) -> None:
        attachment = attached(macvlan, vlan="100.10", vlan_qos="0:1")
        assert attachment.parent == "eth0.100.10"
        assert attachment.links == (
            VlanLink("eth0.100", "spanlan vlan=100", "eth0", 100, protocol="802.1ad"),
            VlanLink("eth0.100.10", "spanlan vlan=10", "eth0.100", 10, protocol="802.1q", egress_qos=((0, 1),)),
        )

    def test_a_vlan_in_a_service_tag_that_is_there(self) -> None:
        attachment = attached(macvlan, SERVICE_TAGGED, vlan="10")
        assert attachment.links == (VlanLink("eth0.100.10", "spanlan vlan=10", "eth0.100", 10),)

    @pytest.mark.parametrize(
        ("nic", "vlan", "protocol"),
        [(TAGGED, "10", "802.1q"), (TAGGED, "7.10", "802.1q"), (SERVICE_TAGGED, "7.10", "802.1ad")],
    )
    @BOTH
    def test_a_vlan_in_a_vlan_without_a_service_tag_is_refused(
        self, driver: LanDriver, nic: Parent, vlan: str, protocol: str
    ) -> None:
        with pytest.raises(Refuse) as caught:
            attached(driver, nic, vlan=vlan)
        assert str(caught.value) == (
            f"option vlan={vlan}: eth0.100 is VLAN 100 itself ({protocol}), and a VLAN in a VLAN needs an outer tag of "
            "802.1ad; give -o parent=eth0 -o vlan=100.10, or a NIC that is no VLAN as parent"
        )

    @pytest.mark.parametrize("name", ["enp0s31f6", "enx001122334455", "wwp0s20f0u6i12", "ünïcödé0", "a" * 15])
    @pytest.mark.parametrize("vlan", ["1", "4094", "4094.4094"])
    def test_names_fit_into_what_linux_takes_and_are_told_apart(self, name: str, vlan: str) -> None:
        links = attached(macvlan, replace(NIC, name=name), vlan=vlan).links
        other = attached(macvlan, replace(NIC, name=f"b{name[1:]}"), vlan=vlan).links
        names = [link.name for link in (*links, *other)]
        assert all(len(each.encode()) <= 15 for each in names)
        assert len(set(names)) == len(names)
        assert all(upper.parent == lower.name for lower, upper in pairwise(links) if isinstance(upper, VlanLink))

    def test_a_short_name_is_the_one_that_people_expect(self) -> None:
        assert attached(macvlan, replace(NIC, name="enp0s31f6"), vlan="4094").parent == "enp0s31f6.4094"


class TestUnfit:
    @BOTH
    def test_the_loopback(self, driver: LanDriver) -> None:
        with pytest.raises(Refuse) as caught:
            attached(driver, replace(NIC, name="lo", loopback=True, ethernet=False))
        assert str(caught.value) == "option parent=lo: the loopback leads nowhere; name a NIC"

    @BOTH
    def test_the_port_of_a_bridge(self, driver: LanDriver) -> None:
        with pytest.raises(Refuse) as caught:
            attached(driver, replace(NIC, master="br0"))
        assert str(caught.value) == "option parent=eth0: it is a port of br0, which takes its packets; name br0"

    @BOTH
    @pytest.mark.parametrize("kind", ["macvlan", "ipvlan", "macvtap", "ipvtap"])
    def test_a_child(self, driver: LanDriver, kind: str) -> None:
        with pytest.raises(Refuse) as caught:
            attached(driver, replace(NIC, name="mv0", kind=kind, below="eth0"))
        assert str(caught.value) == f"option parent=mv0: it is a {kind} link itself; name the one below it (eth0)"

    @BOTH
    def test_a_child_whose_parent_is_in_another_namespace(self, driver: LanDriver) -> None:
        with pytest.raises(Refuse, match=r"it is a macvlan link itself; name the one below it$"):
            attached(driver, replace(NIC, name="mv0", kind="macvlan"))

    @BOTH
    def test_a_link_of_our_own(self, driver: LanDriver) -> None:
        with pytest.raises(Refuse) as caught:
            attached(driver, replace(SERVICE_TAGGED, ours=True), vlan="10")
        assert str(caught.value) == (
            "option parent=eth0.100: spanlan made that link for other networks, and removes it with them; "
            "name the NIC below it and the VLAN, as in -o parent=eth0 -o vlan=100"
        )
        with pytest.raises(Refuse, match=r"parent=sli-1: spanlan made that link for other networks.*; name a NIC$"):
            attached(driver, replace(NIC, name="sli-1", kind="dummy", ours=True))

    def test_macvlan_on_a_wireless_nic_points_to_ipvlan(self) -> None:
        wireless = replace(NIC, name="wlan0", wireless=True)
        with pytest.raises(Refuse) as caught:
            attached(macvlan, wireless)
        assert str(caught.value) == (
            "option parent=wlan0: an access point takes frames of one MAC only, so macvlan cannot work on a wireless "
            "NIC; use -o mode=ipvlan"
        )
        assert attached(ipvlan, wireless).parent == "wlan0"

    def test_a_nic_without_macs_points_to_vxlan(self) -> None:
        with pytest.raises(Refuse) as caught:
            attached(macvlan, replace(NIC, name="tun0", ethernet=False))
        assert str(caught.value) == (
            "option parent=tun0: its frames carry no MAC address, so no container's link can sit on it; use "
            "-o mode=vxlan, which crosses any IP network"
        )

    @BOTH
    def test_an_mtu_above_the_parents(self, driver: LanDriver) -> None:
        with pytest.raises(Refuse) as caught:
            attached(driver, mtu="1501")
        assert str(caught.value) == (
            "option mtu=1501: eth0 carries at most 1500; ask for that or less, or raise its MTU"
        )
        assert attached(driver, mtu="1500").mtu == 1500
        assert attached(driver).mtu is None


class TestSharing:
    def test_macvlan_and_ipvlan_on_one_parent_are_refused_with_the_name_of_the_first(self) -> None:
        there = network(attached(ipvlan), mode="ipvlan")
        with pytest.raises(Refuse) as caught:
            macvlan.refuse_beside(attached(macvlan), [there])
        assert str(caught.value) == (
            "option mode=macvlan: eth0 carries ipvlan network 111111111111, and one parent has either macvlan or "
            "ipvlan children; use another parent, a VLAN of it (-o vlan=), or mode=ipvlan"
        )
        with pytest.raises(Refuse, match="option mode=ipvlan: eth0 carries macvlan network 111111111111"):
            ipvlan.refuse_beside(attached(ipvlan), [network(attached(macvlan))])

    def test_links_of_other_programs_on_the_parent_count_as_ours_do(self) -> None:
        docker = replace(NIC, children=frozenset({("macvlan", "bridge")}))
        macvlan.refuse_beside(attached(macvlan), [], docker)
        with pytest.raises(Refuse, match=r"eth0 carries macvlan links that spanlan did not make.*mode=macvlan"):
            ipvlan.refuse_beside(attached(ipvlan), [], docker)
        with pytest.raises(
            Refuse, match="option macvlan_mode=passthru: eth0 is used by a link that spanlan did not make"
        ):
            macvlan.refuse_beside(attached(macvlan, macvlan_mode="passthru"), [], docker)

    def test_another_programs_ipvlan_links_set_the_mode_and_flag(self) -> None:
        docker = replace(NIC, children=frozenset({("ipvlan", "l3")}), ipvlan_flag="bridge")
        ipvlan.refuse_beside(attached(ipvlan, ipvlan_mode="l3"), [], docker)
        with pytest.raises(Refuse, match=r"ipvlan_mode=l2.*ipvlan links that spanlan did not make with l3 and bridge"):
            ipvlan.refuse_beside(attached(ipvlan), [], docker)

    def test_they_may_sit_on_different_vlans_of_one_nic(self) -> None:
        macvlan.refuse_beside(attached(macvlan, vlan="10"), [network(attached(ipvlan, vlan="20"))])
        ipvlan.refuse_beside(attached(ipvlan, vlan="20"), [network(attached(macvlan, vlan="10"))])

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({"ipvlan_mode": "l2"}, {"ipvlan_mode": "l3"}),
            ({"ipvlan_mode": "l3"}, {"ipvlan_mode": "l3s"}),
            ({"ipvlan_flag": "bridge"}, {"ipvlan_flag": "private"}),
            ({"ipvlan_flag": "vepa"}, {"ipvlan_flag": "bridge"}),
        ],
    )
    def test_ipvlan_networks_of_one_parent_share_mode_and_flag(
        self, first: dict[str, str], second: dict[str, str]
    ) -> None:
        there, here = attached(ipvlan, **first), attached(ipvlan, **second)
        with pytest.raises(Refuse) as caught:
            ipvlan.refuse_beside(here, [network(there)])
        assert str(caught.value) == (
            f"options ipvlan_mode={here.mode}, ipvlan_flag={here.flag}: eth0 carries network 111111111111 with "
            f"{there.mode} and {there.flag}, and the kernel has one mode and flag a parent; give the same, or use "
            "another parent or a VLAN of it (-o vlan=)"
        )
        ipvlan.refuse_beside(attached(ipvlan, vlan="10", **second), [network(there)])
        ipvlan.refuse_beside(there, [network(there), network(attached(macvlan, vlan="7"))])

    @pytest.mark.parametrize(("first", "second"), [("passthru", "bridge"), ("bridge", "passthru"), ("passthru",) * 2])
    def test_a_second_network_on_a_passthru_parent_is_refused(self, first: str, second: str) -> None:
        with pytest.raises(Refuse) as caught:
            macvlan.refuse_beside(
                attached(macvlan, macvlan_mode=second), [network(attached(macvlan, macvlan_mode=first))]
            )
        assert str(caught.value) == (
            f"option macvlan_mode={second}: eth0 is used by network 111111111111 (macvlan {first}), and passthru takes "
            "a NIC for one network alone; choose another parent or another mode"
        )

    def test_other_macvlan_modes_share_a_parent(self) -> None:
        others = [network(attached(macvlan, macvlan_mode=mode)) for mode in ("bridge", "private", "vepa")]
        macvlan.refuse_beside(attached(macvlan, macvlan_mode="private"), others)

    @BOTH
    def test_a_vlan_link_has_one_map_of_priorities(self, driver: LanDriver) -> None:
        there = network(attached(driver, vlan="10", vlan_qos="0:1"))
        with pytest.raises(Refuse) as caught:
            driver.refuse_beside(attached(driver, vlan="10", vlan_qos="0:2"), [there])  # type: ignore[attr-defined]
        assert str(caught.value) == (
            "option vlan_qos=: eth0.10 is shared with network 111111111111, which has 0:1 where this one asks for 0:2; "
            "give the same"
        )
        with pytest.raises(Refuse, match="which has 0:1 where this one asks for none"):
            driver.refuse_beside(attached(driver, vlan="10"), [there])  # type: ignore[attr-defined]
        driver.refuse_beside(attached(driver, vlan="20", vlan_qos="0:2"), [there])  # type: ignore[attr-defined]

    @BOTH
    def test_a_tag_is_a_customers_or_a_services(self, driver: LanDriver) -> None:
        there = network(attached(driver, vlan="100"))
        with pytest.raises(Refuse) as caught:
            driver.refuse_beside(attached(driver, vlan="100.10"), [there])  # type: ignore[attr-defined]
        assert str(caught.value) == (
            "option vlan=: eth0.100 is shared with network 111111111111, where its tag is 802.1q, and it would have to "
            "be 802.1ad; choose another VLAN, or another parent"
        )

    @BOTH
    def test_a_tunnel_by_way_of_the_same_nic_is_no_child_of_it(self, driver: LanDriver) -> None:
        driver.refuse_beside(  # type: ignore[attr-defined]
            attached(driver), [network(TunnelAttachment("eth0", ip_address("192.0.2.1")))]
        )


class TestIsolated:
    @BOTH
    def test_a_network_without_parent_gets_a_link_of_its_own_that_leads_nowhere(self, driver: LanDriver) -> None:
        attachment = attached(driver, None, segment="isolated.0123456789ab")
        assert attachment.isolated
        (link,) = attachment.links
        assert isinstance(link, IsolatedLink)
        assert attachment.parent == link.name
        assert len(link.name) <= 15
        assert link.alias == "spanlan segment=isolated.0123456789ab"
        assert attached(driver, None, segment="isolated.0123456789ac").parent != attachment.parent
