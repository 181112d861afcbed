"""Hosts that share one store, for the tests of the IPAM half: what each engine would ask, and what the store holds."""

from ipaddress import ip_address, ip_network

from spanlan.control.ipam import Ipam, parse_default_pools
from spanlan.model.request import NetworkPool, PoolRequest
from spanlan.store import codec, keys


class Clock:
    """A clock that only the test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def go(self, seconds):
        self.now += seconds


class HostUnderTest:
    """One host's Ipam, asked in the words of the command line."""

    def __init__(self, store, name="h1", default_pools="10.201.0.0/16/24,fd00:201::/48/64", host_networks=()):
        self.name = name
        self.clock = Clock()
        self.networks = [ip_network(text) for text in host_networks]
        self.unsettled = []
        self.ipam = Ipam(
            store,
            host=name,
            default_pools=parse_default_pools(default_pools),
            host_networks=lambda: self.networks,
            clock=self.clock,
            unsettled=self.unsettled.append,
        )

    def pool(self, cidr=None, *, within=None, segment=None, v6=None, **options):
        """RequestPool; the pool is still in its creation phase."""
        network = None if cidr is None else ip_network(cidr)
        if v6 is None:
            v6 = network is not None and network.version == 6
        return self.ipam.request_pool(
            PoolRequest(
                cidr=network,
                within=None if within is None else ip_network(within),
                options=options | ({} if segment is None else {"segment": segment}),
                v6=v6,
            )
        )

    def network(self, cidr=None, *, gateway=None, aux=(), within=None, segment=None, v6=None):
        """A whole ``docker network create``: the pool's id."""
        reply = self.pool(cidr, within=within, segment=segment, v6=v6)
        granted = self.gateway(reply.pool_id, gateway)
        for address in aux:
            self.address(reply.pool_id, address)
        self.created(reply, segment, granted)
        return reply.pool_id

    def created(self, reply, segment=None, gateway=None):
        self.ipam.network_created([NetworkPool(reply.cidr, gateway and ip_address(gateway))], segment)

    def gateway(self, pool_id, address=None):
        return str(self.ipam.request_address(pool_id, address and ip_address(address), gateway=True).ip)

    def address(self, pool_id, address=None):
        return str(self.ipam.request_address(pool_id, address and ip_address(address), gateway=False).ip)

    def release(self, pool_id, *addresses):
        for address in addresses:
            self.ipam.release_address(pool_id, ip_address(address))

    def remove(self, pool_id, *addresses):
        """``docker network rm``: its addresses first, then the pool."""
        self.release(pool_id, *addresses)
        self.ipam.release_pool(pool_id)


def pools_in(store):
    """The pools' records, by key."""
    return {
        entry.key: codec.decode_pool(entry) for entry in store.range(keys.POOLS).entries if entry.key.count("/") == 3
    }


def held_in(store):
    """The addresses in use of all pools, as (space, address), with their records."""
    return {
        (entry.key.split("/")[2], str(held.address)): held
        for entry in store.range(keys.POOLS).entries
        if "/addresses/" in entry.key
        for held in [codec.decode_held_address(entry)]
    }


def left_in(store):
    """Every key of the IPAM half that the store still holds."""
    return [entry.key for entry in store.range(keys.POOL_INDEX).entries]
