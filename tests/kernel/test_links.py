"""VXLAN devices and macvlan children, on the real kernel."""

import dataclasses
import socket
import sys
from pathlib import Path

import pytest

from example_links import BLUE, CHILD
from netns import NetworkNamespace
from spanlan.errors import Refuse, Retry
from spanlan.kernel.found import BIRTH_GROUP
from spanlan.kernel.links import Links
from spanlan.kernel.neighbours import SetNeighbour, write
from spanlan.model.address import ip_address
from spanlan.model.mac import Mac

BLUE6 = dataclasses.replace(BLUE, local=ip_address("fd09::1"), mtu=1430)


@pytest.fixture
def links(namespace):
    return Links()


def show(namespace, name):
    (link,) = namespace.json("ip", "-j", "-d", "link", "show", "dev", name)
    return link


def exists(namespace, name):
    return bool(namespace.command("ip", "-o", "link", "show", "dev", name, check=False))


# -- VXLAN: made as wanted --------------------------------------------------------------------------------------------


def test_a_vxlan_device_is_made_with_all_that_was_asked_for(namespace, links):
    wanted = dataclasses.replace(BLUE, ttl=9, tos=16, port=4790, mtu=1400)
    made = links.ensure_vxlan(wanted)
    device = show(namespace, "svx-blue")
    data = device["linkinfo"]["info_data"]
    assert made.changes == ("made",)
    assert device["ifindex"] == made.index
    assert device["linkinfo"]["info_kind"] == "vxlan"
    assert (device["ifalias"], device["mtu"], device["group"]) == ("spanlan segment blue", 1400, "default")
    assert "UP" in device["flags"]
    assert {key: data[key] for key in ("id", "local", "link", "port", "learning", "proxy", "udp_csum")} == {
        "id": 4200,
        "local": "10.9.0.1",
        "link": "under0",
        "port": 4790,
        "learning": False,
        "proxy": True,
        "udp_csum": True,
    }
    assert (data["ttl"], data["tos"]) == (9, "0x10")


def test_a_vxlan_device_has_no_address_of_its_own(namespace, links):
    links.ensure_vxlan(BLUE)
    (device,) = namespace.json("ip", "-j", "addr", "show", "dev", "svx-blue")
    assert device["addr_info"] == []


def test_a_host_with_ipv6_off_by_default_still_answers_for_ipv6_containers(namespace, links):
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    index = links.ensure_vxlan(BLUE).index
    neighbour = SetNeighbour(ip_address("fd42::5"), CHILD.mac)
    assert write(index, [neighbour]) == []
    Path("/proc/sys/net/ipv6/conf/svx-blue/disable_ipv6").write_text("1")
    (failure,) = write(index, [SetNeighbour(ip_address("fd42::6"), CHILD.mac)])
    assert "IPv6" in failure.reason
    assert links.ensure_vxlan(BLUE).changes == ("IPv6: off -> on",)
    assert write(index, [neighbour]) == []


def test_the_checksum_of_the_outer_header_can_be_left_out(namespace, links):
    links.ensure_vxlan(dataclasses.replace(BLUE, udp_csum=False))
    assert show(namespace, "svx-blue")["linkinfo"]["info_data"]["udp_csum"] is False


@pytest.mark.parametrize("sent", [True, False])
def test_over_ipv6_packets_without_checksum_are_taken_whatever_is_sent(namespace, links, sent):
    links.ensure_vxlan(dataclasses.replace(BLUE6, udp_csum=sent))
    data = show(namespace, "svx-blue")["linkinfo"]["info_data"]
    assert data["local6"] == "fd09::1"
    assert data["udp_zero_csum6_rx"] is True
    assert data["udp_zero_csum6_tx"] is not sent


def test_two_ipv6_segments_that_differ_in_checksums_share_a_port(namespace, links):
    links.ensure_vxlan(BLUE6)
    links.ensure_vxlan(dataclasses.replace(BLUE6, name="svx-red", vni=7, udp_csum=False))
    assert "UP" in show(namespace, "svx-red")["flags"]


@pytest.mark.parametrize("wanted", [BLUE, BLUE6, dataclasses.replace(BLUE, ttl=3, tos=1, udp_csum=False)])
def test_a_device_that_is_right_is_left_as_it_is(namespace, links, wanted):
    first = links.ensure_vxlan(wanted)
    again = links.ensure_vxlan(wanted)
    assert again.index == first.index
    assert again.changes == ()
    assert links.find_vxlan(wanted) == (first.index, ())


