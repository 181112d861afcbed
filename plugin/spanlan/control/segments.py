"""Segments in the store: founded by the first host that names them, joined by the others, gone with the last.

Whoever joins or leaves writes the segment's record again, unchanged, so that its revision moves: the last one to leave
sees by that that nobody joined meanwhile, and only then takes the segment away.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from spanlan.control.attempts import attempts
from spanlan.errors import Refuse
from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.cluster import HOSTS_OWN, Endpoint, Member, Segment
from spanlan.store import codec, keys
from spanlan.store.base import Absent, Condition, Delete, DeletePrefix, Entry, Operation, Put, Store, Unchanged

FIRST_VNI = 1_000_000  # above what people number by hand, and above where Swarm's overlay starts (4096)
LAST_VNI = 2**24 - 1
_PAGE = 500


class Segments:
    """The records of segments, their members and endpoints, as this host writes them."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host

    def find(self, name: str) -> tuple[Segment, Entry] | None:
        """A segment and the entry it was read from, or None."""
        entry = self._store.get(keys.segment(name))
        return None if entry is None else (codec.decode_segment(entry), entry)

    def free_vni(self, taken_here: Sequence[int]) -> int:
        """The first VNI that no segment of the cluster and no device of this host (``taken_here``) holds."""
        candidate = FIRST_VNI
        while True:
            page = self._store.range("/vnis/", start=keys.vni(candidate), limit=_PAGE).entries
            held = {int(entry.key.rsplit("/", 1)[1]) for entry in page} | set(taken_here)
            until = LAST_VNI if len(page) < _PAGE else int(page[-1].key.rsplit("/", 1)[1])
            for vni in range(candidate, until + 1):
                if vni not in held:
                    return vni
            if until >= LAST_VNI:
                raise Refuse("no VNI is free any more; remove segments, or name one with -o vni=")
            candidate = until + 1

    def join(  # noqa: PLR0913 - what joining depends on, each by its name
        self,
        name: str,
        network_id: str,
        *,
        found: Callable[[], Segment],
        fits: Callable[[Segment], tuple[IPAddress, ...]],
        pools: Sequence[IPNetwork] = (),
        vni_given: bool = False,
    ) -> Segment:
        """Take part in a segment with one more network, founding the segment if need be.

        ``found`` says what the segment would be, each time with a VNI that was free a moment ago unless the user gave
        one (``vni_given``); ``fits`` refuses one that is there and does not suit this host, or gives the addresses by
        which this host is reached in it.  ``pools`` are the network's subnets.  Raises Refuse if they are not the
        segment's, or if the VNI that was given belongs to another segment.
        """
        for _ in attempts(f"segment {name} is being changed by many hosts at once"):
            there = self.find(name)
            if there is None:
                segment = found()
                conditions: list[Condition] = [Absent(keys.segment(name))]
                founding: list[Operation] = []
                if segment.tunnel is not None:
                    conditions.append(Absent(keys.vni(segment.tunnel.vni)))
                    founding.append(Put(keys.vni(segment.tunnel.vni), codec.to_json({"segment": name})))
            else:
                segment, entry = there
                conditions = [Unchanged(entry.key, entry.revision)]
                founding = []
            underlay = fits(segment)
            segment = _with_pools(segment, pools)
            member_key = keys.member(name, self._host)
            before = self._store.get(member_key)
            networks = () if before is None else codec.decode_member(before).networks
            conditions.append(Absent(member_key) if before is None else Unchanged(member_key, before.revision))
            member = Member(name, self._host, underlay, tuple(sorted({*networks, network_id})))
            done = self._store.commit(
                conditions,
                [
                    *founding,
                    Put(keys.segment(name), codec.encode_segment(segment)),
                    Put(member_key, codec.encode_member(member)),
                ],
            )
            if done.succeeded:
                return segment
            if vni_given and segment.tunnel is not None:
                _refuse_foreign_vni(name, segment.tunnel.vni, done.current.get(keys.vni(segment.tunnel.vni)))
        raise AssertionError("unreachable")

    def leave(self, name: str, network_id: str) -> None:
        """Take one network of this host out of a segment; the last one of the cluster takes the segment along."""
        for _ in attempts(f"segment {name} is being changed by many hosts at once"):
            there = self.find(name)
            member_entry = self._store.get(keys.member(name, self._host))
            if there is None or member_entry is None:
                return
            segment, entry = there
            member = codec.decode_member(member_entry)
            if network_id not in member.networks:
                return
            left = tuple(other for other in member.networks if other != network_id)
            conditions = [Unchanged(entry.key, entry.revision), Unchanged(member_entry.key, member_entry.revision)]
            if left:
                staying = Member(name, self._host, member.underlay, left)
                operations: list[Operation] = [Put(member_entry.key, codec.encode_member(staying))]
            elif len(self._store.range(keys.members(name), limit=2).entries) > 1:
                operations = [Put(entry.key, entry.value), Delete(member_entry.key)]
            else:
                operations = [Delete(entry.key), DeletePrefix(f"{entry.key}/")]
                if segment.tunnel is not None:
                    operations.append(Delete(keys.vni(segment.tunnel.vni)))
            if self._store.commit(conditions, operations).succeeded:
                return

    def restore_member(self, segment: Segment, underlay: tuple[IPAddress, ...], networks: Sequence[str]) -> None:
        """Write this host's part of a segment again after the store has lost it (a restored backup, a slip of hand).

        Raises Refuse if others have made another segment of that name meanwhile, or given its VNI to another one.
        """

        def fits(there: Segment) -> tuple[IPAddress, ...]:
            if replace(there, pools=segment.pools) != segment:  # pools may have been added since it was joined
                raise Refuse(
                    f"segment {segment.name} was made anew by other hosts ({_describe(there)}), and networks here "
                    f"are on the old one ({_describe(segment)}): remove them here with docker network rm and create "
                    "them again"
                )
            return underlay

        for network_id in networks:
            self.join(segment.name, network_id, found=lambda: segment, fits=fits, pools=segment.pools, vni_given=True)

    def claim(self, endpoints: Sequence[Endpoint], takes_over: Callable[[Endpoint], bool]) -> None:
        """Claim the addresses of a container on its segment, all or none.

        ``takes_over`` says of an endpoint that holds one of the addresses whether it is a remnant of this host.
        Raises Refuse that names the holder.
        """
        conditions: list[Condition] = [Absent(keys.endpoint(each.segment, each.address)) for each in endpoints]
        writes = [Put(keys.endpoint(each.segment, each.address), codec.encode_endpoint(each)) for each in endpoints]
        for _ in attempts("the address is being claimed by many hosts at once"):
            done = self._store.commit(conditions, writes)
            if done.succeeded:
                return
            conditions = []
            for each in endpoints:
                key = keys.endpoint(each.segment, each.address)
                entry = done.current.get(key)
                if entry is None:
                    conditions.append(Absent(key))
                    continue
                holder = codec.decode_endpoint(entry)
                if holder != each and not takes_over(holder):
                    raise Refuse(f"address {each.address} on segment {each.segment} is held by {holder}: {_cure(each)}")
                conditions.append(Unchanged(key, entry.revision))

    def endpoint(self, segment: str, address: IPAddress) -> Endpoint | None:
        """The endpoint that holds an address on a segment, or None."""
        entry = self._store.get(keys.endpoint(segment, address))
        return None if entry is None else codec.decode_endpoint(entry)

    def withdraw(self, segment: str, address: IPAddress, endpoint_id: str) -> None:
        """Give an address of this host's endpoint back; left alone if somebody else holds it by now."""
        key = keys.endpoint(segment, address)
        for _ in attempts(f"{key} is being changed by many hosts at once"):
            entry = self._store.get(key)
            if entry is None:
                return
            holder = codec.decode_endpoint(entry)
            if (holder.host, holder.endpoint_id) != (self._host, endpoint_id):  # hosts' own endpoints have one id
                return
            if self._store.commit([Unchanged(key, entry.revision)], [Delete(key)]).succeeded:
                return


