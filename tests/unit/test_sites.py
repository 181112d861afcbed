"""A host's own words for its NICs."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from example_parents import NIC
from spanlan import settings
from spanlan.control import sites
from spanlan.control.sites import Sites
from spanlan.drivers.macvlan import MacvlanDriver
from spanlan.drivers.vxlan import VxlanDriver
from spanlan.errors import Refuse
from spanlan.model.host import Parent

ALIASES = {"lan": "eth1", "storage": "bond0.7", "lan.9": "eth9"}
ETH1 = replace(NIC, name="eth1")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Parent]:
    """The NICs of a machine whose default route points to eth0; only what there is to look at, not how."""
    there = {"eth1": ETH1}
    monkeypatch.setattr(sites.parents, "default_parent", lambda: SimpleNamespace(name="eth0"))
    monkeypatch.setattr(sites.parents, "parent", there.get)
    monkeypatch.setattr(sites.parents, "names", lambda: sorted(there))
    return there


@pytest.mark.usefixtures("machine")
class TestResolve:
    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("lan", "eth1"),
            ("lan.10", "eth1.10"),
            ("lan.9", "eth9"),
            ("storage", "bond0.7"),
            ("storage.100", "bond0.7.100"),
            ("lan.100.10", "eth1.100.10"),
            ("auto", "eth0"),
            ("auto.10", "eth0.10"),
            ("eth5", "eth5"),
            ("eth5.10", "eth5.10"),
            ("lan.x", "lan.x"),
            ("lanes", "lanes"),
            ("192.0.2.1", "192.0.2.1"),
            ("fd00::1", "fd00::1"),
        ],
    )
    def test_an_alias_or_auto_also_with_vlans_behind_it(self, written: str, meant: str) -> None:
        assert Sites(aliases=ALIASES).resolve(written) == meant


class TestParent:
    @staticmethod
    def find(**options: str) -> tuple[Any, Any]:
        driver = MacvlanDriver()
        return Sites(aliases={"lan": "eth1"}).find(driver, driver.parse(options))

    def test_a_nic_by_its_alias(self, machine: dict[str, Parent]) -> None:
        chosen, nic = self.find(parent="lan", vlan="10")
        assert (chosen.parent, chosen.vlan, nic) == ("eth1", (10,), ETH1)

    def test_a_vlan_that_is_missing_is_one_to_be_made(self, machine: dict[str, Parent]) -> None:
        chosen, nic = self.find(parent="lan.10")
        assert (chosen.parent, chosen.vlan, nic) == ("eth1", (10,), ETH1)

    def test_a_link_of_that_very_name_is_taken_as_it_is_unless_it_is_ours(self, machine: dict[str, Parent]) -> None:
        there = Parent(**{name: getattr(ETH1, name) for name in ETH1.__slots__} | {"name": "eth1.10"})
        machine["eth1.10"] = there
        chosen, nic = self.find(parent="lan.10")
        assert (chosen.parent, chosen.vlan, nic) == ("eth1.10", None, there)
        machine["eth1.10"] = Parent(**{name: getattr(there, name) for name in there.__slots__} | {"ours": True})
        chosen, nic = self.find(parent="lan.10")
        assert (chosen.parent, chosen.vlan, nic) == ("eth1", (10,), ETH1)

    def test_a_missing_one_names_those_that_are_there(self, machine: dict[str, Parent]) -> None:
        with pytest.raises(Refuse) as caught:
            self.find(parent="storage")
        assert str(caught.value) == (
            "option parent=storage: this host has no interface storage; there are eth1, lan for eth1 (aliases are set "
            "with SPANLAN_PARENTS)"
        )

    def test_an_alias_for_one_that_is_missing_says_what_it_stands_for(self, machine: dict[str, Parent]) -> None:
        del machine["eth1"]
        with pytest.raises(Refuse, match="parent=lan: this host has no interface eth1; there are none, lan for eth1"):
            self.find(parent="lan")

    def test_a_network_without_parent_needs_none(self, machine: dict[str, Parent]) -> None:
        chosen, nic = self.find()
        assert (chosen.parent, nic) == (None, None)


@pytest.mark.usefixtures("machine")
class TestUnderlay:
    @pytest.mark.parametrize(
        ("own_choice", "parent", "looked_for"),
        [
            (None, None, None),
            (None, "auto", None),
            ("eth5", None, "eth5"),
            ("eth5", "auto", "eth5"),
            ("lan", None, "eth1"),
            (None, "lan", "eth1"),
            ("eth5", "lan", "eth1"),
            ("eth5", "192.0.2.1", "192.0.2.1"),
        ],
    )
    def test_a_tunnel_leaves_by_what_the_network_names_else_by_the_hosts_own_choice(
        self, monkeypatch: pytest.MonkeyPatch, own_choice: str | None, parent: str | None, looked_for: str | None
    ) -> None:
        asked: list[str | None] = []
        monkeypatch.setattr(sites.facts, "underlay", asked.append)
        driver = VxlanDriver()
        options = {"vni": "42"} | ({} if parent is None else {"parent": parent})
        Sites(underlay=own_choice, aliases=ALIASES).find(driver, driver.parse(options))
        assert asked == [looked_for]


class TestSetting:
    @staticmethod
    def read(text: str) -> tuple[tuple[str, str], ...] | None:
        return settings.read({"SPANLAN_PARENTS": text}, host_name=lambda: "a").parents

    def test_aliases_are_pairs_with_commas(self) -> None:
        assert self.read("lan=eth1,storage=bond0.7") == (("lan", "eth1"), ("storage", "bond0.7"))
        assert self.read(" lan = eth1 , storage=eth2 ,") == (("lan", "eth1"), ("storage", "eth2"))

    def test_none_are_none(self) -> None:
        assert not self.read("")

    @pytest.mark.parametrize(
        "text",
        ["lan", "lan=", "=eth1", "lan=eth1,lan=eth2", "auto=eth1", "lan=eth 1", "lan=a-name-longer-than-15", "a=b=c/d"],
    )
    def test_what_is_no_pair_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(
            Refuse, match=r"SPANLAN_PARENTS=.*: must be ALIAS=INTERFACE pairs such as lan=eth1,storage=eth2"
        ):
            self.read(text)
