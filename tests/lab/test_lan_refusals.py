"""What users read when a LAN network cannot be: the option, its value, the cure; and nothing stays behind."""

from collections.abc import Iterator, Sequence

import pytest

from lab.cleanliness import leftovers
from lab.containers import IMAGE, kept_clean, links, refusal, start
from lab.lan_networks import create_lan, lan_line, our_routes
from spanlan.lab import Lab
from spanlan.lab.commands import until

OTHER: dict[str, str | None] = {"10.51.0.0/24": "10.51.0.1"}
MINE: dict[str, str | None] = {"10.50.0.0/24": "10.50.0.1"}


@pytest.fixture(scope="module")
def taken(lab: Lab) -> Iterator[Lab]:
    """A lab where eth0 has a macvlan network, with links of every sort that can be no parent beside it."""
    here = lab.hosts[0]
    with kept_clean(lab):
        create_lan(lab.hosts, "blue", "-o", "segment=blue", subnets=MINE)
        for command in (
            ("link", "add", "br7", "type", "bridge"),
            ("link", "add", "port7", "type", "veth", "peer", "name", "end7"),
            ("link", "set", "port7", "master", "br7"),
            ("link", "add", "theirs7", "link", "eth0", "type", "macvlan", "mode", "bridge"),
            ("link", "add", "small7", "mtu", "1400", "type", "veth", "peer", "name", "other7"),
            ("tuntap", "add", "dev", "routed7", "mode", "tun"),
        ):
            here.run(["ip", *command])
        yield lab
        for name in ("br7", "port7", "theirs7", "small7", "routed7"):
            here.run(["ip", "link", "del", name])


def refused(lab: Lab, *options: str, **more: object) -> str:
    """What docker says to a second network with these options on the first host; it must leave nothing behind."""
    here = lab.hosts[0]
    before, kept = set(links(here)), leftovers(lab)
    words = [word for option in options for word in ("-o", option)]
    said = refusal(here, *lan_line("green", *words, **({"subnets": OTHER} | more)))  # type: ignore[arg-type]
    until(lambda: leftovers(lab) == kept, seconds=10, what="the end of all that the refused network had begun")
    assert set(links(here)) == before
    assert our_routes(here) == []
    assert "green" not in here.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    return said


class TestParents:
    @pytest.mark.parametrize(
        ("parent", "told"),
        [
            ("lo", ["option parent=lo: the loopback leads nowhere", "name a NIC"]),
            ("port7", ["option parent=port7: it is a port of br7", "name br7"]),
            ("theirs7", ["option parent=theirs7: it is a macvlan link itself", "the one below it (eth0)"]),
            ("routed7", ["option parent=routed7: its frames carry no MAC address", "use -o mode=vxlan"]),
            ("eth9", ["option parent=eth9: this host has no interface eth9; there are", "small7"]),
            ("eth9.10", ["option parent=eth9.10: this host has no interface eth9; there are"]),
        ],
    )
    def test_one_that_no_container_can_sit_on(self, taken: Lab, parent: str, told: Sequence[str]) -> None:
        said = refused(taken, parent=parent)
        for words in told:
            assert words in said

    def test_an_mtu_that_it_does_not_carry(self, taken: Lab) -> None:
        said = refused(taken, "mtu=1500", parent="small7")
        assert "option mtu=1500: small7 carries at most 1400; ask for that or less, or raise its MTU" in said

    @pytest.mark.parametrize("vlan", ["0", "4095"])
    def test_a_vlan_that_there_cannot_be(self, taken: Lab, vlan: str) -> None:
        assert f"option vlan={vlan}: must be a VLAN from 1 to 4094" in refused(taken, f"vlan={vlan}")
        said = refused(taken, parent=f"eth0.{vlan}")
        assert f"option parent=eth0.{vlan}: a VLAN is a number from 1 to 4094, not {vlan}" in said

    def test_a_vlan_said_twice_and_differently(self, taken: Lab) -> None:
        said = refused(taken, "vlan=20", parent="eth0.10")
        assert "options parent=eth0.10 and vlan=20 name different VLANs" in said

    def test_a_vlan_of_nothing(self, taken: Lab) -> None:
        assert "option vlan= needs a NIC that carries the VLAN: add -o parent=" in refused(
            taken, "vlan=10", parent=None
        )

    def test_a_vlan_where_the_kernel_has_none(self, taken: Lab) -> None:
        trial = ["ip", "link", "add", "trial7", "link", "eth0", "type", "vlan", "id", "7"]
        if taken.hosts[0].run(trial, check=False).returncode == 0:  # it has: the vm world does the rest
            taken.hosts[0].run(["ip", "link", "del", "trial7"])
            return
        assert "modprobe 8021q" in refused(taken, "vlan=10")


