from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanlan.control.ipam.pool_id import PoolId
from spanlan.errors import Refuse


@pytest.mark.parametrize(
    ("space", "cidr", "within"),
    [
        ("cluster", "10.42.0.0/16", None),
        ("segment.blue", "10.42.0.0/16", "10.42.8.0/24"),
        ("segment.a.b-c_d", "fd00::/64", "fd00::/80"),
    ],
)
def test_a_pool_id_says_by_itself_what_it_stands_for(space, cidr, within):
    made = PoolId.new(space, ip_network(cidr), within and ip_network(within))
    assert PoolId.parse(str(made)) == made
    assert str(made).startswith(f"{space}|{cidr}|{within or '-'}|")


def test_two_holds_on_one_pool_have_two_ids():
    assert PoolId.new("cluster", ip_network("10.0.0.0/8")) != PoolId.new("cluster", ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "LocalDefault/10.0.0.0/8",
        "cluster|10.0.0.0/8|-",
        "cluster|10.0.0.0/8|-|0123456789abcdeg",
        "cluster|10.0.0.0/8|-|0123",
        "cluster|10.0.0.1/8|-|0123456789abcdef",
        "cluster|10.0.0.0/8|11.0.0.0/16|0123456789abcdef",
        "cluster|10.0.0.0/8|fd00::/64|0123456789abcdef",
        "segment|10.0.0.0/8|-|0123456789abcdef",
        "segment.|10.0.0.0/8|-|0123456789abcdef",
        "segment.a/b|10.0.0.0/8|-|0123456789abcdef",
        "hosts|10.0.0.0/8|-|0123456789abcdef",
    ],
)
def test_an_id_that_spanlan_cannot_have_made_is_refused_by_name(text):
    with pytest.raises(Refuse, match="not given out by spanlan") as refusal:
        PoolId.parse(text)
    assert repr(text) in str(refusal.value)


@given(st.text(max_size=300))
def test_no_text_at_all_breaks_the_reader(text):
    with pytest.raises(Refuse):
        PoolId.parse(text)
