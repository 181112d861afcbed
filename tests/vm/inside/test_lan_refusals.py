"""What docker network create and docker run answer on a LAN where something does not fit: the reason and the cure."""

from collections.abc import Iterator

import pytest

from lab.containers import kept_clean, refusal
from lab.lan_networks import lan_line, start_with_mac
from spanlan.lab.host import Host
from vm.members import create_on
from vm.trunk import LanLab

SUBNETS = {"10.91.0.0/24": None}


@pytest.fixture(scope="module")
def here(lan_lab: LanLab) -> Iterator[Host]:
    """A host with an ipvlan network on ``eth0`` and a VLAN link of somebody else's."""
    host = lan_lab.a
    host.run(["ip", "link", "add", "link", "eth0", "name", "eth0.70", "up", "type", "vlan", "id", "70"])
    with kept_clean(lan_lab.lab):
        create_on(host, "blue", subnets={"10.90.0.0/24": None})
        yield host
    host.run(["ip", "link", "del", "eth0.70"])


@pytest.mark.parametrize(
    ("words", "parent", "reason", "cure"),
    [
        ((), "eth7.10", "this host has no interface eth7", "there are"),
        ((), "eth0.4095", "a VLAN is a number from 1 to 4094, not 4095", ""),
        (("vlan=7",), "eth0.70", "eth0.70 is VLAN 70 itself (802.1q)", "-o parent=eth0 -o vlan=70.7"),
        (("ipvlan_flag=private", "host_access=true"), "eth0.71", "keeps the children of a parent apart", ""),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_the_reason_and_the_cure(
    here: Host, words: tuple[str, ...], parent: str | None, reason: str, cure: str
) -> None:
    options = [word for each in words for word in ("-o", each)]
    said = refusal(here, *lan_line("vain", *options, mode="ipvlan", parent=parent, subnets=SUBNETS))
    assert reason in said
    assert cure in said


class TestTheKernelHasOneModeAndFlagForAParent:
    @pytest.mark.parametrize("word", ["ipvlan_mode=l3", "ipvlan_flag=private"])
    def test_a_second_network_with_another_one_is_refused_by_the_name_of_the_first(self, here: Host, word: str) -> None:
        said = refusal(here, *lan_line("vain", "-o", word, mode="ipvlan", subnets=SUBNETS))
        assert f"eth0 carries network {network_id(here)} with l2 and bridge" in said
        assert "another parent or a VLAN of it (-o vlan=)" in said

    def test_macvlan_does_not_get_the_parent_of_ipvlan(self, here: Host) -> None:
        said = refusal(here, *lan_line("vain", mode="macvlan", subnets=SUBNETS))
        assert f"eth0 carries ipvlan network {network_id(here)}" in said
        assert "either macvlan or ipvlan children" in said
        assert "mode=ipvlan" in said


def network_id(host: Host) -> str:
    return host.docker("network", "inspect", "-f", "{{.Id}}", "blue").stdout[:12]


def test_a_mac_of_ones_own_is_refused_for_it_is_the_nics(here: Host) -> None:
    with pytest.raises(Exception, match=r"--mac-address 02:00:00:00:90:01: .* has the MAC of its host's NIC"):
        start_with_mac(here, "vain", "blue", "02:00:00:00:90:01")
    here.docker("rm", "vain")
