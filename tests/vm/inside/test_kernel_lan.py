"""VLAN links and ipvlan children, on a kernel that has them."""

import dataclasses
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from example_parents import IPVLAN, ISOLATED, MACVLAN, VLAN, data_of, exists, show
from spanlan.errors import Refuse, Retry
from spanlan.kernel import parents
from spanlan.kernel.announce import Announcement, announce
from spanlan.kernel.found import BIRTH_GROUP
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import Monitor
from spanlan.kernel.parent_state import ParentState
from spanlan.model.address import ip_address
from spanlan.model.host import Nic

OUTER = dataclasses.replace(VLAN, name="under0.100", alias="spanlan vlan=100", vlan=100, protocol="802.1ad")
INNER = dataclasses.replace(VLAN, name="under0.100.10", parent="under0.100")


@pytest.fixture
def links(namespace):
    return Links()


def vlan_by_hand(namespace, name, *words, parent="under0", vlan=10):
    namespace.command("ip", "link", "add", "link", parent, "name", name, "type", "vlan", "id", str(vlan), *words)


def qos_of(namespace, name):
    return {entry["from"]: entry["to"] for entry in data_of(namespace, name).get("egress_qos", [])}


def observed(state, events):
    """Whether there is something to sync after all of these."""
    return True in [state.observe(event) for event in events]


@contextmanager
def one_frame(where, device, pattern):
    """What tcpdump prints of the first frame that matches while the block runs."""
    words = ("timeout", "30", "tcpdump", "-nel", "-c", "1", "-i", device, *pattern)
    with where.entered():
        ear = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told: list[str] = []
    try:
        for line in ear.stderr:
            if "listening on" in line:
                break
        yield told
        told.append(ear.stdout.read())
    finally:
        ear.kill()
        ear.communicate()


# -- VLAN links: made as wanted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "shown"), [("802.1q", "802.1Q"), ("802.1ad", "802.1ad")])
def test_a_vlan_link_is_made_with_all_that_was_asked_for(namespace, links, protocol, shown):
    wanted = dataclasses.replace(VLAN, protocol=protocol, egress_qos=((0, 1), (6, 5)))
    made = links.ensure_vlan(wanted)
    device = show(namespace, "under0.10")
    data = device["linkinfo"]["info_data"]
    assert (made.index, made.changes, made.flaws, made.ours) == (device["ifindex"], ("made",), (), True)
    assert (device["link"], device["mtu"], device["ifalias"]) == ("under0", 1500, "spanlan vlan=10")
    assert (data["id"], data["protocol"], device["group"]) == (10, shown, "default")
    assert qos_of(namespace, "under0.10") == {0: 1, 6: 5}
    assert {"UP", "LOWER_UP"} <= set(device["flags"])


def test_a_vlan_link_gives_the_host_no_address_and_no_router(namespace, links):
    links.ensure_vlan(VLAN)
    (device,) = namespace.json("ip", "-j", "addr", "show", "dev", "under0.10")
    assert device["addr_info"] == []
    assert Path("/proc/sys/net/ipv6/conf/under0.10/accept_ra").read_text() == "0\n"


def test_the_inner_link_of_qinq_leaves_room_for_the_second_tag(namespace, links):
    links.ensure_vlan(OUTER)
    links.ensure_vlan(INNER)
    assert [show(namespace, name)["mtu"] for name in ("under0.100", "under0.100.10")] == [1500, 1496]
    namespace.command("ip", "link", "set", "under0", "mtu", "1504")
    assert links.ensure_vlan(OUTER).changes == ("mtu: 1500 -> 1504",)
    assert links.ensure_vlan(INNER).changes == ("mtu: 1496 -> 1500",)


@pytest.mark.parametrize("wanted", [OUTER, dataclasses.replace(VLAN, egress_qos=((0, 3), (7, 0)))])
def test_a_vlan_link_that_is_right_is_left_as_it_is(namespace, links, wanted):
    first = links.ensure_vlan(wanted)
    assert links.ensure_vlan(wanted) == dataclasses.replace(first, changes=())
    assert links.find_vlan(wanted) == (first.index, ())


def test_the_tags_and_priority_bits_are_on_the_wire(namespace, links):
    links.ensure_vlan(OUTER)
    links.ensure_vlan(dataclasses.replace(INNER, egress_qos=((0, 5),)))
    namespace.command("ip", "addr", "add", "10.10.0.1/24", "dev", "under0.100.10")
    with one_frame(namespace, "wire0", ("vlan",)) as told:
        namespace.command("ping", "-c", "1", "-W", "1", "10.10.0.2", check=False)
    assert re.search(r"802\.1Q-QinQ.*vlan 100, p 0,.*802\.1Q.*vlan 10, p 5,", told[0]), told


