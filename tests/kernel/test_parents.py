"""What is known of a parent, isolated links, and the parent's state for the loop, on the real kernel."""

import dataclasses
import socket

import pytest

from example_parents import ISOLATED, MACVLAN, exists, show
from spanlan.errors import Refuse, Retry
from spanlan.kernel import parents
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import Monitor, Overrun
from spanlan.kernel.parent_state import ParentState
from spanlan.model.host import Nic


@pytest.fixture
def links(namespace):
    return Links()


def has_dummies(namespace):
    namespace.command("ip", "link", "add", "probe0", "type", "dummy", check=False)
    there = exists(namespace, "probe0")
    namespace.command("ip", "link", "delete", "probe0", check=False)
    return there


def observed(state, events):
    """Whether there is something to sync after all of these."""
    return True in [state.observe(event) for event in events]


# -- facts ------------------------------------------------------------------------------------------------------------


def test_a_nic_is_described(namespace):
    nic = parents.parent("under0")
    shown = show(namespace, "under0")
    assert (nic.name, nic.index, nic.kind, nic.mtu) == ("under0", shown["ifindex"], "veth", 1500)
    assert nic.mac.hex(":") == shown["address"]
    assert (nic.up, nic.carrier, nic.ethernet) == (True, True, True)
    assert (nic.loopback, nic.wireless, nic.ours) == (False, False, False)
    assert (nic.master, nic.below, nic.vlan, nic.vlan_protocol) == (None, None, None, None)
    assert (nic.children, nic.ipvlan_flag) == (frozenset(), None)


def test_a_link_that_is_not_there_is_none(namespace):
    assert parents.parent("eth7") is None


def test_a_cable_that_is_out_is_told_from_a_link_that_is_down(namespace):
    namespace.command("ip", "link", "set", "wire0", "down")
    nic = parents.parent("under0")
    assert (nic.up, nic.carrier) == (True, False)
    namespace.command("ip", "link", "set", "under0", "down")
    assert parents.parent("under0").up is False


def test_the_loopback_and_links_without_macs_are_told(namespace):
    assert parents.parent("lo").loopback
    assert not parents.parent("lo").ethernet


def test_the_bridge_that_a_port_belongs_to_is_named(namespace):
    namespace.command("ip", "link", "add", "br0", "type", "bridge")
    namespace.command("ip", "link", "set", "under0", "master", "br0")
    assert parents.parent("under0").master == "br0"
    assert parents.parent("br0").kind == "bridge"


def test_children_are_listed_with_their_modes_also_those_in_containers(namespace, new_namespace, links):
    links.make_child(MACVLAN)
    namespace.command("ip", "link", "add", "other", "link", "under0", "type", "macvlan", "mode", "vepa")
    new_namespace().take("other", of=namespace)
    assert parents.parent("under0").children == {("macvlan", "bridge"), ("macvlan", "vepa")}
    child = parents.parent("sle-one")
    assert (child.kind, child.below, child.ours) == ("macvlan", "under0", True)


def test_an_alternative_name_leads_to_the_real_one(namespace):
    namespace.command("ip", "link", "property", "add", "dev", "under0", "altname", "lan")
    assert parents.parent("lan").name == "under0"


def test_the_default_parent_is_where_the_default_route_points(namespace):
    with pytest.raises(Refuse, match=r"no default route.*-o parent="):
        parents.default_parent()
    namespace.command("ip", "route", "add", "default", "via", "10.9.0.254")
    assert parents.default_parent().name == "under0"


# -- isolated links ---------------------------------------------------------------------------------------------------


