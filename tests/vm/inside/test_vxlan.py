"""The main job on Debian's kernel: a VXLAN segment over two hosts.  (All of it is tested in the lab world.)"""

from collections.abc import Iterator

import pytest

from lab.containers import Container, create, fdb, kept_clean, neighbours, start
from spanlan.lab import Lab


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[list[Container]]:
    """A container on each host, on one segment with both families."""
    with kept_clean(lab):
        create(lab.hosts, "blue", subnets=("10.42.0.0/16", "fd42::/64"))
        yield [start(host, "member", "blue") for host in lab.hosts]


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_containers_on_two_hosts_reach_each_other(pair: list[Container], family: int) -> None:
    one, other = pair
    assert one.pings(other.on(family))
    assert other.pings(one.on(family))


def test_each_host_knows_the_container_of_the_other(pair: list[Container]) -> None:
    for here, there in (pair, reversed(pair)):
        mac = there.links()["eth0"]["address"]
        assert neighbours(here.host, "blue") == {there.on(4): mac, there.on(6): mac}
        assert fdb(here.host, "blue") == {mac: there.host.address}