# -- VXLAN: compared with what is there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "command"),
    [
        ({"ttl": 9}, "ttl"),
        ({"tos": 8}, "tos"),
        ({"mtu": 1300}, "mtu"),
        ({"local": ip_address("10.9.0.7")}, "local"),
        ({"parent": "wire0"}, "underlay"),
        ({"alias": "spanlan segment azure"}, "alias"),
    ],
)
def test_what_the_kernel_lets_change_is_changed_in_place(namespace, links, change, command):
    first = links.ensure_vxlan(BLUE)
    wanted = dataclasses.replace(BLUE, **change)
    index, differences = links.find_vxlan(wanted)
    assert (index, len(differences)) == (first.index, 1)
    changed = links.ensure_vxlan(wanted)
    assert changed.index == first.index
    assert len(changed.changes) == 1
    assert changed.changes[0].startswith(command)
    assert changed.changes == differences
    assert links.ensure_vxlan(wanted).changes == ()


def test_a_device_that_was_set_down_is_brought_up(namespace, links):
    links.ensure_vxlan(BLUE)
    namespace.command("ip", "link", "set", "svx-blue", "down")
    assert links.ensure_vxlan(BLUE).changes == ("state: down -> up",)
    assert "UP" in show(namespace, "svx-blue")["flags"]


def test_a_device_that_was_taught_to_learn_is_untaught(namespace, links):
    links.ensure_vxlan(BLUE)
    namespace.command("ip", "link", "set", "svx-blue", "type", "vxlan", "learning")
    links.ensure_vxlan(BLUE)
    assert show(namespace, "svx-blue")["linkinfo"]["info_data"]["learning"] is False


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vni": 77}, "vni is 4200, must be 77"),
        ({"port": 4790}, "port is 4789, must be 4790"),
        ({"udp_csum": False}, "udp_csum is 1, must be 0"),
        ({"local": ip_address("fd09::1"), "mtu": 1430}, "local is 10.9.0.1, must be fd09::1"),
    ],
)
def test_a_device_of_that_name_that_cannot_be_changed_is_made_anew_and_the_reason_told(
    namespace, links, caplog, change, reason
):
    first = links.ensure_vxlan(BLUE)
    wanted = dataclasses.replace(BLUE, **change)
    anew = links.ensure_vxlan(wanted)
    assert anew.index != first.index
    (told,) = anew.changes
    assert told.startswith("made anew: ")
    assert reason in told
    assert reason in caplog.text
    assert links.ensure_vxlan(wanted).changes == ()


def test_a_device_without_proxy_is_made_anew(namespace, links):
    namespace.command(
        *("ip", "link", "add", "svx-blue", "type", "vxlan", "id", "4200", "local", "10.9.0.1", "dstport", "4789"),
        *("dev", "under0", "nolearning"),
    )
    namespace.command("ip", "link", "set", "svx-blue", "alias", "spanlan segment blue")
    (told,) = links.ensure_vxlan(BLUE).changes
    assert "proxy is 0, must be 1" in told
    assert show(namespace, "svx-blue")["linkinfo"]["info_data"]["proxy"] is True


def test_a_foreign_device_of_that_name_is_left_alone_and_named(namespace, links):
    namespace.command("ip", "link", "add", "svx-blue", "type", "veth", "peer", "name", "other")
    before = show(namespace, "svx-blue")
    with pytest.raises(Refuse, match="svx-blue was not made by spanlan"):
        links.ensure_vxlan(BLUE)
    assert show(namespace, "svx-blue") == before


# -- VXLAN: what is in the way ----------------------------------------------------------------------------------------


