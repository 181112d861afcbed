"""Macvlan children on a NIC, on the real kernel.  (Ipvlan: tests/vm/inside.)"""

import dataclasses
import re

import pytest

from example_parents import IPVLAN, MACVLAN, exists, show
from spanlan.errors import Refuse, Retry
from spanlan.kernel.links import Links


@pytest.fixture
def links(namespace):
    return Links()


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_a_macvlan_child_is_made_in_the_mode_that_was_asked_for(namespace, links, mode):
    wanted = dataclasses.replace(MACVLAN, mode=mode, mac=None if mode == "passthru" else MACVLAN.mac)
    index = links.make_child(wanted)
    child = show(namespace, "sle-one")
    assert (child["ifindex"], child["link"], child["mtu"]) == (index, "under0", 1500)
    assert child["linkinfo"]["info_data"]["mode"] == mode
    assert (child["ifalias"], child["group"]) == ("spanlan endpoint=one", "default")
    assert "UP" not in child["flags"]
    assert links.make_child(wanted) == index


def test_a_passthru_child_has_its_parents_mac(namespace, links):
    links.make_child(dataclasses.replace(MACVLAN, mode="passthru", mac=None))
    assert show(namespace, "sle-one")["address"] == show(namespace, "under0")["address"]


def test_a_mac_for_a_passthru_child_is_refused_because_it_would_change_the_parents(namespace, links):
    with pytest.raises(Refuse, match=r"passthru a MAC of its own would become that of under0.*macvlan_mode"):
        links.make_child(dataclasses.replace(MACVLAN, mode="passthru"))
    assert not exists(namespace, "sle-one")


@pytest.mark.parametrize("change", [{"mode": "private"}, {"mtu": 1400}, {"alias": "spanlan endpoint=two"}])
def test_a_child_of_ours_that_differs_is_replaced(namespace, links, change):
    before = links.make_child(MACVLAN)
    wanted = dataclasses.replace(MACVLAN, **change)
    after = links.make_child(wanted)
    assert after != before
    assert links.make_child(wanted) == after


def test_a_child_whose_mtu_is_left_to_the_parent_follows_the_parent(namespace, links):
    index = links.make_child(MACVLAN)
    namespace.command("ip", "link", "set", "under0", "mtu", "1400")
    assert show(namespace, "sle-one")["mtu"] == 1400
    assert links.make_child(MACVLAN) == index


def test_an_mtu_beyond_the_parents_is_refused_with_the_largest_that_fits(namespace, links):
    with pytest.raises(Refuse, match=r"MTU of 1501 does not fit on under0, which has 1500.*-o mtu=1500"):
        links.make_child(dataclasses.replace(MACVLAN, mtu=1501))


def test_many_children_of_different_modes_share_a_parent(namespace, links):
    for number, mode in enumerate(["bridge", "private", "vepa", "bridge"]):
        links.make_child(dataclasses.replace(MACVLAN, name=f"sle-{number}", mac=None, mode=mode))
    assert len(links.ours()) == 4


def test_a_parent_that_is_down_may_be_tried_again_with_the_cure(namespace, links):
    namespace.command("ip", "link", "set", "under0", "down")
    with pytest.raises(Retry, match="parent under0 is down: ip link set under0 up"):
        links.make_child(MACVLAN)


def test_a_parent_that_is_not_there_may_be_tried_again(namespace, links):
    with pytest.raises(Retry, match="parent eth7 is not there"):
        links.make_child(dataclasses.replace(MACVLAN, parent="eth7"))


def test_an_alternative_name_of_the_parent_serves_as_well(namespace, links):
    namespace.command("ip", "link", "property", "add", "dev", "under0", "altname", "lan")
    wanted = dataclasses.replace(MACVLAN, parent="lan")
    index = links.make_child(wanted)
    assert show(namespace, "sle-one")["link"] == "under0"
    assert links.make_child(wanted) == index


def test_a_second_child_beside_a_passthru_one_is_refused_with_its_name(namespace, links, new_namespace):
    namespace.command("ip", "link", "add", "vm1", "link", "under0", "type", "macvlan", "mode", "passthru")
    new_namespace().take("vm1", of=namespace)
    with pytest.raises(Refuse, match=r"under0 belongs to vm1 .macvlan passthru in a container. not made by spanlan"):
        links.make_child(MACVLAN)


def test_passthru_on_a_parent_with_children_is_refused_with_their_names(namespace, links):
    links.make_child(dataclasses.replace(MACVLAN, name="sle-two"))
    with pytest.raises(Refuse, match=r"passthru takes the whole of under0, .*sle-two \(macvlan bridge\).*macvlan_mode"):
        links.make_child(dataclasses.replace(MACVLAN, mode="passthru", mac=None))


def test_a_port_of_a_bridge_is_refused_with_the_cure(namespace, links):
    namespace.command("ip", "link", "add", "br0", "type", "bridge")
    namespace.command("ip", "link", "set", "under0", "master", "br0")
    with pytest.raises(Refuse, match="under0 is a port of a bridge or bond: give that one as -o parent="):
        links.make_child(MACVLAN)


def test_the_loopback_is_refused(namespace, links):
    with pytest.raises(Refuse, match="lo is the loopback: give a NIC"):
        links.make_child(dataclasses.replace(MACVLAN, parent="lo"))


def test_a_child_on_a_child_is_refused_because_the_kernel_would_go_to_the_link_below(namespace, links):
    links.make_child(dataclasses.replace(MACVLAN, name="sle-two"))
    namespace.command("ip", "link", "set", "sle-two", "up")
    with pytest.raises(Refuse, match="sle-two is itself a macvlan link"):
        links.make_child(dataclasses.replace(MACVLAN, parent="sle-two", mac=None))


def test_a_kind_that_the_kernel_lacks_is_refused_with_the_module(namespace, links, monkeypatch):
    monkeypatch.setattr("spanlan.kernel.children._kind", lambda _: "macvlam")
    with pytest.raises(Refuse, match="this kernel has no macvlam: modprobe macvlam"):
        links.make_child(MACVLAN)


def test_on_a_kernel_without_ipvlan_the_module_is_named_and_on_another_the_child_is_made(namespace, links):
    try:
        links.make_child(IPVLAN)
    except Refuse as refusal:
        assert re.search("this kernel has no ipvlan: modprobe ipvlan", str(refusal))  # noqa: PT017
        assert not exists(namespace, "sle-one")
    else:
        assert show(namespace, "sle-one")["linkinfo"]["info_kind"] == "ipvlan"