class TestModes:
    def test_a_mode_that_there_is_not(self, taken: Lab) -> None:
        said = refused(taken, "macvlan_mode=brigde")
        assert "option macvlan_mode=brigde: must be one of bridge, private, vepa, passthru (did you mean" in said
        said = refused(taken, mode="mcvlan")
        assert "option mode=mcvlan: must be one of vxlan, ipvlan, macvlan (did you mean macvlan?)" in said

    def test_ipvlan_beside_macvlan_on_one_parent(self, taken: Lab) -> None:
        first = taken.hosts[0].docker("network", "inspect", "-f", "{{.Id}}", "blue").stdout[:12]
        said = refused(taken, mode="ipvlan")
        assert f"option mode=ipvlan: eth0 carries macvlan network {first}" in said
        assert "use another parent, a VLAN of it (-o vlan=), or mode=macvlan" in said

    @pytest.mark.parametrize("mode", ["ipvlan", "vxlan"])
    def test_another_mode_on_a_segment_that_has_one(self, taken: Lab, mode: str) -> None:
        # Also from the host that has no network on it yet: the mode is the segment's, not the host's.
        parent = "small7" if mode == "ipvlan" else "eth0"
        said = refused(taken, "segment=blue", mode=mode, parent=parent, subnets={"10.50.0.0/24": None})
        assert f"option mode={mode}: segment blue has mode macvlan; give -o mode=macvlan" in said
        assert "-o segment=NAME" in said

    def test_options_of_the_other_mode(self, taken: Lab) -> None:
        assert "unknown option ipvlan_mode" in refused(taken, "ipvlan_mode=l2")
        assert "unknown option vni" in refused(taken, "vni=7")

    @pytest.mark.parametrize("mode", ["private", "passthru"])
    def test_host_access_where_children_are_kept_apart(self, taken: Lab, mode: str) -> None:
        said = refused(taken, f"macvlan_mode={mode}", "host_access=true", parent="small7")
        assert f"option host_access=true: macvlan_mode={mode} keeps the children of a parent apart" in said
        assert "give another macvlan_mode, or leave host_access out" in said


class TestOptions:
    def test_an_unknown_one_is_answered_with_the_nearest(self, taken: Lab) -> None:
        assert "unknown option parnet: did you mean parent?" in refused(taken, "parnet=eth0")

    def test_all_mistakes_of_a_line_are_told_at_once(self, taken: Lab) -> None:
        wrong = ("vlan=4095", "vlan_qos=1:9", "macvlan_mode=x", "host_access=perhaps", "mtu=12", "segment=-")
        said = refused(taken, *wrong)
        for mistake in wrong:
            assert f"option {mistake}: must be" in said

    @pytest.mark.parametrize(
        ("pair", "must"),
        [
            ("mtu=67", "from 68 to 65535"),
            ("vlan=1.2.3", "a VLAN from 1 to 4094, or OUTER.INNER for QinQ"),
            ("vlan_qos=0", "pairs FROM:TO such as 0:1,6:5"),
            ("host_access=10.51.0.7,10.51.0.8", "the host's address on the segment"),
        ],
    )
    def test_a_value_that_cannot_be(self, taken: Lab, pair: str, must: str) -> None:
        said = refused(taken, pair)
        assert f"option {pair}: must be" in said
        assert must in said


class TestPools:
    def test_a_subnet_that_overlaps_another_network_of_the_cluster(self, taken: Lab) -> None:
        said = refused(taken, subnets={"10.50.0.0/25": None})
        assert "10.50.0.0/25 overlaps 10.50.0.0/24" in said

    def test_a_network_of_the_null_ipam_without_name_and_one_with(self, taken: Lab) -> None:
        said = refused(taken, subnets={}, ipam="null")
        assert "a network without a subnet needs a name that every host can see: add -o segment=NAME" in said

    def test_an_ip_that_is_not_in_the_subnet(self, taken: Lab) -> None:
        said = refusal(taken.hosts[0], "run", "--rm", "--network", "blue", "--ip", "10.52.0.9", IMAGE, "true")
        assert "10.52.0.9" in said

    def test_after_all_that_the_network_serves_as_before(self, taken: Lab) -> None:
        one, other = (start(host, "served", "blue") for host in taken.hosts)
        assert one.pings(other.address)
        for container in (one, other):
            container.remove()
