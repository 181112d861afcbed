"""The address half (IPAM): pools and addresses, handed out so that no two hosts ever hold one address.

All state that must survive is in the store, changed by compare-and-set alone; a pool id says by itself which pool it
means.  In memory are only hints (what the store said last) and two tables that live for seconds (``phases``): losing
them costs a round trip, never an address.  Nothing here starts a thread, and nothing here knows of networks,
containers or kernels: IPAM requests carry no ids of those.  Why it is so: docs/decisions/0002-addresses.md.
"""

from spanlan.control.ipam.defaults import DEFAULT_POOLS, DefaultPool, parse_default_pools
from spanlan.control.ipam.ipam import Ipam, IpamOptions

__all__ = ["DEFAULT_POOLS", "DefaultPool", "Ipam", "IpamOptions", "parse_default_pools"]