def test_an_isolated_link_is_a_dummy_or_a_bridge_where_the_kernel_has_none(namespace, links):
    made = links.ensure_isolated(ISOLATED)
    device = show(namespace, "sli-blue")
    assert (made.index, made.changes, made.flaws, made.ours) == (device["ifindex"], ("made",), (), True)
    assert device["linkinfo"]["info_kind"] == ("dummy" if has_dummies(namespace) else "bridge")
    assert (device["mtu"], device["ifalias"], device["group"]) == (1500, "spanlan segment=blue", "default")
    assert {"UP", "LOWER_UP"} <= set(device["flags"])
    (addresses,) = namespace.json("ip", "-j", "addr", "show", "dev", "sli-blue")
    assert addresses["addr_info"] == []


def test_an_isolated_link_that_is_right_is_left_as_it_is(namespace, links):
    first = links.ensure_isolated(ISOLATED)
    assert links.ensure_isolated(ISOLATED) == dataclasses.replace(first, changes=())
    assert links.find_isolated(ISOLATED) == (first.index, ())


def test_an_isolated_link_that_differs_is_mended_in_place(namespace, links):
    first = links.ensure_isolated(ISOLATED)
    namespace.command("ip", "link", "set", "sli-blue", "down")
    wanted = dataclasses.replace(ISOLATED, mtu=9000, alias="spanlan segment=azure")
    expected = ("alias: spanlan segment=blue -> spanlan segment=azure", "mtu: 1500 -> 9000", "state: down -> up")
    assert links.find_isolated(wanted) == (first.index, expected)
    assert links.ensure_isolated(wanted) == dataclasses.replace(first, changes=expected)
    assert links.ensure_isolated(wanted).changes == ()
    assert show(namespace, "sli-blue")["mtu"] == 9000


def test_a_foreign_link_of_that_name_is_left_alone(namespace, links):
    with pytest.raises(Refuse, match="under0 was not made by spanlan"):
        links.ensure_isolated(dataclasses.replace(ISOLATED, name="under0"))
    with pytest.raises(Refuse, match="under0 was not made by spanlan"):
        links.find_isolated(dataclasses.replace(ISOLATED, name="under0"))


def test_a_link_of_ours_that_is_something_else_is_made_anew(namespace, links):
    namespace.command("ip", "link", "set", "under0", "alias", "spanlan segment=blue")
    wanted = dataclasses.replace(ISOLATED, name="under0")
    assert links.find_isolated(wanted)[1] == ("it is a veth link, not dummy",)
    assert links.ensure_isolated(wanted).changes == ("made anew: it is a veth link, not dummy",)


def test_containers_on_an_isolated_link_reach_each_other_and_the_host_hears_nothing(namespace, links, new_namespace):
    links.ensure_isolated(ISOLATED)
    namespace.command("ip", "addr", "add", "10.77.0.1/24", "dev", "lo")
    hosts = [new_namespace(), new_namespace()]
    for number, inside in enumerate(hosts, 2):
        name = f"sle-{number}"
        links.make_child(dataclasses.replace(MACVLAN, name=name, mac=None, parent="sli-blue"))
        inside.take(name, of=namespace)
        inside.command("ip", "addr", "add", f"10.77.0.{number}/24", "dev", name)
        inside.command("ip", "link", "set", name, "up")
    hosts[0].command("ping", "-c", "1", "-W", "5", "10.77.0.3")
    said = hosts[0].command("ping", "-c", "1", "-W", "1", "10.77.0.1", check=False)
    assert "100% packet loss" in said


# -- what else sits on a link of ours ---------------------------------------------------------------------------------


def test_a_link_of_ours_is_not_deleted_from_under_other_peoples_containers(namespace, links, new_namespace):
    links.ensure_isolated(ISOLATED)
    links.make_child(dataclasses.replace(MACVLAN, parent="sli-blue"))
    namespace.command("ip", "link", "add", "theirs", "link", "sli-blue", "type", "macvlan", "mode", "bridge")
    inside = new_namespace()
    inside.take("theirs", of=namespace)
    with pytest.raises(Refuse, match=r"sli-blue: it stays, .*: theirs \(macvlan bridge in a container\)"):
        links.delete("sli-blue")
    inside.command("ip", "link", "delete", "theirs")
    assert links.delete("sli-blue") is True
    assert not exists(namespace, "sle-one")


