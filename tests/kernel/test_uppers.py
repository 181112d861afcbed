"""Who sits on a link, here and in containers, on the real kernel."""

import dataclasses
import socket
from pathlib import Path

import pytest

from example_parents import MACVLAN
from spanlan.kernel.links import Links
from spanlan.kernel.uppers import uppers_of


def on(name):
    return {str(upper): upper for upper in uppers_of(socket.if_nametoindex(name))}


def add(namespace, name, parent, mode="bridge"):
    namespace.command("ip", "link", "add", name, "link", parent, "type", "macvlan", "mode", mode)


def test_a_link_on_which_nobody_sits_has_no_uppers(namespace):
    assert on("under0") == {}


def test_children_are_seen_with_kind_mode_and_owner(namespace):
    Links().make_child(MACVLAN)
    add(namespace, "other", "under0", "vepa")
    add(namespace, "elsewhere", "wire0")
    found = on("under0")
    assert set(found) == {"sle-one (macvlan bridge)", "other (macvlan vepa)"}
    assert [found[name].ours for name in sorted(found)] == [False, True]


def test_children_in_containers_are_seen_the_first_time_already(namespace, new_namespace):
    Links().make_child(MACVLAN)
    add(namespace, "other", "under0", "private")
    one, two = new_namespace(), new_namespace()
    one.take("sle-one", of=namespace)
    two.take("other", of=namespace)
    one.command("ip", "link", "set", "sle-one", "name", "eth0")
    found = on("under0")
    assert set(found) == {"eth0 (macvlan bridge in a container)", "other (macvlan private in a container)"}
    assert found["eth0 (macvlan bridge in a container)"].ours


def test_children_of_other_links_and_namespaces_are_told_apart_though_their_numbers_are_equal(namespace, new_namespace):
    other = new_namespace()
    other.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "wire0")
    index = {link["ifname"]: link["ifindex"] for link in other.json("ip", "-j", "link")}["under0"]
    assert index == socket.if_nametoindex("under0")
    third = new_namespace()
    add(other, "theirs", "under0")
    third.take("theirs", of=other)
    add(namespace, "mine", "under0")
    third.take("mine", of=namespace)
    add(namespace, "mine2", "wire0")
    third.take("mine2", of=namespace)
    assert set(on("under0")) == {"mine (macvlan bridge in a container)"}


def test_a_namespace_that_ended_is_no_obstacle(namespace, new_namespace):
    ended = new_namespace()
    add(namespace, "gone", "under0")
    ended.take("gone", of=namespace)
    ended.close()
    add(namespace, "stays", "under0")
    assert "stays (macvlan bridge)" in on("under0")


def test_a_look_leaves_no_descriptor_open_even_if_it_ends_early(namespace):
    add(namespace, "one", "under0")
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert next(uppers_of(socket.if_nametoindex("under0"))).name == "one"
    on("under0")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("kinds", [("ipvlan",), ("no-such-kind",)])
def test_a_kind_without_links_finds_none_also_if_the_kernel_does_not_know_it(namespace, kinds):
    add(namespace, "one", "under0")
    assert list(uppers_of(socket.if_nametoindex("under0"), kinds)) == []


def test_the_alias_of_a_child_goes_with_it_into_the_container(namespace, new_namespace):
    Links().make_child(dataclasses.replace(MACVLAN, name="sle-two"))
    inside = new_namespace()
    inside.take("sle-two", of=namespace)
    (upper,) = on("under0").values()
    assert upper.ours
