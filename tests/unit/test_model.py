"""The words of spanlan: MAC addresses, IP addresses and their spelling in keys."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanlan.model.address import overlaps, sortable
from spanlan.model.mac import Mac, derive_mac, format_mac, parse_mac

ADDRESSES = st.ip_addresses()

# a busy machine is no mistake of the code
unhurried = settings(deadline=None, max_examples=60)


@pytest.mark.parametrize("text", ["02:42:ac:11:00:02", "02-42-AC-11-00-02", "02:42:AC:11:00:02"])
def test_a_mac_is_read_in_either_spelling_and_written_in_one(text: str) -> None:
    assert parse_mac(text) == b"\x02\x42\xac\x11\x00\x02"
    assert format_mac(parse_mac(text)) == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:42:ac:11:00",
        "02:42:ac:11:00:02:03",
        "0242ac110002",
        "02:42:ac:11:00:zz",
        "02:42:ac:11:00:2",
        "0:242:ac:11:00:02",
        "02:42-ac:11-00:02",
        "0242ac110002     ",
        ":::::0242ac110002",
        " 02:42:ac:11:00:02",
        "02:42:ac:11:00:02\n",
        "02:42:ac:11:00:0\uff12",
    ],
)
def test_what_is_no_mac_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="02:42:ac:11:00:02"):
        parse_mac(text)


@pytest.mark.parametrize("text", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "00:00:00:00:00:00"])
def test_a_mac_that_is_no_single_interface_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unicast"):
        parse_mac(text)


@unhurried
@given(st.binary(min_size=6, max_size=6).filter(lambda octets: not octets[0] & 1 and any(octets)))
def test_every_unicast_mac_is_read_as_it_was_written(octets: bytes) -> None:
    assert parse_mac(format_mac(Mac(octets))) == octets


@unhurried
@given(st.text(max_size=20), ADDRESSES)
def test_a_derived_mac_is_unicast_and_locally_administered(segment: str, address: IPv4Address | IPv6Address) -> None:
    mac = derive_mac(segment, address)
    assert len(mac) == 6
    assert mac[0] & 0b11 == 0b10
    assert parse_mac(format_mac(mac)) == mac


def test_a_derived_mac_depends_on_segment_and_address_alone_and_never_changes() -> None:
    """The second half is a promise to running clusters: a release that derives otherwise splits them."""
    address = ip_address("10.42.0.5")
    assert format_mac(derive_mac("blue", address)) == format_mac(derive_mac("blue", ip_address("10.42.0.5")))
    assert derive_mac("blue", address) != derive_mac("red", address)
    assert derive_mac("blue", address) != derive_mac("blue", ip_address("10.42.0.6"))
    assert format_mac(derive_mac("blue", address)) == "9a:a1:3b:77:1e:4f"


def test_sixty_five_thousand_addresses_of_a_segment_have_as_many_macs() -> None:
    network = ip_network("10.42.0.0/16")
    assert len({derive_mac("blue", address) for address in network}) == 65536


@unhurried
@given(ADDRESSES, ADDRESSES)
def test_the_spelling_in_keys_sorts_like_the_numbers(
    one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address
) -> None:
    if one.version == other.version:
        assert (sortable(one) < sortable(other)) == (int(one) < int(other))
        assert (sortable(one) == sortable(other)) == (one == other)


def test_the_spelling_in_keys_can_be_read() -> None:
    assert sortable(ip_address("10.42.0.5")) == "010.042.000.005"
    assert sortable(ip_address("fd00::5")) == "fd00:0000:0000:0000:0000:0000:0000:0005"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("10.0.0.0/8", "10.1.2.0/24", True),
        ("10.0.0.0/24", "10.0.1.0/24", False),
        ("10.0.0.0/24", "10.0.0.0/24", True),
        ("fd00::/16", "fd00:1::/64", True),
        ("0.0.0.0/0", "::/0", False),
    ],
)
def test_networks_overlap_within_their_family(one: str, other: str, expected: bool) -> None:  # noqa: FBT001
    first, second = ip_network(one), ip_network(other)
    assert isinstance(first, IPv4Network | IPv6Network)
    assert overlaps(first, second) is overlaps(second, first) is expected
