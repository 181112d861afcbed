"""A cluster that is only in the store: segments with members and endpoints on hosts that do not exist.

    python -m bench.cluster ETCD SEGMENT VNI ENDPOINTS HOSTS

Everything follows from the numbers, so whoever knows them knows what the kernel must hold.
"""

import sys
from collections.abc import Iterator
from ipaddress import IPv4Address

from spanlan.model.address import IPAddress
from spanlan.model.cluster import Endpoint, Host, Member, Segment, Tunnel
from spanlan.model.mac import Mac, derive_mac
from spanlan.store import codec, keys
from spanlan.store.base import Put, Store
from spanlan.store.etcd import EtcdStore

ME = "bench"
PORT = 4789
MTU = 1450
_FIRST_ENDPOINT = IPv4Address("10.128.0.1")
_FIRST_VTEP = IPv4Address("10.98.1.1")
_AT_ONCE = 100


def segment(name: str, vni: int) -> Segment:
    """The segment's record."""
    return Segment(name=name, mode="vxlan", tunnel=Tunnel(vni=vni, port=PORT, mtu=MTU, family=4))


def host_name(number: int) -> str:
    """Name of a host that does not exist."""
    return f"far-{number}"


def vtep(number: int) -> IPAddress:
    """Where that host's endpoints are reached."""
    return _FIRST_VTEP + number


def endpoint(name: str, number: int, hosts: int) -> Endpoint:
    """The endpoint with this number; they are dealt out to the hosts in turn."""
    address = _FIRST_ENDPOINT + number
    return Endpoint(name, address, derive_mac(name, address), host_name(number % hosts), f"{number:064x}")


def wanted(name: str, endpoints: int, hosts: int) -> tuple[dict[IPAddress, Mac], dict[Mac, IPAddress]]:
    """What the kernel of a host that has none of them must hold: neighbours and FDB."""
    all_of_them = [endpoint(name, number, hosts) for number in range(endpoints)]
    neighbours = {each.address: each.mac for each in all_of_them}
    return neighbours, {each.mac: vtep(number % hosts) for number, each in enumerate(all_of_them)}


def _records(name: str, vni: int, endpoints: int, hosts: int) -> Iterator[Put]:
    yield Put(keys.segment(name), codec.encode_segment(segment(name, vni)))
    for number in range(hosts):
        host = Host(name=host_name(number), version="bench", instance=f"{number:032x}")
        member = Member(name, host.name, (vtep(number),), (f"{number:064x}",))
        yield Put(keys.host(host.name), codec.encode_host(host))
        yield Put(keys.member(name, host.name), codec.encode_member(member))
    for number in range(endpoints):
        each = endpoint(name, number, hosts)
        yield Put(keys.endpoint(name, each.address), codec.encode_endpoint(each))


def fill(store: Store, name: str, vni: int, endpoints: int, hosts: int) -> None:
    """Write it all, a hundred records to a transaction."""
    batch: list[Put] = []
    for record in _records(name, vni, endpoints, hosts):
        batch.append(record)
        if len(batch) == _AT_ONCE:
            store.commit([], batch)
            batch = []
    store.commit([], batch)


if __name__ == "__main__":
    opened = EtcdStore([sys.argv[1]])
    fill(opened, sys.argv[2], *(int(word) for word in sys.argv[3:]))
    opened.close()