# -- the parent's state -----------------------------------------------------------------------------------------------


def test_a_nic_is_looked_at_and_never_changed(namespace):
    before = show(namespace, "under0")
    state = ParentState([Nic("under0")])
    report = state.sync()
    assert (report.index, report.changes, report.reasons, report.pending) == (before["ifindex"], (), (), 0)
    assert (state.index, state.settled) == (before["ifindex"], True)
    assert state.remove() is False
    assert show(namespace, "under0") == before


def test_a_nic_that_is_down_is_reported_with_the_cure(namespace):
    namespace.command("ip", "link", "set", "under0", "down")
    assert ParentState([Nic("under0")]).sync().reasons == ("the parent under0 is down: ip link set under0 up",)


def test_a_nic_that_goes_and_comes_back_is_told_as_another_one(namespace):
    state = ParentState([Nic("under0")])
    before = state.sync().index
    with Monitor() as monitor:
        namespace.command("ip", "link", "delete", "under0")
        assert observed(state, monitor.events(5))
        with pytest.raises(Retry, match="parent under0 is not there"):
            state.sync()
        assert not state.settled
        namespace.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "wire0")
        assert observed(state, monitor.events(5))
    report = state.sync()
    assert report.index != before
    (told,) = report.changes
    assert told.startswith(f"under0 is another link now (index {before} -> {report.index})")
    assert state.sync().changes == ()


def test_a_nic_that_was_renamed_is_refused_with_its_new_name_and_an_alternative_name_cures_it(namespace):
    state = ParentState([Nic("under0")])
    index = state.sync().index
    namespace.command("ip", "link", "set", "under0", "down")
    namespace.command("ip", "link", "set", "under0", "name", "lan7")
    with pytest.raises(Refuse, match=r"under0 is called lan7 now.*altname under0"):
        state.sync()
    namespace.command("ip", "link", "property", "add", "dev", "lan7", "altname", "under0")
    assert state.sync().index == index


def test_events_of_other_links_are_not_heeded_and_lost_events_are(namespace):
    state = ParentState([Nic("under0")])
    state.sync()
    with Monitor() as monitor:
        namespace.command("ip", "link", "add", "br7", "type", "bridge")
        events = monitor.events(5)
        assert events
        assert not observed(state, events)
    assert state.settled
    assert state.observe(Overrun())
    assert not state.settled


def test_an_isolated_link_that_was_deleted_by_hand_is_put_back(namespace):
    state = ParentState([ISOLATED])
    assert state.difference().link == ("not there",)
    assert state.sync().changes == ("made",)
    with Monitor() as monitor:
        namespace.command("ip", "link", "delete", "sli-blue")
        assert observed(state, monitor.events(5))
    assert state.sync().changes == ("made",)
    assert state.index == socket.if_nametoindex("sli-blue")
    assert state.difference().link == ()
    assert state.remove() is True
    assert state.index is None
    assert not exists(namespace, "sli-blue")
    assert state.remove() is False


def test_a_link_on_which_a_container_still_sits_is_not_removed(namespace, links, new_namespace):
    state = ParentState([ISOLATED], links)
    state.sync()
    links.make_child(dataclasses.replace(MACVLAN, parent="sli-blue"))
    inside = new_namespace()
    inside.take("sle-one", of=namespace)
    assert state.remove() is False
    assert exists(namespace, "sli-blue")
    inside.command("ip", "link", "delete", "sle-one")
    assert state.remove() is True


def test_another_link_may_be_wanted(namespace, links):
    state = ParentState([ISOLATED], links)
    state.sync()
    state.want_links([ISOLATED])
    assert state.settled
    state.want_links([dataclasses.replace(ISOLATED, mtu=1400)])
    assert not state.settled
    assert state.sync().changes == ("mtu: 1500 -> 1400",)
