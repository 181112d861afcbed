"""The main job on Debian's kernel: a VXLAN segment over two hosts.  (All of it is tested in the lab world.)"""

from collections.abc import Iterator

import pytest

from lab.containers import SERVER, Container, at_once, create, fdb, kept_clean, neighbours, start
from lab.wire import capture
from spanlan.lab import Lab

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[list[Container]]:
    """A container on each host that serves a page, on one segment with both families."""
    with kept_clean(lab):
        create(lab.hosts, "blue", subnets=("10.42.0.0/16", "fd42::/64"))
        yield at_once(lambda host: start(host, "member", "blue", command=SERVER), lab.hosts, threads=2)


@FAMILIES
def test_containers_on_two_hosts_reach_each_other_with_their_first_packet(pair: list[Container], family: int) -> None:
    one, other = pair
    for here, there in ((one, other), (other, one)):
        here.forget_neighbours()
        assert here.pings(there.on(family))


@FAMILIES
def test_a_page_is_fetched_over_tcp(pair: list[Container], family: int) -> None:
    one, other = pair
    for here, there in ((one, other), (other, one)):
        address = f"[{there.on(6)}]" if family == 6 else there.on(4)
        assert here.inside("curl", "-s", "--max-time", "10", f"http://{address}/") == "spanlan lab\n"


def test_no_question_for_a_known_address_goes_over_the_wire(pair: list[Container]) -> None:
    one, other = pair
    with capture(one.host) as wire:
        for family in (4, 6):
            one.forget_neighbours()
            other.forget_neighbours()
            assert one.pings(other.on(family))
            wire.wait_for(f"{one.on(family)} > {other.on(family)}", "echo request")
            wire.wait_for(f"{other.on(family)} > {one.on(family)}", "echo reply")
        assert [line for line in wire.questions() if "10.42." in line or "fd42:" in line] == []


def test_each_host_knows_the_container_of_the_other(pair: list[Container]) -> None:
    for here, there in (pair, reversed(pair)):
        mac = there.links()["eth0"]["address"]
        assert neighbours(here.host, "blue") == {there.on(4): mac, there.on(6): mac}
        assert fdb(here.host, "blue") == {mac: there.host.address}
