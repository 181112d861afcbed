"""Addresses with one next hop, gathered to as few routes as are exactly they."""

from ipaddress import collapse_addresses

from hypothesis import given
from hypothesis import strategies as st

from spanlan.kernel.blocks import Blocks
from spanlan.model.address import ip_address, ip_network
from spanlan.model.host import OnLink

ONE, TWO = ip_address("10.9.0.7"), ip_address("10.9.0.8")
FIRST = ip_address("10.42.7.0")


def range_of(first, count, hop):
    return {ip_address(first) + number: hop for number in range(count)}


def test_a_block_of_256_containers_on_one_host_is_one_route():
    assert Blocks().want(range_of("10.42.7.0", 256, ONE)) == {ip_network("10.42.7.0/24"): ONE}
    assert Blocks().want(range_of("fd42::700", 256, ONE)) == {ip_network("fd42::700/120"): ONE}


def test_a_block_never_spans_more_than_256_addresses():
    assert Blocks().want(range_of("10.42.6.0", 512, ONE)) == {
        ip_network("10.42.6.0/24"): ONE,
        ip_network("10.42.7.0/24"): ONE,
    }


def test_one_address_that_moves_to_another_host_splits_the_block_and_new_routes_come_before_the_old_one_goes():
    blocks = Blocks()
    blocks.want(range_of("10.42.7.0", 8, ONE))
    changed = blocks.want({FIRST + 5: TWO})
    assert changed == {
        ip_network("10.42.7.0/30"): ONE,
        ip_network("10.42.7.4/32"): ONE,
        ip_network("10.42.7.5/32"): TWO,
        ip_network("10.42.7.6/31"): ONE,
        ip_network("10.42.7.0/29"): None,
    }
    assert list(changed)[-1] == ip_network("10.42.7.0/29")
    assert blocks.want({FIRST + 5: ONE})[ip_network("10.42.7.0/29")] == ONE


def test_what_is_wanted_again_changes_nothing():
    blocks = Blocks()
    blocks.want({FIRST: OnLink("slh-blue")})
    assert blocks.want({FIRST: OnLink("slh-blue")}) == {}
    assert blocks.want({FIRST + 1: None}) == {}
    assert len(blocks) == 1


def test_other_addresses_do_not_make_a_change_larger():
    blocks = Blocks()
    blocks.want({FIRST + number: (ONE, TWO)[number % 2] for number in range(0, 20_000, 2)})
    assert blocks.want({FIRST + 1: ONE}) == {ip_network("10.42.7.0/31"): ONE, ip_network("10.42.7.0/32"): None}


ADDRESSES = st.one_of(
    st.integers(0, 600).map(lambda number: FIRST + number),
    st.integers(0, 40).map(lambda number: ip_address("fd42::6f0") + number),
)


@given(st.lists(st.dictionaries(ADDRESSES, st.sampled_from([ONE, TWO, None]), max_size=60), max_size=6))
def test_whatever_comes_and_goes_the_routes_are_those_addresses_and_no_others(changes):
    blocks = Blocks()
    hops, routes = {}, {}
    for change in changes:
        hops = {address: hop for address, hop in (hops | change).items() if hop}
        routes = {network: hop for network, hop in (routes | blocks.want(change)).items() if hop}
    assert len(blocks) == len(hops)
    for hop in (ONE, TWO):
        for version, widest in ((4, 24), (6, 120)):
            theirs = [address for address, other in hops.items() if (address.version, other) == (version, hop)]
            fewest = [
                part
                for network in collapse_addresses(theirs)
                for part in (network.subnets(new_prefix=widest) if network.prefixlen < widest else [network])
            ]
            assert {network for network, other in routes.items() if (network.version, other) == (version, hop)} == {
                *fewest
            }
