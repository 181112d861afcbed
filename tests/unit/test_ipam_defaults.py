from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanlan.control.ipam.defaults import DEFAULT_POOLS, DefaultPool, first_free, parse_default_pools


def test_the_setting_is_read_with_the_size_behind_each_network():
    assert parse_default_pools("10.201.0.0/16/24, fd00:1::/48/64") == (
        DefaultPool(ip_network("10.201.0.0/16"), 24),
        DefaultPool(ip_network("fd00:1::/48"), 64),
    )
    assert len(parse_default_pools(DEFAULT_POOLS)) == 2
    assert parse_default_pools("") == ()


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/8", "10.0.0.0/16/8", "10.0.0.0/16/31", "10.0.0.1/16/24", "x/16/24", "10.0.0.0/16/a", "10.0.0.0/24"],
)
def test_a_bad_item_of_the_setting_is_named(text):
    with pytest.raises(ValueError, match=text):
        parse_default_pools(f"fd00::/48/64,{text}")


networks_of_ten = st.builds(
    lambda address, length: ip_network((0x0A000000 | address, length), strict=False),
    st.integers(0, 2**24 - 1),
    st.integers(10, 32),
)


@given(blocked=st.lists(networks_of_ten, max_size=12), size=st.integers(10, 14))
def test_the_first_pool_that_overlaps_nothing_is_found(blocked, size):
    base = ip_network("10.64.0.0/10")

    found = first_free([DefaultPool(base, size)], blocked, v6=False)

    suitable = (one for one in base.subnets(new_prefix=size) if not any(one.overlaps(other) for other in blocked))
    assert found == next(suitable, None)


def test_a_base_that_is_spent_gives_way_to_the_next_of_the_family():
    pools = parse_default_pools("10.1.0.0/24/25,fd00::/48/64,10.2.0.0/24/24")
    assert str(first_free(pools, [ip_network("10.1.0.0/24")], v6=False)) == "10.2.0.0/24"
    assert str(first_free(pools, [ip_network("10.1.0.0/24")], v6=True)) == "fd00::/64"
    assert first_free(pools, [ip_network("0.0.0.0/0")], v6=False) is None