# -- VLAN links: compared with what is there --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "command", "changes"),
    [
        (dataclasses.replace(VLAN, egress_qos=((0, 2),)), (), ("egress QoS: none -> 0:2",)),
        (dataclasses.replace(VLAN, alias="spanlan vlan=ten"), (), ("alias: spanlan vlan=10 -> spanlan vlan=ten",)),
        (VLAN, ("type", "vlan", "egress", "3:4"), ("egress QoS: 3:4 -> none",)),
        (dataclasses.replace(VLAN, egress_qos=((3, 1),)), ("type", "vlan", "egress", "3:4", "5:5"), None),
        (VLAN, ("mtu", "1400"), ("mtu: 1400 -> 1500",)),
        (VLAN, ("addrgenmode", "eui64"), ("IPv6 address of its own: on -> off",)),
        (VLAN, ("down",), ("state: down -> up",)),
    ],
)
def test_what_differs_in_a_vlan_link_of_ours_is_put_right_in_place(namespace, links, wanted, command, changes):
    first = links.ensure_vlan(VLAN)
    if command:
        namespace.command("ip", "link", "set", "under0.10", *command)
    changes = changes or ("egress QoS: 3:4 5:5 -> 3:1",)
    assert links.find_vlan(wanted) == (first.index, changes)
    assert links.ensure_vlan(wanted) == dataclasses.replace(first, changes=changes)
    assert links.ensure_vlan(wanted).changes == ()
    assert qos_of(namespace, "under0.10") == dict(wanted.egress_qos)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vlan": 20}, "VLAN id is 10, must be 20"),
        ({"protocol": "802.1ad"}, "protocol is 802.1q, must be 802.1ad"),
        ({"parent": "wire0"}, "parent is "),
    ],
)
def test_a_vlan_link_of_ours_that_cannot_be_changed_is_made_anew_and_the_reason_told(
    namespace, links, caplog, change, reason
):
    first = links.ensure_vlan(VLAN)
    wanted = dataclasses.replace(VLAN, **change)
    assert reason in links.find_vlan(wanted)[1][0]
    anew = links.ensure_vlan(wanted)
    assert anew.index != first.index
    (told,) = anew.changes
    assert told.startswith("made anew: ")
    assert reason in told
    assert reason in caplog.text
    assert links.ensure_vlan(wanted).changes == ()


def test_a_link_whose_maker_was_killed_before_it_got_its_mark_is_still_ours(namespace, links):
    namespace.command(
        *("ip", "link", "add", "link", "under0", "name", "under0.10", "group", str(BIRTH_GROUP)),
        *("type", "vlan", "id", "10"),
    )
    ensured = links.ensure_vlan(VLAN)
    assert ensured.ours
    assert "alias:  -> spanlan vlan=10" in ensured.changes
    assert (show(namespace, "under0.10")["group"], links.ensure_vlan(VLAN).changes) == ("default", ())


def test_a_foreign_link_that_is_the_same_vlan_is_used_as_it_is_and_never_removed(namespace, links):
    vlan_by_hand(namespace, "under0.10")
    before = show(namespace, "under0.10")
    wanted = dataclasses.replace(VLAN, egress_qos=((0, 2),))
    ensured = links.ensure_vlan(wanted)
    assert (ensured.index, ensured.changes, ensured.ours) == (before["ifindex"], (), False)
    down, qos = ensured.flaws
    assert "ip link set under0.10 up" in down
    assert "ip link set under0.10 type vlan egress 0:2" in qos
    assert links.find_vlan(wanted) == (ensured.index, ensured.flaws)
    assert show(namespace, "under0.10") == before
    with pytest.raises(Refuse, match=r"under0\.10 was not made by spanlan"):
        links.delete("under0.10")
    namespace.command("ip", "link", "set", "under0.10", "up")
    assert links.ensure_vlan(VLAN).flaws == ()


@pytest.mark.parametrize("make", [("id", "20"), ("protocol", "802.1ad", "id", "10")])
def test_a_foreign_link_that_is_something_else_is_refused_and_left_alone(namespace, links, make):
    namespace.command("ip", "link", "add", "link", "under0", "name", "under0.10", "type", "vlan", *make)
    before = show(namespace, "under0.10")
    for attempt in (links.ensure_vlan, links.find_vlan):
        with pytest.raises(Refuse, match=r"under0\.10 was not made by spanlan and is something else.*-o parent="):
            attempt(VLAN)
    assert show(namespace, "under0.10") == before


