"""Where things stand in the store.  The store puts its own root (``/spanlan/v1`` by default) in front.

    /hosts/HOST                              Host, bound to the host's lease
    /segments/NAME                           Segment
    /segments/NAME/members/HOST              Member
    /segments/NAME/endpoints/ADDRESS         Endpoint
    /vnis/VNI                                name of the segment that holds the VNI
    /pools                                   which pools there are, in all spaces
    /pools/SPACE/CIDR                        the pool and who holds it
    /pools/SPACE/CIDR/cursor/RANGE           where the last address was found
    /pools/SPACE/CIDR/addresses/ADDRESS      who holds the address

ADDRESS is spelled so that it sorts by number (``010.042.000.005``); a CIDR's slash becomes a dash.  SPACE is
``cluster``, or ``segment.NAME`` for the pools that a segment keeps for itself.
"""

from spanlan.model.address import IPAddress, IPNetwork, sortable

HOSTS = "/hosts/"
SEGMENTS = "/segments/"
POOLS = "/pools/"
POOL_INDEX = "/pools"


def host(name: str) -> str:
    """Key of a host's record."""
    return f"{HOSTS}{name}"


def segment(name: str) -> str:
    """Key of a segment's record."""
    return f"{SEGMENTS}{name}"


def members(segment_name: str) -> str:
    """Prefix of a segment's members."""
    return f"{SEGMENTS}{segment_name}/members/"


def member(segment_name: str, host_name: str) -> str:
    """Key of one member of a segment."""
    return f"{members(segment_name)}{host_name}"


def endpoints(segment_name: str) -> str:
    """Prefix of a segment's endpoints."""
    return f"{SEGMENTS}{segment_name}/endpoints/"


def endpoint(segment_name: str, address: IPAddress) -> str:
    """Key of the endpoint that holds ``address`` on a segment."""
    return f"{endpoints(segment_name)}{sortable(address)}"


def vni(number: int) -> str:
    """Key that says which segment holds a VNI."""
    return f"/vnis/{number:08d}"


def space_of(segment_name: str | None) -> str:
    """Name of the address space: the cluster's, or a segment's own."""
    return "cluster" if segment_name is None else f"segment.{segment_name}"


def pools(space: str) -> str:
    """Prefix of all pools of an address space, and of all that belongs to them."""
    return f"{POOLS}{space}/"


def pool(space: str, cidr: IPNetwork) -> str:
    """Key of a pool's record."""
    return f"{pools(space)}{str(cidr).replace('/', '-')}"


def cursor(space: str, cidr: IPNetwork, within: IPNetwork) -> str:
    """Key that says where in ``within`` (the pool, or an ``--ip-range`` of it) the last address was found."""
    return f"{pool(space, cidr)}/cursor/{str(within).replace('/', '-')}"


def addresses(space: str, cidr: IPNetwork) -> str:
    """Prefix of the addresses in use of a pool."""
    return f"{pool(space, cidr)}/addresses/"


def address(space: str, cidr: IPNetwork, which: IPAddress) -> str:
    """Key of one address of a pool."""
    return f"{addresses(space, cidr)}{sortable(which)}"
