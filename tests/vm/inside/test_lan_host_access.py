"""Host access on ipvlan: the kernel keeps a parent and its children apart, ``host_access=true`` joins them."""

import json

import pytest

from lab.containers import links
from lab.lan_networks import pings
from spanlan.lab import Lab
from spanlan.lab.host import Host
from vm.members import create_everywhere, next_hops, start_together
from vm.trunk import LanLab

SUBNETS = {4: "10.70.0.0/24", 6: "fd70::/64"}


def own_addresses(host: Host) -> dict[int, str]:
    """The addresses of the host's own child, by family."""
    child = next(name for name in links(host) if name.startswith("slh-"))
    told = json.loads(host.run(["ip", "-j", "addr", "show", "dev", child, "scope", "global"]).stdout)
    return {{"inet": 4, "inet6": 6}[each["family"]]: each["local"] for each in told[0]["addr_info"]}


@pytest.mark.parametrize(("mode", "families"), [("l2", (4, 6)), ("l3", (4,))])  # IPv6 costs the guest time
def test_host_and_containers_reach_each_other_here_and_across_until_the_network_goes(
    clean_lab: Lab, lan_lab: LanLab, mode: str, families: tuple[int, ...]
) -> None:
    before = [set(links(host)) for host in lan_lab.hosts]
    subnets = {SUBNETS[family]: None for family in families}
    create_everywhere(lan_lab, "home", "-o", f"ipvlan_mode={mode}", "-o", "host_access=true", subnets=subnets)
    pair = start_together(*((host, "member", "home", ()) for host in lan_lab.hosts))
    owns = [*own_addresses(lan_lab.a).values(), *own_addresses(lan_lab.b).values()]
    assert len({*owns, *(container.on(family) for container in pair for family in families)}) == 4 * len(families)
    for here, there in (pair, reversed(pair)):
        own = own_addresses(here.host)
        for family in families:
            assert pings(here.host, here.on(family)), "the host its own container"
            assert here.pings(own[family]), "a container its own host"
            assert pings(here.host, there.on(family)), "the host a container of the other"
            assert there.pings(own[family]), "a container the other host"
        if mode == "l3":  # with l2 that lies behind the gateway
            assert here.pings(here.host.address), "a container its own host by its ordinary address"

    for container in pair:
        container.remove()
    lan_lab.on_both(lambda host: host.docker("network", "rm", "home"))
    assert [set(links(host)) for host in lan_lab.hosts] == before
    assert [next_hops(host) for host in lan_lab.hosts] == [{}, {}]
