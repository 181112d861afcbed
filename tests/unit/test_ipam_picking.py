from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanlan.control.ipam import picking
from spanlan.control.ipam.picking import Span


def reader(used):
    ordered = sorted(used)
    reads = []

    def read(start, end, limit):
        reads.append((start, end))
        return [number for number in ordered if start <= number <= end][:limit]

    return read, reads


@given(
    used=st.sets(st.integers(0, 700), max_size=500),
    first=st.integers(0, 60),
    length=st.integers(0, 600),
    after=st.none() | st.integers(0, 700),
    count=st.integers(1, 70),
)
def test_free_numbers_come_in_order_from_behind_the_cursor_and_round(used, first, length, after, count):
    span = Span(first, first + length - 1)
    read, _ = reader(used)

    found = picking.free(read, span, after=after, count=count)

    everything = [number for number in range(span.first, span.last + 1) if number not in used]
    if after is not None and after in span:
        everything = [n for n in everything if n > after] + [n for n in everything if n <= after]
    assert found == everything[:count]


def test_a_full_stretch_costs_one_read_per_page_and_an_empty_pool_one():
    read, reads = reader(range(1, 50_000))
    assert picking.free(read, Span(1, 65_534), after=None, count=1) == [50_000]
    assert len(reads) < 35

    read, reads = reader([])
    assert picking.free(read, Span(1, 2**64), after=2**63, count=1) == [2**63 + 1]
    assert len(reads) == 1


def test_the_first_read_ends_with_the_octet_so_that_a_full_pool_costs_no_more_than_an_empty_one():
    read, reads = reader(range(1, 50_000))
    picking.free(read, Span(1, 65_534), after=49_999, count=1)
    assert reads == [(50_000, 50_175)]


@pytest.mark.parametrize(
    ("cidr", "first", "last"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.4/31", "10.0.0.4", "10.0.0.5"),
        ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
        ("fd00::2/127", "fd00::2", "fd00::3"),
        ("fd00::9/128", "fd00::9", "fd00::9"),
    ],
)
def test_usable_addresses_leave_out_what_no_host_may_hold(cidr, first, last):
    network = ip_network(cidr)
    family = type(network.network_address)
    assert picking.usable(network) == Span(int(family(first)), int(family(last)))


def test_a_range_inside_the_pool_may_use_its_own_first_and_last_address():
    span = picking.pickable(ip_network("10.0.0.0/16"), ip_network("10.0.8.0/24"))
    assert span.size == 256
    assert picking.pickable(ip_network("10.0.0.0/16"), ip_network("10.0.0.0/24")).size == 255