def test_a_vni_that_a_foreign_device_holds_is_refused_with_its_name_and_the_cure(namespace, links):
    namespace.command("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "4200", "dstport", "4789")
    with pytest.raises(
        Refuse, match=r"VNI 4200 on port 4789 .* flannel\.1 \(not made by spanlan\).*-o vni=.*-o vxlan_port="
    ):
        links.ensure_vxlan(BLUE)
    assert not exists(namespace, "svx-blue")


def test_a_vni_that_another_of_our_devices_holds_is_refused_with_its_name(namespace, links):
    links.ensure_vxlan(BLUE)
    with pytest.raises(Refuse, match=r"svx-blue .another network of spanlan"):
        links.ensure_vxlan(dataclasses.replace(BLUE, name="svx-red"))


def test_a_vni_held_by_a_device_that_was_moved_away_is_refused_with_a_hint_at_swarm(namespace, links, new_namespace):
    namespace.command("ip", "link", "add", "vx-swarm", "type", "vxlan", "id", "4200", "dstport", "4789")
    new_namespace().take("vx-swarm", of=namespace)
    with pytest.raises(Refuse, match=r"moved to another network namespace .*-o vni="):
        links.ensure_vxlan(BLUE)


def test_a_port_that_another_program_holds_is_refused_and_nothing_is_left(namespace, links):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 4789))  # noqa: S104 - in a namespace of its own
        with pytest.raises(Refuse, match=r"UDP port 4789 is in use by .*process.* -o vxlan_port="):
            links.ensure_vxlan(BLUE)
    assert not exists(namespace, "svx-blue")


def test_a_port_that_a_foreign_device_will_not_share_is_refused_with_its_name(namespace, links):
    namespace.command("ip", "link", "add", "collector", "type", "vxlan", "dstport", "4789", "external")
    namespace.command("ip", "link", "set", "collector", "up")
    with pytest.raises(Refuse, match=r"UDP port 4789 is in use by the device collector.*-o vxlan_port="):
        links.ensure_vxlan(BLUE)
    assert not exists(namespace, "svx-blue")


def test_an_mtu_that_does_not_fit_the_underlay_is_refused_with_the_largest_that_does(namespace, links):
    with pytest.raises(
        Refuse, match=r"MTU of 1480 does not fit on the underlay under0, at most 1450 does.*-o mtu=1450"
    ):
        links.ensure_vxlan(dataclasses.replace(BLUE, mtu=1480))
    assert not exists(namespace, "svx-blue")


def test_an_mtu_that_stopped_fitting_is_a_flaw_and_the_device_works_on(namespace, links):
    first = links.ensure_vxlan(dataclasses.replace(BLUE, mtu=1400))
    ensured = links.ensure_vxlan(dataclasses.replace(BLUE, mtu=1480))
    assert ensured.index == first.index
    (flaw,) = ensured.flaws
    assert "should be 1480" in flaw
    assert show(namespace, "svx-blue")["mtu"] == 1400


def test_a_missing_underlay_is_refused_by_name(namespace, links):
    with pytest.raises(Refuse, match="underlay eth7 is not there"):
        links.ensure_vxlan(dataclasses.replace(BLUE, parent="eth7"))


@pytest.mark.parametrize(
    "attempt", ["Links().ensure_vxlan(BLUE)", "write(1, [DropFdb(CHILD.mac)])"], ids=["links", "entries"]
)
def test_without_the_capability_the_message_names_it(namespace, attempt):
    """In a program of its own, since a capability that was given up does not come back."""
    program = f"""
from example_links import BLUE, CHILD
from spanlan.errors import Broken
from spanlan.kernel.links import Links
from spanlan.kernel.neighbours import DropFdb, write
try:
    {attempt}
except Broken as error:
    print(error)
"""
    said = namespace.command(
        "setpriv", "--bounding-set=-net_admin", "env", f"PYTHONPATH={':'.join(sys.path)}", sys.executable, "-c", program
    )
    assert "CAP_NET_ADMIN" in said


# -- macvlan ----------------------------------------------------------------------------------------------------------


def test_a_child_is_made_in_bridge_mode_down_and_marked(namespace, links):
    links.ensure_vxlan(BLUE)
    index = links.make_child(dataclasses.replace(CHILD, mtu=1400))
    child = show(namespace, "sep0")
    assert child["ifindex"] == index
    assert child["link"] == "svx-blue"
    assert child["linkinfo"]["info_kind"] == "macvlan"
    assert child["linkinfo"]["info_data"]["mode"] == "bridge"
    assert (child["address"], child["mtu"], child["ifalias"]) == ("02:42:0a:2a:00:05", 1400, "spanlan endpoint one")
    assert "UP" not in child["flags"]


def test_making_a_child_again_gives_the_same_child(namespace, links):
    links.ensure_vxlan(BLUE)
    assert links.make_child(CHILD) == links.make_child(CHILD)


