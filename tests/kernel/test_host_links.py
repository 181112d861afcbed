"""The host's own child on a parent: how it is made, mended, and what passes through it, on the real kernel."""

import dataclasses
import socket
from pathlib import Path

import pytest

from example_parents import MACVLAN, exists, show
from spanlan.errors import Refuse, Retry
from spanlan.kernel.links import Links
from spanlan.model.address import ip_address
from spanlan.model.host import HostLink

CHILD = dataclasses.replace(MACVLAN, name="slh-blue", alias="spanlan segment=blue host", mac=None)
HOST = HostLink(CHILD, (ip_address("10.9.0.99"), ip_address("fd09::99")))

ARP = socket.htons(0x0806)  # linux/if_ether.h, ETH_P_ARP
REPLY = b"\0\2"


@pytest.fixture
def links(namespace):
    return Links()


def addresses(namespace, name="slh-blue"):
    (link,) = namespace.json("ip", "-j", "addr", "show", "dev", name)
    return {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]}


def setting(family, word, name="slh-blue"):
    return Path(f"/proc/sys/net/{family}/conf/{name}/{word}").read_text().strip()


def test_the_hosts_own_link_is_made_up_marked_and_with_its_addresses_alone(namespace, links):
    assert links.find_host_link(HOST) == (None, ("not there",))
    made = links.ensure_host_link(HOST)
    device = show(namespace, "slh-blue")
    assert (made.index, made.changes, made.flaws, made.ours) == (device["ifindex"], ("made",), (), True)
    assert (device["link"], device["linkinfo"]["info_data"]["mode"]) == ("under0", "bridge")
    assert (device["ifalias"], device["group"], device["mtu"]) == ("spanlan segment=blue host", "default", 1500)
    assert {"UP", "LOWER_UP"} <= set(device["flags"])
    assert addresses(namespace) == {"10.9.0.99/32", "fd09::99/128"}
    assert links.find_host_link(HOST) == (made.index, ())


def test_its_addresses_bring_no_route_and_no_wait_for_duplicates(namespace, links):
    links.ensure_host_link(HOST)
    assert not namespace.json("ip", "-j", "route", "show", "dev", "slh-blue")
    assert not namespace.json("ip", "-j", "-6", "route", "show", "dev", "slh-blue", "table", "main")
    (link,) = namespace.json("ip", "-j", "-6", "addr", "show", "dev", "slh-blue")
    assert not link["addr_info"][0].get("tentative")


def test_what_is_set_on_it_lets_answers_come_another_way_and_keeps_it_from_answering_for_other_links(links):
    links.ensure_host_link(HOST)
    assert (setting("ipv4", "rp_filter"), setting("ipv4", "arp_filter")) == ("2", "1")
    assert setting("ipv6", "accept_ra") == "0"


def test_one_that_is_right_is_left_as_it_is(links):
    first = links.ensure_host_link(HOST)
    assert links.ensure_host_link(HOST) == dataclasses.replace(first, changes=())


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        (("link", "set", "slh-blue", "down"), ("state: down -> up", "address fd09::99/128")),
        (("link", "set", "slh-blue", "mtu", "1400"), ("mtu: 1400 -> 1500",)),
        (("link", "set", "under0", "mtu", "9000"), ("mtu: 1500 -> 9000",)),
        (("addr", "del", "10.9.0.99/32", "dev", "slh-blue"), ("address 10.9.0.99/32",)),
        (("addr", "add", "10.9.0.77/24", "dev", "slh-blue"), ("address 10.9.0.77/24: gone",)),
        (("link", "set", "slh-blue", "addrgenmode", "eui64"), None),
    ],
)
def test_what_was_changed_by_hand_is_put_right_in_place(namespace, links, command, changes):
    first = links.ensure_host_link(HOST)
    namespace.command("ip", *command)
    differences = links.find_host_link(HOST)
    mended = links.ensure_host_link(HOST)
    if changes is None:
        (_, *others) = mended.changes
        assert mended.changes[0] == "IPv6 address of its own: on -> off"
        assert all(other.startswith("address fe80::") for other in others)
    else:
        assert mended.changes == changes
        assert differences == (first.index, changes)
    assert mended.index == first.index
    assert links.find_host_link(HOST) == (first.index, ())
    assert addresses(namespace) == {"10.9.0.99/32", "fd09::99/128"}


def test_a_setting_that_was_changed_by_hand_is_put_back(links):
    first = links.ensure_host_link(HOST)
    Path("/proc/sys/net/ipv4/conf/slh-blue/rp_filter").write_text("1")
    assert links.find_host_link(HOST) == (first.index, ("rp_filter: 1 -> 2",))
    assert links.ensure_host_link(HOST).changes == ("rp_filter: 1 -> 2",)
    assert setting("ipv4", "rp_filter") == "2"


def test_addresses_come_and_go_one_by_one(namespace, links):
    first = links.ensure_host_link(HOST)
    wanted = HostLink(CHILD, (ip_address("10.9.0.98"), ip_address("fd09::99")))
    changed = links.ensure_host_link(wanted)
    assert changed.index == first.index
    assert changed.changes == ("address 10.9.0.99/32: gone", "address 10.9.0.98/32")
    assert addresses(namespace) == {"10.9.0.98/32", "fd09::99/128"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "private"}, "mode is bridge, must be private"),
        ({"parent": "wire0"}, "parent is "),
        ({"alias": "spanlan segment=azure host"}, "alias is spanlan segment=blue host, must be "),
    ],
)
def test_one_that_cannot_be_changed_in_place_is_made_anew_and_the_reason_told(namespace, links, change, reason):
    first = links.ensure_host_link(HOST)
    wanted = HostLink(dataclasses.replace(CHILD, **change), HOST.addresses)
    assert links.find_host_link(wanted)[1][0].startswith(reason)
    anew = links.ensure_host_link(wanted)
    assert anew.index != first.index
    (told,) = anew.changes
    assert told.startswith(f"made anew: {reason}")
    assert addresses(namespace) == {"10.9.0.99/32", "fd09::99/128"}