# -- VLAN links: what is in the way -----------------------------------------------------------------------------------


def test_a_vlan_that_is_there_under_another_name_is_refused_with_that_name(namespace, links):
    vlan_by_hand(namespace, "storage")
    with pytest.raises(
        Refuse, match=r"VLAN 10 .* of under0 .* name storage .not made by spanlan.: .*-o parent=storage"
    ):
        links.ensure_vlan(VLAN)


def test_a_vlan_whose_link_was_moved_to_another_namespace_is_refused(namespace, links, new_namespace):
    vlan_by_hand(namespace, "storage")
    new_namespace().take("storage", of=namespace)
    with pytest.raises(Refuse, match="moved to another network namespace"):
        links.ensure_vlan(VLAN)


def test_a_parent_that_is_not_there_is_refused_by_name(namespace, links):
    with pytest.raises(Refuse, match="its parent eth7 is not there"):
        links.ensure_vlan(dataclasses.replace(VLAN, parent="eth7"))
    assert links.find_vlan(dataclasses.replace(VLAN, parent="eth7")) == (None, ("not there",))


def test_a_parent_that_can_carry_no_vlans_is_refused(namespace, links):
    with pytest.raises(Refuse, match="lo can carry no VLANs"):
        links.ensure_vlan(dataclasses.replace(VLAN, parent="lo"))


def test_while_the_parent_is_down_the_vlan_link_is_flawed_and_then_comes_up_by_itself(namespace, links):
    namespace.command("ip", "link", "set", "under0", "down")
    made = links.ensure_vlan(VLAN)
    assert made.changes == ("made",)
    assert made.flaws == ("under0.10 is down because its parent under0 is: ip link set under0 up",)
    assert links.ensure_vlan(VLAN) == dataclasses.replace(made, changes=())
    with pytest.raises(Retry, match=r"parent under0\.10 is down"):
        links.make_child(dataclasses.replace(MACVLAN, parent="under0.10"))
    namespace.command("ip", "link", "set", "under0", "up")
    assert links.ensure_vlan(VLAN) == dataclasses.replace(made, changes=(), flaws=())


def test_a_name_that_is_too_long_is_refused(namespace, links):
    with pytest.raises(Refuse, match="1 to 15 bytes"):
        links.ensure_vlan(dataclasses.replace(VLAN, name="a-name-of-16byte"))


# -- ipvlan children --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "flag"), [("l2", "bridge"), ("l2", "private"), ("l2", "vepa"), ("l3", "private"), ("l3s", "bridge")]
)
def test_an_ipvlan_child_is_made_in_the_mode_and_with_the_flag_that_were_asked_for(namespace, links, mode, flag):
    wanted = dataclasses.replace(IPVLAN, mode=mode, flag=flag)
    index = links.make_child(wanted)
    child = show(namespace, "sle-one")
    assert (child["ifindex"], child["link"], child["mtu"]) == (index, "under0", 1500)
    assert (child["ifalias"], child["address"]) == ("spanlan endpoint=one", show(namespace, "under0")["address"])
    data = child["linkinfo"]["info_data"]
    assert (data["mode"], flag in str(data)) == (mode, True)
    assert "UP" not in child["flags"]
    assert links.make_child(wanted) == index
    nic = parents.parent("under0")
    assert (nic.children, nic.ipvlan_flag) == ({("ipvlan", mode)}, flag)
    assert parents.parent("sle-one").below == "under0"


def test_the_kernel_by_itself_would_change_the_mode_and_flag_of_all_children(namespace):
    """Why children are looked for first; if this fails the kernel has learned to refuse, and we need not."""
    for name, mode, flag in (("one", "l2", "bridge"), ("two", "l3", "private")):
        namespace.command("ip", "link", "add", name, "link", "under0", "type", "ipvlan", "mode", mode, flag)
    assert data_of(namespace, "one") == data_of(namespace, "two")


@pytest.mark.parametrize("change", [{"mode": "l3s"}, {"flag": "private"}])
def test_another_mode_or_flag_on_the_same_parent_is_refused_with_the_first_ones_name(namespace, links, change):
    links.make_child(IPVLAN)
    before = data_of(namespace, "sle-one")
    with pytest.raises(
        Refuse, match=r"on under0 have mode l2 and flag bridge, such as sle-one .*would change them for all"
    ):
        links.make_child(dataclasses.replace(IPVLAN, name="sle-two", **change))
    assert data_of(namespace, "sle-one") == before
    assert not exists(namespace, "sle-two")