@pytest.mark.parametrize(
    "change",
    [
        {"mac": Mac(b"\x02\x42\x0a\x2a\x00\x06")},
        {"mtu": 1300},
        {"alias": "spanlan endpoint two"},
        {"parent": "svx-red"},
    ],
)
def test_a_child_of_ours_that_differs_is_replaced(namespace, links, change):
    links.ensure_vxlan(BLUE)
    links.ensure_vxlan(dataclasses.replace(BLUE, name="svx-red", vni=7))
    before = links.make_child(CHILD)
    wanted = dataclasses.replace(CHILD, **change)
    after = links.make_child(wanted)
    assert after != before
    assert links.make_child(wanted) == after


def test_a_foreign_link_where_a_child_should_be_is_left_alone(namespace, links):
    links.ensure_vxlan(BLUE)
    namespace.command("ip", "link", "add", "sep0", "link", "svx-blue", "type", "macvlan", "mode", "bridge")
    before = show(namespace, "sep0")
    with pytest.raises(Refuse, match="sep0 was not made by spanlan"):
        links.make_child(CHILD)
    assert show(namespace, "sep0") == before


def test_a_child_without_its_device_may_be_tried_again(namespace, links):
    with pytest.raises(Retry, match="svx-blue is not there"):
        links.make_child(CHILD)


def test_a_mac_is_carried_while_a_container_has_it_up(namespace, links):
    assert not links.is_carried(CHILD)
    links.ensure_vxlan(BLUE)
    assert not links.is_carried(CHILD)
    links.make_child(CHILD)
    assert not links.is_carried(CHILD), "not handed over yet"
    with NetworkNamespace() as container:
        container.take(CHILD.name, of=namespace)
        container.command("ip", "link", "set", CHILD.name, "up")
        before = namespace.command("ip", "-o", "link")
        assert links.is_carried(CHILD)
        assert not links.is_carried(dataclasses.replace(CHILD, mac=Mac(b"\x02\x42\x0a\x2a\x00\x06")))
        assert namespace.command("ip", "-o", "link") == before
        assert container.json("ip", "-j", "link", "show", CHILD.name)[0]["operstate"] == "UP"
        container.command("ip", "link", "set", CHILD.name, "down")
        assert not links.is_carried(CHILD)


def test_a_name_that_is_too_long_is_refused(namespace, links):
    links.ensure_vxlan(BLUE)
    with pytest.raises(Refuse, match="1 to 15 bytes"):
        links.make_child(dataclasses.replace(CHILD, name="a-name-of-16byte"))


# -- whose is it ------------------------------------------------------------------------------------------------------


def test_a_link_of_ours_is_deleted_and_deleting_it_again_is_no_error(namespace, links):
    links.ensure_vxlan(BLUE)
    assert links.delete("svx-blue") is True
    assert not exists(namespace, "svx-blue")
    assert links.delete("svx-blue") is False


def test_a_foreign_link_is_not_deleted(namespace, links):
    with pytest.raises(Refuse, match="under0 was not made by spanlan"):
        links.delete("under0")
    assert exists(namespace, "under0")


def test_a_daemon_without_memory_finds_its_links_by_their_mark(namespace, links):
    vxlan = links.ensure_vxlan(BLUE).index
    child = links.make_child(CHILD)
    found = {link.name: link for link in links.ours()}
    assert set(found) == {"svx-blue", "sep0"}
    assert (found["svx-blue"].kind, found["svx-blue"].index) == ("vxlan", vxlan)
    assert found["svx-blue"].alias == "spanlan segment blue"
    assert (found["sep0"].kind, found["sep0"].index, found["sep0"].parent) == ("macvlan", child, vxlan)
    assert (found["sep0"].mac, found["sep0"].mtu) == (CHILD.mac, 1450)


def test_a_link_whose_maker_was_killed_before_it_got_its_mark_is_still_ours(namespace, links):
    namespace.command(
        *("ip", "link", "add", "svx-blue", "group", str(BIRTH_GROUP), "type", "vxlan", "id", "4200"),
        *("dstport", "4789", "local", "10.9.0.1", "dev", "under0", "nolearning", "proxy"),
    )
    assert [link.name for link in links.ours()] == ["svx-blue"]
    links.ensure_vxlan(BLUE)
    device = show(namespace, "svx-blue")
    assert (device["ifalias"], device["group"]) == ("spanlan segment blue", "default")
    assert links.ensure_vxlan(BLUE).changes == ()
