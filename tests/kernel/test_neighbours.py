"""Batches of neighbour and FDB entries: what was written is what ip(8) and bridge(8) say."""

import dataclasses
import errno
import struct
import time

import pytest

from example_links import BLUE
from spanlan.errors import Gone
from spanlan.kernel.links import Links
from spanlan.kernel.neighbours import (
    DropFdb,
    DropNeighbour,
    SetFdb,
    SetNeighbour,
    dump_fdb,
    dump_neighbours,
    write,
)
from spanlan.model.address import ip_address
from spanlan.model.mac import Mac, format_mac, parse_mac

MAC = parse_mac("02:42:0a:2a:00:05")
OTHER_MAC = parse_mac("02:42:0a:2a:00:06")


@pytest.fixture
def device(namespace):
    return Links().ensure_vxlan(BLUE).index


def neighbours(namespace):
    """What ``ip neigh`` says."""
    return {
        entry["dst"]: entry["lladdr"]
        for family in ("-4", "-6")
        for entry in namespace.json("ip", family, "-j", "neigh", "show", "dev", "svx-blue", "nud", "permanent")
    }


def fdb(namespace):
    """What ``bridge fdb`` says."""
    return {
        entry["mac"]: entry["dst"]
        for entry in namespace.json("bridge", "-j", "fdb", "show", "dev", "svx-blue")
        if entry["state"] == "permanent" and "self" in entry["flags"]
    }


def many(count):
    """Steps for ``count`` endpoints: two for each."""
    steps = []
    for number in range(count):
        address = ip_address(0x0A640000 + number)
        mac = Mac(b"\x02\x42" + address.packed)
        steps += [SetFdb(mac, ip_address(0x0A000002 + number % 200)), SetNeighbour(address, mac)]
    return steps


@pytest.mark.parametrize("address", ["10.42.0.5", "fd42::5"])
def test_a_neighbour_is_what_ip_neigh_says_until_it_is_dropped(namespace, device, address):
    assert write(device, [SetNeighbour(ip_address(address), MAC)]) == []
    assert neighbours(namespace) == {address: format_mac(MAC)}
    assert dump_neighbours(device) == {ip_address(address): MAC}
    assert write(device, [DropNeighbour(ip_address(address))]) == []
    assert neighbours(namespace) == {}
    assert dump_neighbours(device) == {}


@pytest.mark.parametrize("vtep", ["10.9.0.2", "fd09::2"])
def test_an_fdb_entry_is_what_bridge_fdb_says_until_it_is_dropped(namespace, vtep):
    address = ip_address(vtep)
    local, mtu = (ip_address("10.9.0.1"), 1450) if address.version == 4 else (ip_address("fd09::1"), 1430)
    device = Links().ensure_vxlan(dataclasses.replace(BLUE, local=local, mtu=mtu)).index
    assert write(device, [SetFdb(MAC, address)]) == []
    assert fdb(namespace) == {format_mac(MAC): vtep}
    assert dump_fdb(device) == {MAC: address}
    assert write(device, [DropFdb(MAC)]) == []
    assert fdb(namespace) == {}
    assert dump_fdb(device) == {}


def test_setting_an_fdb_entry_again_moves_the_mac_to_the_other_vtep(namespace, device):
    write(device, [SetFdb(MAC, ip_address("10.9.0.2"))])
    assert write(device, [SetFdb(MAC, ip_address("10.9.0.3"))]) == []
    assert fdb(namespace) == {format_mac(MAC): "10.9.0.3"}


def test_setting_a_neighbour_again_gives_the_address_the_other_mac(namespace, device):
    write(device, [SetNeighbour(ip_address("10.42.0.5"), MAC)])
    assert write(device, [SetNeighbour(ip_address("10.42.0.5"), OTHER_MAC)]) == []
    assert neighbours(namespace) == {"10.42.0.5": format_mac(OTHER_MAC)}


def test_neighbours_and_fdb_entries_with_the_same_bytes_are_not_confused(namespace, device):
    write(device, [SetNeighbour(ip_address("10.9.0.2"), MAC), SetFdb(OTHER_MAC, ip_address("10.9.0.2"))])
    write(device, [DropFdb(MAC)])
    assert dump_neighbours(device) == {ip_address("10.9.0.2"): MAC}
    assert dump_fdb(device) == {OTHER_MAC: ip_address("10.9.0.2")}


def test_dropping_what_is_not_there_is_no_failure(namespace, device):
    steps = [DropNeighbour(ip_address("10.42.0.5")), DropNeighbour(ip_address("fd42::5")), DropFdb(MAC)]
    assert write(device, steps) == []