def test_another_mode_is_refused_also_when_all_children_are_in_containers_and_not_ours(namespace, links, new_namespace):
    namespace.command("ip", "link", "add", "theirs", "link", "under0", "type", "ipvlan", "mode", "l3")
    inside = new_namespace()
    inside.take("theirs", of=namespace)
    inside.command("ip", "link", "set", "theirs", "name", "eth0")
    with pytest.raises(Refuse, match=r"such as eth0 .ipvlan l3 bridge in a container. not made by spanlan"):
        links.make_child(IPVLAN)
    assert data_of(inside, "eth0")["mode"] == "l3"
    assert parents.parent("under0").children == {("ipvlan", "l3")}
    links.make_child(dataclasses.replace(IPVLAN, mode="l3"))


def test_networks_of_one_mode_share_a_parent_and_vlans_of_one_nic_have_modes_of_their_own(namespace, links):
    links.ensure_vlan(VLAN)
    links.make_child(IPVLAN)
    links.make_child(dataclasses.replace(IPVLAN, name="sle-two"))
    links.make_child(dataclasses.replace(IPVLAN, name="sle-three", parent="under0.10", mode="l3s", flag="private"))
    assert data_of(namespace, "sle-one")["mode"] == "l2"
    assert data_of(namespace, "sle-three")["mode"] == "l3s"


@pytest.mark.parametrize("change", [{"mode": "l3"}, {"flag": "vepa"}, {"parent": "wire0", "mtu": 1400}])
def test_an_ipvlan_child_of_ours_that_differs_is_replaced(namespace, links, change):
    before = links.make_child(IPVLAN)
    wanted = dataclasses.replace(IPVLAN, **change)
    after = links.make_child(wanted)
    assert after != before
    assert links.make_child(wanted) == after


def test_macvlan_on_a_parent_with_ipvlan_is_refused_with_the_childs_name(namespace, links, new_namespace):
    links.make_child(IPVLAN)
    new_namespace().take("sle-one", of=namespace)
    with pytest.raises(
        Refuse, match=r"under0 has ipvlan links already, sle-one \(ipvlan l2 bridge in a container\).*one kind"
    ):
        links.make_child(dataclasses.replace(MACVLAN, name="sle-two"))


def test_ipvlan_on_a_parent_with_macvlan_is_refused_with_the_childs_name(namespace, links):
    links.make_child(MACVLAN)
    with pytest.raises(Refuse, match=r"under0 has macvlan links already, sle-one \(macvlan bridge\).*another parent"):
        links.make_child(dataclasses.replace(IPVLAN, name="sle-two"))


def test_ipvlan_on_a_bridges_port_or_on_the_loopback_or_on_a_child_is_refused(namespace, links):
    with pytest.raises(Refuse, match="lo is the loopback"):
        links.make_child(dataclasses.replace(IPVLAN, parent="lo"))
    links.make_child(dataclasses.replace(IPVLAN, name="sle-two", parent="wire0"))
    with pytest.raises(Refuse, match="sle-two is itself a ipvlan link"):
        links.make_child(dataclasses.replace(IPVLAN, parent="sle-two"))
    namespace.command("ip", "link", "add", "br0", "type", "bridge")
    namespace.command("ip", "link", "set", "under0", "master", "br0")
    with pytest.raises(Refuse, match="under0 is a port of a bridge"):
        links.make_child(IPVLAN)


def test_an_mtu_beyond_the_parents_is_refused_also_for_ipvlan_whose_kernel_would_take_it(namespace, links):
    with pytest.raises(Refuse, match=r"MTU of 1501 does not fit on under0.*-o mtu=1500"):
        links.make_child(dataclasses.replace(IPVLAN, mtu=1501))


# -- facts ------------------------------------------------------------------------------------------------------------


def test_a_vlan_parent_is_described(namespace, links):
    links.ensure_vlan(OUTER)
    links.ensure_vlan(INNER)
    outer, inner = parents.parent("under0.100"), parents.parent("under0.100.10")
    assert (outer.kind, outer.vlan, outer.vlan_protocol, outer.below, outer.ours) == (
        "vlan",
        100,
        "802.1ad",
        "under0",
        True,
    )
    assert (inner.vlan, inner.vlan_protocol, inner.below, inner.mtu) == (10, "802.1q", "under0.100", 1496)


def test_here_an_isolated_link_is_a_dummy(namespace, links):
    links.ensure_isolated(ISOLATED)
    assert show(namespace, "sli-blue")["linkinfo"]["info_kind"] == "dummy"
    links.make_child(dataclasses.replace(IPVLAN, parent="sli-blue"))


# -- the parent's state -----------------------------------------------------------------------------------------------