def _cure(refused: Endpoint) -> str:
    if refused.endpoint_id.startswith(HOSTS_OWN):
        return "name a free one with -o host_access=ADDRESS"
    return "choose another with --ip, or let the cluster hand out addresses with --ipam-driver spanlan"


def _describe(segment: Segment) -> str:
    if segment.tunnel is None:
        return " ".join(filter(None, (segment.mode, segment.variant)))
    return f"VNI {segment.tunnel.vni}, port {segment.tunnel.port}, MTU {segment.tunnel.mtu}"


def _with_pools(segment: Segment, pools: Sequence[IPNetwork]) -> Segment:
    """The segment with a network's subnets.  Raises Refuse for one that its containers could not be reached in."""
    for pool in pools:
        there = [str(known) for known in segment.pools if known.version == pool.version]
        if there and str(pool) not in there:
            raise Refuse(
                f"subnet {pool}: segment {segment.name} has {', '.join(there)}, and containers of different subnets "
                f"would not reach each other; give --subnet {there[0]}, or take the segment's own with --ipam-driver "
                f"spanlan --ipam-opt segment={segment.name} (the same on every host), or choose another segment"
            )
    return replace(segment, pools=(*segment.pools, *(pool for pool in pools if pool not in segment.pools)))


def _refuse_foreign_vni(name: str, vni: int, entry: Entry | None) -> None:
    if entry is None:
        return
    holder = codec.from_json(entry).get("segment")
    if holder != name:
        raise Refuse(
            f"option vni={vni}: that VNI belongs to segment {holder}; choose another, leave the option out to get a "
            f"free one, or attach to that segment with -o segment={holder}"
        )