def test_a_bad_entry_in_the_middle_of_a_batch_is_reported_and_the_others_are_written(namespace, device):
    good = [SetNeighbour(ip_address(f"10.42.0.{number}"), MAC) for number in range(1, 7)]
    bad = SetFdb(MAC, ip_address("fd09::2"))  # a VTEP of the wrong family for this device
    (failure,) = write(device, [*good[:3], bad, *good[3:]])
    assert failure.step is bad
    assert failure.errno == errno.EAFNOSUPPORT
    assert failure.reason
    assert len(neighbours(namespace)) == 6


@pytest.mark.parametrize("place", [0, 255, 256, 299])
def test_a_bad_entry_is_found_wherever_it_stands_in_its_batch(namespace, device, place):
    steps = [SetNeighbour(ip_address(0x0A2A0001 + number), MAC) for number in range(300)]
    steps[place] = bad = SetFdb(MAC, ip_address("fd09::2"))
    (failure,) = write(device, steps)
    assert failure.step is bad
    assert len(dump_neighbours(device)) == 299


def test_when_the_answers_do_not_fit_the_buffer_they_are_asked_for_again_in_smaller_batches(namespace, device):
    bad = [SetFdb(Mac(b"\x02" + struct.pack("!IB", number, 0)), ip_address("fd09::2")) for number in range(300)]
    good = SetNeighbour(ip_address("10.42.0.5"), MAC)
    failures = write(device, [*bad, good], receive_buffer=4096)
    assert [failure.step for failure in failures] == bad
    assert dump_neighbours(device) == {ip_address("10.42.0.5"): MAC}


def test_ten_thousand_endpoints_are_written_and_read_back_exactly(namespace, device):
    steps = many(10_000)
    assert write(device, steps) == []
    assert dump_neighbours(device) == {step.address: step.mac for step in steps if isinstance(step, SetNeighbour)}
    assert dump_fdb(device) == {step.mac: step.vtep for step in steps if isinstance(step, SetFdb)}
    assert len(fdb(namespace)) == 10_000
    drops = [DropFdb(step.mac) if isinstance(step, SetFdb) else DropNeighbour(step.address) for step in steps]
    assert write(device, drops) == []
    assert (dump_neighbours(device), dump_fdb(device)) == ({}, {})


def test_writing_and_reading_keep_the_pace_that_a_large_segment_needs(namespace, device):
    """Bounds are ten times what an idle core needs: they catch one message per call, not a busy neighbour."""
    steps = many(5_000)
    started = time.process_time()
    write(device, steps)
    written = time.process_time()
    dump_neighbours(device)
    dump_fdb(device)
    read = time.process_time()
    assert (written - started) / len(steps) < 20e-6
    assert (read - written) / len(steps) < 40e-6


def test_nothing_to_do_sends_nothing(namespace, device):
    assert write(device, []) == []


def test_writing_to_a_device_that_is_gone_says_so(namespace, device):
    Links().delete("svx-blue")
    with pytest.raises(Gone):
        write(device, many(1000))


def test_a_device_that_is_gone_has_no_entries(namespace, device):
    write(device, many(10))
    Links().delete("svx-blue")
    assert dump_neighbours(device) == {}
    assert dump_fdb(device) == {}


def test_entries_of_another_sort_are_not_read_as_ours(namespace, device):
    namespace.command(
        "ip", "neigh", "add", "10.42.0.9", "lladdr", "02:00:00:00:00:09", "nud", "stale", "dev", "svx-blue"
    )
    namespace.command("ip", "neigh", "add", "proxy", "10.42.0.8", "dev", "svx-blue")
    fdb_add = ("bridge", "fdb", "append")
    namespace.command(*fdb_add, "00:00:00:00:00:00", "dev", "svx-blue", "dst", "10.9.0.2", "self", "permanent")
    namespace.command(*fdb_add, "00:00:00:00:00:00", "dev", "svx-blue", "dst", "10.9.0.3", "self", "permanent")
    namespace.command(*fdb_add, "02:00:00:00:00:07", "dev", "svx-blue", "dst", "10.9.0.2", "self", "dynamic")
    namespace.command(
        *fdb_add, "02:00:00:00:00:06", "dev", "svx-blue", "dst", "10.9.0.2", "port", "9", "self", "permanent"
    )
    assert dump_neighbours(device) == {}
    assert dump_fdb(device) == {}


def test_entries_of_other_devices_are_not_read(namespace, device):
    other = Links().ensure_vxlan(dataclasses.replace(BLUE, name="svx-red", vni=7)).index
    write(other, many(10))
    assert dump_neighbours(device) == {}
    assert dump_fdb(device) == {}
    assert len(dump_fdb(other)) == 10


def test_an_entry_with_a_detour_is_overwritten_when_it_is_wanted(namespace, device):
    namespace.command(
        *("bridge", "fdb", "add", format_mac(MAC), "dev", "svx-blue", "dst", "10.9.0.2", "port", "9"),
        *("self", "permanent"),
    )
    write(device, [SetFdb(MAC, ip_address("10.9.0.2"))])
    assert dump_fdb(device) == {MAC: ip_address("10.9.0.2")}