def test_both_links_of_qinq_are_made_in_order_and_removed_in_the_other(namespace):
    state = ParentState([OUTER, INNER])
    assert state.difference().link == ("under0.100: not there", "not there")
    report = state.sync()
    assert report.changes == ("under0.100: made", "made")
    assert report.index == state.index == socket.if_nametoindex("under0.100.10")
    assert state.difference().link == ()
    assert state.remove() is True
    assert not exists(namespace, "under0.100")


def test_the_outer_link_stays_while_another_vlan_is_in_it(namespace):
    other = ParentState([OUTER, dataclasses.replace(INNER, name="under0.100.20", vlan=20)])
    state = ParentState([OUTER, INNER])
    state.sync()
    other.sync()
    assert state.remove() is True
    assert exists(namespace, "under0.100.20")
    assert other.remove() is True
    assert not exists(namespace, "under0.100")


def test_a_vlan_link_is_put_back_when_its_nic_was_deleted_and_made_again(namespace):
    state = ParentState([VLAN])
    before = state.sync().index
    with Monitor() as monitor:
        namespace.command("ip", "link", "delete", "under0")
        assert observed(state, monitor.events(5))
        with pytest.raises(Refuse, match="its parent under0 is not there"):
            state.sync()
        namespace.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "wire0")
        namespace.command("ip", "link", "set", "under0", "up")
        assert observed(state, monitor.events(5))
    report = state.sync()
    assert report.changes == ("made",)
    assert report.index != before


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        (("under0.10", "down"), ("state: down -> up",)),
        (("under0", "mtu", "1400"), ()),
        (("under0", "mtu", "9000"), ("mtu: 1500 -> 9000",)),
    ],
)
def test_what_happens_to_the_vlan_link_or_its_nic_is_noticed(namespace, command, changes):
    state = ParentState([VLAN])
    state.sync()
    with Monitor() as monitor:
        namespace.command("ip", "link", "set", *command)
        assert observed(state, monitor.events(5))
    assert state.sync().changes == changes
    assert state.sync().changes == ()


def test_a_foreign_vlan_link_is_reported_and_not_removed(namespace):
    vlan_by_hand(namespace, "under0.10")
    state = ParentState([VLAN])
    report = state.sync()
    assert report.changes == ()
    assert "not ours to bring up" in report.reasons[0]
    assert state.remove() is False
    assert exists(namespace, "under0.10")


def test_a_vlan_link_that_carries_other_peoples_containers_is_not_removed(namespace, new_namespace):
    state = ParentState([VLAN])
    state.sync()
    namespace.command("ip", "link", "add", "theirs", "link", "under0.10", "type", "ipvlan", "mode", "l2")
    inside = new_namespace()
    inside.take("theirs", of=namespace)
    assert state.remove() is False
    with pytest.raises(Refuse, match=r"it stays, .*theirs \(ipvlan l2 bridge in a container\)"):
        Links().delete("under0.10")
    inside.command("ip", "link", "delete", "theirs")
    assert state.remove() is True


def test_a_nic_with_vlan_children_is_only_looked_at(namespace):
    vlan_by_hand(namespace, "under0.10")
    before = show(namespace, "under0")
    assert ParentState([Nic("under0")]).sync().changes == ()
    assert show(namespace, "under0") == before


# -- announcements ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "sent"), [("l2", 2), ("l3", 0)])
def test_an_address_on_ipvlan_is_announced_with_the_parents_mac_where_there_is_arp(
    namespace, links, new_namespace: Callable, mode, sent
):
    links.make_child(dataclasses.replace(IPVLAN, mode=mode))
    inside, neighbour = new_namespace(), new_namespace()
    inside.take("sle-one", of=namespace)
    inside.command("ip", "link", "set", "sle-one", "up")
    neighbour.take("wire0", of=namespace)
    neighbour.command("ip", "link", "set", "wire0", "up")
    neighbour.command("ip", "addr", "add", "10.9.0.2/24", "dev", "wire0")
    neighbour.command(
        "ip", "neigh", "replace", "10.9.0.5", "lladdr", "02:42:00:00:00:99", "dev", "wire0", "nud", "stale"
    )
    announcement = Announcement(IPVLAN.alias, (ip_address("10.9.0.5"), ip_address("fd09::5")))
    assert announce(announcement, inside.path, repeats=1) == sent
    (entry,) = neighbour.json("ip", "-j", "neigh", "show", "10.9.0.5", "dev", "wire0")
    assert entry["lladdr"] == (show(namespace, "under0")["address"] if sent else "02:42:00:00:00:99")