def test_a_foreign_link_of_that_name_is_left_alone(namespace, links):
    namespace.command("ip", "link", "add", "slh-blue", "link", "under0", "type", "macvlan", "mode", "bridge")
    before = show(namespace, "slh-blue")
    for verb in (links.ensure_host_link, links.find_host_link):
        with pytest.raises(Refuse, match="slh-blue was not made by spanlan"):
            verb(HOST)
    assert show(namespace, "slh-blue") == before


def test_without_a_parent_there_is_no_link_yet(links):
    with pytest.raises(Retry, match="its parent eth7 is not there"):
        links.ensure_host_link(HostLink(dataclasses.replace(CHILD, parent="eth7"), HOST.addresses))


def test_ipv6_that_is_off_by_default_is_switched_on_for_it(namespace, links):
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    assert links.ensure_host_link(HOST).flaws == ()
    assert addresses(namespace) == {"10.9.0.99/32", "fd09::99/128"}


def test_an_address_that_cannot_be_put_on_is_told_and_the_other_one_is_there(namespace, links):
    wanted = HostLink(dataclasses.replace(CHILD, mtu=1000), HOST.addresses)  # too small for IPv6, RFC 8200 section 5
    made = links.ensure_host_link(wanted)
    (flaw,) = made.flaws
    assert "address fd09::99 cannot be put on slh-blue" in flaw
    assert addresses(namespace) == {"10.9.0.99/32"}


def test_the_host_and_its_containers_reach_each_other_also_by_the_hosts_ordinary_address(
    namespace, links, new_namespace
):
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("1")
    links.ensure_host_link(HOST)
    links.make_child(dataclasses.replace(MACVLAN, mac=None))
    inside = new_namespace()
    inside.take("sle-one", of=namespace)
    inside.command("ip", "addr", "add", "10.9.0.5/24", "dev", "sle-one")
    inside.command("ip", "addr", "add", "fd09::5/64", "dev", "sle-one", "nodad")
    inside.command("ip", "link", "set", "sle-one", "up")
    said = namespace.command("ping", "-c", "1", "-W", "1", "10.9.0.5", check=False)
    assert "100% packet loss" in said  # what the parent alone can do
    namespace.command("ip", "route", "add", "10.9.0.5", "dev", "slh-blue", "src", "10.9.0.99")
    namespace.command("ip", "route", "add", "fd09::5", "dev", "slh-blue", "src", "fd09::99")
    for where, address in [
        (namespace, "10.9.0.5"),
        (namespace, "fd09::5"),
        (inside, "10.9.0.99"),
        (inside, "fd09::99"),
        (inside, "10.9.0.1"),
    ]:
        where.command("ping", "-c", "1", "-W", "5", address)


@pytest.fixture
def elsewhere(namespace, new_namespace):
    """A host at the other end of the cable, while ours is strict about where packets come from."""
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("1")
    other = new_namespace()
    other.take("wire0", of=namespace)
    for address in ("10.9.0.6/24", "10.9.0.7/24"):
        other.command("ip", "addr", "add", address, "dev", "wire0")
    other.command("ip", "link", "set", "wire0", "up")
    return other


def test_who_comes_over_the_lan_is_heard_though_the_way_back_is_another_one(namespace, links, elsewhere):
    links.ensure_host_link(HOST)
    mac = show(namespace, "slh-blue")["address"]
    elsewhere.command("ip", "neigh", "add", "10.9.0.99", "lladdr", mac, "dev", "wire0")
    elsewhere.command("ping", "-c", "1", "-W", "5", "10.9.0.99")


def test_it_answers_for_the_hosts_other_addresses_only_those_whom_it_leads_to(namespace, links, elsewhere):
    links.ensure_host_link(HOST)
    namespace.command("ip", "route", "add", "10.9.0.7", "dev", "slh-blue")
    nic, own = (bytes.fromhex(show(namespace, name)["address"].replace(":", "")) for name in ("under0", "slh-blue"))
    heard = set()
    with elsewhere.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ARP) as ear:
        ear.bind(("wire0", 0x0806))
        ear.settimeout(5)
        elsewhere.command("ping", "-c", "1", "-W", "5", "10.9.0.1")
        elsewhere.command("ip", "neigh", "flush", "dev", "wire0")
        elsewhere.command("ping", "-c", "1", "-W", "5", "-I", "10.9.0.7", "10.9.0.1")
        while (own, "10.9.0.7") not in heard:  # which it was asked last
            frame = ear.recv(64)
            if frame[20:22] == REPLY:
                heard.add((frame[22:28], socket.inet_ntoa(frame[38:42])))
    assert {mac for mac, asker in heard if asker == "10.9.0.6"} == {nic}


def test_it_goes_like_any_link_of_ours(namespace, links):
    links.ensure_host_link(HOST)
    assert links.delete("slh-blue") is True
    assert not exists(namespace, "slh-blue")
