"""The ipvlan and macvlan drivers: options, segments, what a container gets, and the routes of a host."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from example_parents import NIC
from spanlan import drivers
from spanlan.drivers.base import NicNamed
from spanlan.drivers.ipvlan import IpvlanDriver
from spanlan.drivers.lan import LanDriver, host_child_name
from spanlan.drivers.macvlan import MacvlanDriver
from spanlan.errors import Broken, Refuse
from spanlan.model.address import IPAddress
from spanlan.model.cluster import Endpoint, Member, Segment
from spanlan.model.host import (
    Handover,
    HostLink,
    IpvlanLink,
    LanAttachment,
    LanGround,
    MacvlanLink,
    Nic,
    OnLink,
    Parent,
    StaticRoute,
    TunnelAttachment,
    Underlay,
    VlanLink,
    main_link,
    own_links,
)
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import derive_mac, parse_mac
from spanlan.model.request import EndpointRequest, NetworkPool, NetworkRequest
from spanlan.model.view import SegmentView, Touched

FOUR, SIX = ip_network("192.168.10.0/24"), ip_network("2001:db8:10::/64")
MINE, MINE6 = ip_address("192.168.10.7"), ip_address("2001:db8:10::7")  # a container here
THEIRS, THEIRS6 = ip_address("192.168.10.8"), ip_address("2001:db8:10::8")  # one of host b
HOST, HOST6 = ip_address("192.168.10.250"), ip_address("2001:db8:10::250")  # this host's place on the segment
B4, B6 = ip_address("10.0.0.2"), ip_address("fd00::2")
NETWORK_ID, ENDPOINT_ID = "0123456789ab" + "c" * 52, "fedcba98765" + "4" * 53

macvlan, ipvlan = MacvlanDriver(), IpvlanDriver()
BOTH = pytest.mark.parametrize("driver", [macvlan, ipvlan], ids=lambda driver: driver.mode)
LanDrivers = MacvlanDriver | IpvlanDriver


def request(*subnets: str) -> NetworkRequest:
    return NetworkRequest(NETWORK_ID, {}, tuple(NetworkPool(ip_network(subnet)) for subnet in subnets))


def segment_of(driver: LanDrivers, variant: str | None = None) -> Segment:
    there = variant if variant is not None else ("l2" if driver is ipvlan else "")
    return Segment("lan", driver.mode, there, pools=(FOUR, SIX))


def attached(driver: LanDrivers, nic: Parent | None = NIC, **options: str) -> LanAttachment:
    chosen = driver.parse({"parent": "eth0", **options})
    return driver.attach(chosen, segment_of(driver, driver.variant(chosen)), nic)  # type: ignore[arg-type]


def network(attachment: LanAttachment, *pools: NetworkPool, internal: bool = False, prefix: str = "eth") -> Network:
    mode, variant = attachment.kind, attachment.mode if attachment.kind == "ipvlan" else ""
    return Network(
        NETWORK_ID, Segment("lan", mode, variant, pools=(FOUR, SIX)), attachment, prefix, internal=internal, pools=pools
    )


def endpoint(*addresses: IPAddress, mac: bytes | None = None) -> LocalEndpoint:
    return LocalEndpoint(ENDPOINT_ID, NETWORK_ID, "lan", addresses, mac)  # type: ignore[arg-type]


def handed_over(driver: LanDrivers, there: Network, *addresses: IPAddress) -> Handover:
    return driver.handover(there, endpoint(*addresses))


def view(
    members: Mapping[str, Sequence[IPAddress]],
    containers: Mapping[IPAddress, str],
    withdrawn: frozenset[str] = frozenset(),
) -> SegmentView:
    seen = SegmentView()
    seen.replace(
        [Member("lan", host, tuple(hops), ("n",)) for host, hops in members.items()],
        [Endpoint("lan", address, None, host, f"e-{address}") for address, host in containers.items()],
    )
    seen.withdraw(withdrawn)
    return seen


def everything(seen: SegmentView) -> Touched:
    touched = Touched()
    for each in seen.endpoints.values():
        touched.add(each)
    return touched


class TestChoice:
    @pytest.mark.parametrize(
        ("options", "mode"),
        [
            ({}, "vxlan"),
            ({"mode": "ipvlan"}, "ipvlan"),
            ({"mode": "macvlan"}, "macvlan"),
            ({"ipvlan_mode": "l3"}, "ipvlan"),
            ({"macvlan_mode": "bridge"}, "macvlan"),
            ({"mode": "macvlan", "macvlan_mode": "vepa"}, "macvlan"),
        ],
    )
    def test_the_mode_is_named_or_implied_by_dockers_own_options(self, options: dict[str, str], mode: str) -> None:
        assert drivers.choose(options).mode == mode

    def test_a_mode_that_there_is_none_for_names_the_nearest(self) -> None:
        with pytest.raises(Refuse) as caught:
            drivers.choose({"mode": "mcvlan"})
        assert str(caught.value) == (
            "option mode=mcvlan: must be one of vxlan, ipvlan, macvlan (did you mean macvlan?)"
        )

    def test_both_implied_modes_at_once_are_refused(self) -> None:
        given = {"ipvlan_mode": "l2", "macvlan_mode": "bridge"}
        with pytest.raises(Refuse, match="unknown option macvlan_mode: did you mean ipvlan_mode"):
            drivers.choose(given).parse(given)

    def test_a_mode_at_odds_with_the_implied_one_is_refused(self) -> None:
        given = {"mode": "macvlan", "ipvlan_mode": "l2"}
        with pytest.raises(Refuse, match="unknown option ipvlan_mode: did you mean macvlan_mode"):
            drivers.choose(given).parse(given)


class TestOptions:
    def test_defaults_are_dockers(self) -> None:
        assert (macvlan.parse({}).macvlan_mode, macvlan.parse({}).parent) == ("bridge", None)
        assert (ipvlan.parse({}).ipvlan_mode, ipvlan.parse({}).ipvlan_flag) == ("l2", "bridge")

    @BOTH
    def test_dockers_own_names_of_mtu_and_prefix_are_taken(self, driver: LanDrivers) -> None:
        chosen = driver.parse(
            {"com.docker.network.driver.mtu": "1400", "com.docker.network.container_iface_prefix": "lan"}
        )
        assert (chosen.mtu, driver.prefix(chosen)) == (1400, "lan")

    @pytest.mark.parametrize(
        ("driver", "given", "message"),
        [
            (
                ipvlan,
                {"ipvlan_mode": "l4"},
                "option ipvlan_mode=l4: must be one of l2, l3, l3s",
            ),
            (
                ipvlan,
                {"ipvlan_mode": "L3"},
                "option ipvlan_mode=L3: must be one of l2, l3, l3s",
            ),
            (
                ipvlan,
                {"ipvlan_flag": "brigde"},
                "option ipvlan_flag=brigde: must be one of bridge, private, vepa (did you mean bridge?)",
            ),
            (
                ipvlan,
                {"ipvlan_flags": "bridge"},
                "unknown option ipvlan_flags: did you mean ipvlan_flag?",
            ),
            (
                macvlan,
                {"macvlan_mode": "pasthru"},
                "option macvlan_mode=pasthru: must be one of bridge, private, vepa, passthru (did you mean passthru?)",
            ),
            (
                macvlan,
                {"macvlan_mod": "bridge"},
                "unknown option macvlan_mod: did you mean macvlan_mode?",
            ),
            (
                macvlan,
                {"host_acces": "true"},
                "unknown option host_acces: did you mean host_access?",
            ),
            (macvlan, {"mtu": "67"}, "option mtu=67: must be a number from 68 to 65535"),
        ],
    )
    def test_typos_are_refused_with_the_nearest_name(
        self, driver: LanDrivers, given: dict[str, str], message: str
    ) -> None:
        with pytest.raises(Refuse) as caught:
            driver.parse(given)
        assert str(caught.value).startswith(message)

    def test_all_mistakes_are_told_at_once(self) -> None:
        with pytest.raises(Refuse) as caught:
            macvlan.parse(
                {"macvlan_mode": "x", "vlan": "0", "mtu": "1", "vlan_qos": "9", "host_access": "maybe", "z": "1"}
            )
        assert len(str(caught.value).split("; ")) == 6

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("true", True),
            ("false", False),
            ("192.168.10.250", (HOST,)),
            ("192.168.10.250,2001:db8:10::250", (HOST, HOST6)),
        ],
    )
    def test_host_access_is_a_switch_or_addresses(self, text: str, value: object) -> None:
        assert macvlan.parse({"host_access": text}).host_access == value

    @pytest.mark.parametrize("text", ["", "maybe", "192.168.10.0/24", "192.168.10.1,192.168.10.2", "192.168.10.1,"])
    def test_host_access_is_nothing_else(self, text: str) -> None:
        with pytest.raises(Refuse, match=f"option host_access={text}: must be true, false, or the host's address"):
            macvlan.parse({"host_access": text})

    @BOTH
    def test_every_option_explains_itself(self, driver: LanDrivers) -> None:
        rows = drivers.options.describe(driver.options)
        assert [row.names for row in rows if not (row.help and row.values)] == []

    @BOTH
    def test_the_parent_is_looked_for_as_it_is_written(self, driver: LanDrivers) -> None:
        assert driver.stands_on(driver.parse({"parent": "lan.10"})) == NicNamed("lan.10")
        assert driver.stands_on(driver.parse({})) is None


class TestSegment:
    @BOTH
    def test_a_segment_is_named_by_the_option(self, driver: LanDrivers) -> None:
        chosen = driver.parse({"segment": "office", "parent": "eth0"})
        assert driver.segment_name(chosen, request("192.168.10.0/24")) == "office"

    @pytest.mark.parametrize(
        ("subnets", "name"),
        [
            (("192.168.10.0/24",), "lan.192.168.10.0-24"),
            (("192.168.10.0/24", "2001:db8::/64"), "lan.192.168.10.0-24"),
            (("2001:db8:10::/64",), "lan.2001_db8_10__-64"),
            (("0.0.0.0/0", "192.168.10.0/24"), "lan.192.168.10.0-24"),
        ],
    )
    @BOTH
    def test_else_by_the_first_subnet_whatever_the_parent_is_called(
        self, driver: LanDrivers, subnets: tuple[str, ...], name: str
    ) -> None:
        for parent in ("eth0", "enp1s0.10", "auto"):
            named = driver.segment_name(driver.parse({"parent": parent}), request(*subnets))
            assert named == name
            assert drivers.options.name(named) == named

    def test_the_longest_subnet_is_a_name_too(self) -> None:
        subnet = "2001:db80:1234:5678:9abc:def0:1234:5678/128"
        name = macvlan.segment_name(macvlan.parse({"parent": "eth0"}), request(subnet))
        assert drivers.options.name(name) == name

    @BOTH
    def test_without_parent_it_is_the_networks_own(self, driver: LanDrivers) -> None:
        assert driver.segment_name(driver.parse({}), request("192.168.10.0/24")) == "isolated.0123456789ab"

    @BOTH
    @pytest.mark.parametrize("subnets", [(), ("0.0.0.0/0",)])
    def test_without_subnet_a_name_is_needed(self, driver: LanDrivers, subnets: tuple[str, ...]) -> None:
        with pytest.raises(Refuse, match="without a subnet needs a name that every host can see: add -o segment="):
            driver.segment_name(driver.parse({"parent": "eth0"}), request(*subnets))

    def test_it_is_founded_without_tunnel(self) -> None:
        def no_vni() -> int:
            raise AssertionError

        assert macvlan.propose(macvlan.parse({}), "lan", NIC, no_vni) == Segment("lan", "macvlan")
        routed = ipvlan.parse({"ipvlan_mode": "l3s"})
        assert ipvlan.propose(routed, "lan", NIC, no_vni) == Segment("lan", "ipvlan", "l3s")

    @BOTH
    def test_of_another_mode_it_is_refused(self, driver: LanDrivers) -> None:
        with pytest.raises(Refuse) as caught:
            driver.check(driver.parse({}), Segment("lan", "vxlan"), NIC)
        assert str(caught.value) == (
            f"option mode={driver.mode}: segment lan has mode vxlan; give -o mode=vxlan, or choose another segment "
            "with -o segment=NAME"
        )

    @pytest.mark.parametrize(("there", "here"), [("l2", "l3"), ("l3", "l2"), ("l3s", "l3")])
    def test_of_another_ipvlan_mode_it_is_refused(self, there: str, here: str) -> None:
        with pytest.raises(Refuse) as caught:
            ipvlan.check(ipvlan.parse({"ipvlan_mode": here}), Segment("lan", "ipvlan", there), NIC)
        assert str(caught.value) == (
            f"option ipvlan_mode={here}: segment lan has {there}; give that, or choose another segment with "
            "-o segment=NAME"
        )

    def test_a_subnet_that_was_chosen_for_this_host_alone_names_no_segment(self) -> None:
        chosen = replace(request("10.64.0.0/20"), pools=(NetworkPool(ip_network("10.64.0.0/20"), automatic=True),))
        with pytest.raises(Refuse, match=r"subnet 10\.64\.0\.0/20 was chosen for this host.*--ipam-opt segment=NAME"):
            macvlan.segment_name(macvlan.parse({"parent": "eth0"}), chosen)
        assert macvlan.segment_name(macvlan.parse({"parent": "eth0", "segment": "lan"}), chosen) == "lan"
        assert macvlan.segment_name(macvlan.parse({}), chosen).startswith("isolated.")

    def test_macvlan_modes_of_one_segment_may_differ_by_host(self) -> None:
        macvlan.check(macvlan.parse({"macvlan_mode": "vepa"}), segment_of(macvlan), NIC)
        ipvlan.check(ipvlan.parse({"ipvlan_flag": "vepa"}), segment_of(ipvlan), NIC)


class TestAttachment:
    def test_mode_flag_and_mtu_are_the_childrens(self) -> None:
        attachment = attached(ipvlan, ipvlan_mode="l3s", ipvlan_flag="vepa", mtu="1400")
        assert (attachment.kind, attachment.mode, attachment.flag, attachment.mtu) == ("ipvlan", "l3s", "vepa", 1400)
        attachment = attached(macvlan, macvlan_mode="private")
        assert (attachment.kind, attachment.mode, attachment.flag, attachment.mtu) == ("macvlan", "private", "", None)

    @BOTH
    def test_a_parent_is_not_an_underlay(self, driver: LanDrivers) -> None:
        with pytest.raises(Broken):
            driver.attach(driver.parse({}), segment_of(driver), Underlay("eth0", 1500, ()))

    @pytest.mark.parametrize(
        ("driver", "option", "value"),
        [
            (macvlan, "macvlan_mode", "private"),
            (macvlan, "macvlan_mode", "passthru"),
            (ipvlan, "ipvlan_flag", "private"),
        ],
    )
    def test_host_access_is_refused_where_children_are_kept_apart(
        self, driver: LanDrivers, option: str, value: str
    ) -> None:
        for host_access in ("true", "192.168.10.250"):
            with pytest.raises(Refuse) as caught:
                attached(driver, host_access=host_access, **{option: value})
            assert str(caught.value) == (
                f"option host_access=true: {option}={value} keeps the children of a parent apart, the host's own among "
                f"them; give another {option}, or leave host_access out"
            )
        attached(driver, host_access="false", **{option: value})

    def test_the_lan_finds_switched_hosts_by_itself(self) -> None:
        for ours in (attached(macvlan), attached(ipvlan)):
            driver = drivers.DRIVERS[ours.kind]
            assert driver.readdressed(segment_of(ipvlan), ours, [B4, B6]) == ours
            assert ours.underlay == ()

    @pytest.mark.parametrize("mode", ["l3", "l3s"])
    def test_a_routed_host_is_reached_by_one_address_a_family(self, mode: str) -> None:
        ours = attached(ipvlan, ipvlan_mode=mode)
        link_local = ip_address("fe80::1")
        addresses = [B4, ip_address("10.0.0.3"), link_local, B6, ip_address("fd00::3")]
        readdressed = ipvlan.readdressed(segment_of(ipvlan, mode), ours, addresses)
        assert readdressed.underlay == (B4, B6)
        assert ipvlan.readdressed(segment_of(ipvlan, mode), ours, [link_local]).underlay == ()

    def test_a_routed_host_keeps_the_address_that_it_is_known_by_while_it_has_it(self) -> None:
        ours = replace(attached(ipvlan, ipvlan_mode="l3"), next_hops=(B4, B6))
        newer4, newer6 = ip_address("10.0.0.1"), ip_address("fd00::1")
        segment = segment_of(ipvlan, "l3")
        assert ipvlan.readdressed(segment, ours, [newer4, B4, newer6, B6]) == ours
        assert ipvlan.readdressed(segment, ours, [newer4, newer6, B6]).underlay == (newer4, B6)
        assert ipvlan.readdressed(segment, ours, []).underlay == ()

    def test_an_isolated_host_is_reached_by_nobody(self) -> None:
        ours = attached(ipvlan, None, ipvlan_mode="l3")
        assert ipvlan.readdressed(segment_of(ipvlan, "l3"), ours, [B4]).underlay == ()

    @BOTH
    def test_subnets_in_which_the_host_has_no_address_lie_beyond(self, driver: LanDrivers) -> None:
        ours = replace(attached(driver), host_addresses=(HOST, HOST6))
        segment = segment_of(driver)
        assert driver.readdressed(segment, ours, [B4]).beyond == (FOUR, SIX)
        assert driver.readdressed(segment, ours, [ip_address("192.168.10.1"), B6]).beyond == (SIX,)
        assert driver.readdressed(segment, ours, [ip_address("192.168.10.1"), MINE6]).beyond == ()
        without = replace(ours, host_addresses=())
        assert driver.readdressed(segment, without, [B4]).beyond == ()

    @BOTH
    def test_it_is_no_tunnel(self, driver: LanDrivers) -> None:
        with pytest.raises(Broken):
            driver.readdressed(segment_of(driver), TunnelAttachment("eth0", B4), [])


class TestMac:
    def test_of_a_macvlan_container_is_the_one_asked_for_or_derived(self) -> None:
        there = network(attached(macvlan))
        mine = parse_mac("02:00:00:00:00:07")
        assert macvlan.mac(there, EndpointRequest(NETWORK_ID, ENDPOINT_ID, mac=mine), (MINE,)) == mine
        assert macvlan.mac(there, EndpointRequest(NETWORK_ID, ENDPOINT_ID), (MINE, MINE6)) == derive_mac("lan", MINE)

    def test_of_an_ipvlan_container_cannot_be_chosen(self) -> None:
        there = network(attached(ipvlan))
        assert ipvlan.mac(there, EndpointRequest(NETWORK_ID, ENDPOINT_ID), (MINE,)) is None  # type: ignore[func-returns-value]
        with pytest.raises(Refuse) as caught:
            ipvlan.mac(there, EndpointRequest(NETWORK_ID, ENDPOINT_ID, mac=parse_mac("02:00:00:00:00:07")), (MINE,))
        assert str(caught.value) == (
            "--mac-address 02:00:00:00:00:07: an ipvlan container has the MAC of its host's NIC; leave the option out, "
            "or use -o mode=macvlan"
        )

    def test_of_a_passthru_container_cannot_be_chosen(self) -> None:
        there = network(attached(macvlan, macvlan_mode="passthru"))
        assert macvlan.mac(there, EndpointRequest(NETWORK_ID, ENDPOINT_ID), (MINE,)) is None
        with pytest.raises(Refuse) as caught:
            macvlan.mac(there, EndpointRequest(NETWORK_ID, ENDPOINT_ID, mac=parse_mac("02:00:00:00:00:07")), (MINE,))
        assert str(caught.value) == (
            "--mac-address 02:00:00:00:00:07: with macvlan_mode=passthru a container has the MAC of its parent; leave "
            "the option out, or set the parent's MAC"
        )


GATE4, GATE6 = ip_address("192.168.10.1"), ip_address("2001:db8:10::1")
POOLS = (NetworkPool(FOUR, GATE4), NetworkPool(SIX, GATE6))


class TestHandover:
    def test_a_macvlan_child(self) -> None:
        mac = derive_mac("lan", MINE)
        there = network(attached(macvlan, macvlan_mode="vepa", mtu="1400", vlan="10"), *POOLS, prefix="lan")
        handover = macvlan.handover(there, endpoint(MINE, mac=mac))
        assert handover.link == MacvlanLink(
            "sle-fedcba98765", f"spanlan endpoint={ENDPOINT_ID}", "eth0.10", mac, 1400, mode="vepa"
        )
        assert (handover.prefix, handover.announced) == ("lan", True)

    def test_an_ipvlan_child(self) -> None:
        there = network(attached(ipvlan, ipvlan_flag="private"), *POOLS)
        handover = handed_over(ipvlan, there, MINE)
        assert handover.link == IpvlanLink(
            "sle-fedcba98765", f"spanlan endpoint={ENDPOINT_ID}", "eth0", "l2", "private", None
        )
        assert handover.announced

    @BOTH
    def test_gateways_are_those_of_the_subnets_that_it_has_an_address_in(self, driver: LanDrivers) -> None:
        there = network(attached(driver), *POOLS)
        both = handed_over(driver, there, MINE, MINE6)
        assert (both.gateway, both.gateway6, both.routes) == (GATE4, GATE6, ())
        four = handed_over(driver, there, MINE)
        assert (four.gateway, four.gateway6, four.disable_gateway_service) == (GATE4, None, False)
        six = handed_over(driver, there, MINE6)
        assert (six.gateway, six.gateway6, six.disable_gateway_service) == (None, GATE6, False)

    @BOTH
    def test_of_several_subnets_the_right_gateway_is_taken(self, driver: LanDrivers) -> None:
        other = NetworkPool(ip_network("192.168.20.0/24"), ip_address("192.168.20.1"))
        there = network(attached(driver), other, *POOLS)
        assert handed_over(driver, there, MINE).gateway == GATE4
        assert handed_over(driver, there, ip_address("192.168.20.9")).gateway == ip_address("192.168.20.1")

    @BOTH
    def test_a_subnet_of_two_addresses_has_a_gateway_too(self, driver: LanDrivers) -> None:
        pool = NetworkPool(ip_network("192.168.10.6/31"), ip_address("192.168.10.6"))
        assert handed_over(driver, network(attached(driver), pool), MINE).gateway == ip_address("192.168.10.6")

    @BOTH
    def test_without_gateway_no_leg_on_dockers_own_bridge_comes_instead(self, driver: LanDrivers) -> None:
        handover = handed_over(driver, network(attached(driver), NetworkPool(FOUR)), MINE)
        assert (handover.gateway, handover.disable_gateway_service) == (None, True)

    @BOTH
    def test_an_internal_or_isolated_network_leads_nowhere(self, driver: LanDrivers) -> None:
        for there in (network(attached(driver), *POOLS, internal=True), network(attached(driver, None), *POOLS)):
            handover = handed_over(driver, there, MINE, MINE6)
            assert (handover.gateway, handover.gateway6, handover.routes) == (None, None, ())
            assert handover.disable_gateway_service

    @pytest.mark.parametrize("mode", ["l3", "l3s"])
    def test_a_routed_container_leads_everything_to_its_link(self, mode: str) -> None:
        there = network(attached(ipvlan, ipvlan_mode=mode), *POOLS)
        both = handed_over(ipvlan, there, MINE, MINE6)
        assert both.routes == (StaticRoute(ip_network("0.0.0.0/0")), StaticRoute(ip_network("::/0")))
        assert (both.gateway, both.gateway6, both.disable_gateway_service, both.announced) == (None, None, True, False)
        assert handed_over(ipvlan, there, MINE6).routes == (StaticRoute(ip_network("::/0")),)

    @pytest.mark.parametrize("mode", ["l3", "l3s"])
    def test_a_routed_container_of_an_internal_or_isolated_network_leads_nowhere(self, mode: str) -> None:
        chosen = {"ipvlan_mode": mode}
        for there in (network(attached(ipvlan, **chosen), internal=True), network(attached(ipvlan, None, **chosen))):
            handover = handed_over(ipvlan, there, MINE, MINE6)
            assert (handover.routes, handover.disable_gateway_service) == ((), True)


class TestGround:
    @BOTH
    def test_a_nic_is_looked_at_and_none_of_ours(self, driver: LanDrivers) -> None:
        ground = driver.ground(segment_of(driver), attached(driver))
        assert ground == LanGround((Nic("eth0"),))
        assert (main_link(ground), own_links(ground)) == ("eth0", ())

    @BOTH
    def test_vlan_links_are_ours(self, driver: LanDrivers) -> None:
        ground = driver.ground(segment_of(driver), attached(driver, vlan="100.10"))
        assert (main_link(ground), own_links(ground)) == ("eth0.100.10", ("eth0.100", "eth0.100.10"))

    def test_the_hosts_own_macvlan_child_keeps_its_mac(self) -> None:
        ours = replace(attached(macvlan, mtu="1400"), host_addresses=(HOST, HOST6), beyond=(SIX,))
        ground = macvlan.ground(segment_of(macvlan), ours)
        name = host_child_name(segment_of(macvlan))
        assert ground.host == HostLink(
            MacvlanLink(name, "spanlan host-access=lan", "eth0", derive_mac("lan", HOST), 1400), (HOST, HOST6)
        )
        assert ground.routed == (FOUR, SIX)
        assert ground.subnets == ((SIX, OnLink(name, HOST6)),)
        assert own_links(ground) == (name,)
        assert len(name) <= 15

    def test_the_hosts_own_ipvlan_child_is_like_the_others(self) -> None:
        ours = replace(attached(ipvlan, ipvlan_flag="vepa"), host_addresses=(HOST,), beyond=(FOUR, SIX))
        ground = ipvlan.ground(segment_of(ipvlan), ours)
        name = host_child_name(segment_of(ipvlan))
        assert ground.host == HostLink(IpvlanLink(name, "spanlan host-access=lan", "eth0", "l2", "vepa", None), (HOST,))
        assert ground.subnets == ((FOUR, OnLink(name, HOST)),)  # it has no address to speak IPv6 with

    def test_hosts_children_of_two_segments_have_different_names(self) -> None:
        assert host_child_name(Segment("blue", "macvlan")) != host_child_name(Segment("red", "macvlan"))

    @pytest.mark.parametrize("mode", ["l3", "l3s"])
    def test_in_a_routed_segment_the_routes_in_its_subnets_are_ours(self, mode: str) -> None:
        segment = segment_of(ipvlan, mode)
        assert ipvlan.ground(segment, attached(ipvlan, ipvlan_mode=mode)).routed == (FOUR, SIX)
        assert ipvlan.ground(segment, attached(ipvlan, None, ipvlan_mode=mode)).routed == ()
        assert ipvlan.ground(segment_of(ipvlan), attached(ipvlan)).routed == ()


BOTH_HOSTS: dict[str, list[IPAddress]] = {"a": [], "b": [B4, B6]}
CONTAINERS: dict[IPAddress, str] = {MINE: "a", MINE6: "a", THEIRS: "b", THEIRS6: "b"}


class TestRoutes:
    def routes(
        self, driver: LanDrivers, ours: LanAttachment, seen: SegmentView, touched: Touched | None = None
    ) -> dict[str, object]:
        segment = segment_of(driver, ours.mode if driver is ipvlan else "")
        wanted = driver.wanted(seen, "a", segment, ours, touched or everything(seen))
        assert (wanted.neighbours, wanted.fdb) == ({}, {})
        return {str(address): hop for address, hop in wanted.routes.items()}

    @BOTH
    def test_a_switched_segment_needs_none(self, driver: LanDrivers) -> None:
        assert self.routes(driver, attached(driver), view(BOTH_HOSTS, CONTAINERS)) == {}

    @pytest.mark.parametrize("mode", ["l3", "l3s"])
    def test_a_routed_one_leads_to_each_remote_container_by_its_host_in_its_own_family(self, mode: str) -> None:
        routes = self.routes(ipvlan, attached(ipvlan, ipvlan_mode=mode), view(BOTH_HOSTS, CONTAINERS))
        assert routes == {str(MINE): None, str(MINE6): None, str(THEIRS): B4, str(THEIRS6): B6}

    def test_a_host_without_an_address_of_a_family_is_not_reached_in_it(self) -> None:
        seen = view({"b": [B4]}, CONTAINERS)
        routes = self.routes(ipvlan, attached(ipvlan, ipvlan_mode="l3"), seen)
        assert (routes[str(THEIRS)], routes[str(THEIRS6)]) == (B4, None)

    @pytest.mark.parametrize(
        "seen",
        [
            view(BOTH_HOSTS, CONTAINERS, withdrawn=frozenset({"b"})),
            view({"a": []}, CONTAINERS),
            view({"a": [], "b": []}, CONTAINERS),
        ],
        ids=["withdrawn", "no member", "without next hop"],
    )
    def test_nothing_leads_to_a_host_that_cannot_be_reached(self, seen: SegmentView) -> None:
        routes = self.routes(ipvlan, attached(ipvlan, ipvlan_mode="l3"), seen)
        assert (routes[str(THEIRS)], routes[str(THEIRS6)]) == (None, None)

    def test_what_is_gone_is_wanted_no_more(self) -> None:
        seen = view(BOTH_HOSTS, CONTAINERS)
        touched = seen.drop_endpoint(THEIRS)
        assert self.routes(ipvlan, attached(ipvlan, ipvlan_mode="l3"), seen, touched) == {str(THEIRS): None}

    def test_a_change_of_one_container_is_one_route(self) -> None:
        containers = {ip_address(0xC0A80A02 + number): "b" for number in range(200)}
        seen = view(BOTH_HOSTS, containers)
        touched = seen.put_endpoint(Endpoint("lan", THEIRS, None, "a", "moved"))
        assert self.routes(ipvlan, attached(ipvlan, ipvlan_mode="l3"), seen, touched) == {str(THEIRS): None}

    def test_an_address_outside_of_the_segments_subnets_is_none_of_its_routes(self) -> None:
        elsewhere = ip_address("203.0.113.5")  # of a subnet that another host has added
        seen = view(BOTH_HOSTS, {**CONTAINERS, elsewhere: "b"})
        assert str(elsewhere) not in self.routes(ipvlan, attached(ipvlan, ipvlan_mode="l3"), seen)
        with_host = replace(attached(macvlan), host_addresses=(HOST,))
        seen = view(BOTH_HOSTS, {**CONTAINERS, elsewhere: "a"})
        assert str(elsewhere) not in self.routes(macvlan, with_host, seen)

    @BOTH
    def test_host_access_leads_to_the_hosts_own_containers_alone(self, driver: LanDrivers) -> None:
        ours = replace(attached(driver), host_addresses=(HOST, HOST6))
        name = host_child_name(segment_of(driver))
        seen = view(BOTH_HOSTS, {**CONTAINERS, HOST: "a", HOST6: "a"})
        assert self.routes(driver, ours, seen) == {
            str(MINE): OnLink(name, HOST),
            str(MINE6): OnLink(name, HOST6),
            str(THEIRS): None,
            str(THEIRS6): None,
            str(HOST): None,
            str(HOST6): None,
        }

    def test_host_access_of_one_family_leads_to_that_one(self) -> None:
        ours = replace(attached(macvlan), host_addresses=(HOST,))
        routes = self.routes(macvlan, ours, view(BOTH_HOSTS, CONTAINERS))
        assert (routes[str(MINE)], routes[str(MINE6)]) == (OnLink(host_child_name(segment_of(macvlan)), HOST), None)

    def test_a_routed_segment_with_host_access_leads_to_both(self) -> None:
        ours = replace(attached(ipvlan, ipvlan_mode="l3"), host_addresses=(HOST, HOST6))
        name = host_child_name(segment_of(ipvlan, "l3"))
        theirs = ip_address("192.168.10.251")  # of the other host itself
        routes = self.routes(ipvlan, ours, view(BOTH_HOSTS, {**CONTAINERS, HOST: "a", theirs: "b"}))
        assert routes == {
            str(MINE): OnLink(name, HOST),
            str(MINE6): OnLink(name, HOST6),
            str(THEIRS): B4,
            str(THEIRS6): B6,
            str(HOST): None,
            str(theirs): B4,
        }

    def test_an_isolated_routed_segment_leads_nowhere(self) -> None:
        ours = attached(ipvlan, None, ipvlan_mode="l3")
        assert self.routes(ipvlan, ours, view(BOTH_HOSTS, CONTAINERS)) == {}


def test_no_link_of_any_kind_has_a_name_that_linux_does_not_take() -> None:
    longest = replace(NIC, name="a" * 15)
    segment = Segment("s" * 63, "macvlan")
    for nic in (longest, None):
        chosen = macvlan.parse({} if nic is None else {"parent": nic.name, "vlan": "4094.4094"})
        ours = replace(macvlan.attach(chosen, segment, nic), host_addresses=(HOST,))
        ground = macvlan.ground(segment, ours)
        links = [link for link in ground.links if isinstance(link, VlanLink)]
        assert all(len(name.encode()) <= 15 for name in (*own_links(ground), *(link.parent for link in links)))


def test_drivers_that_are_no_lan_driver_have_no_host_child() -> None:
    with pytest.raises(NotImplementedError):
        LanDriver().host_child(segment_of(macvlan), replace(attached(macvlan), host_addresses=(HOST,)))
