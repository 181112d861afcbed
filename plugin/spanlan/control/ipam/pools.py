"""The pools that are in use, and who holds them.

A pool's record lists its holders; the record of all pools, the *index*, is what makes creation safe between hosts: each
new pool rewrites it on condition that nobody else did, so of two pools that overlap exactly one comes to be.  Joining a
pool that exists touches only the pool's own record.

Every claim of an address is conditioned by the pool's record (:class:`KnownPool`), so none can land in a pool that its
last holder is just removing.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from spanlan.control.attempts import attempts
from spanlan.control.ipam.pool_id import PoolId, describe
from spanlan.errors import Refuse
from spanlan.model.address import IPNetwork, overlaps
from spanlan.model.pool import AddressKind, Holder, Pool
from spanlan.store import codec, keys
from spanlan.store.base import Absent, Condition, Delete, DeletePrefix, Entry, Operation, Put, Store, Unchanged

log = logging.getLogger(__name__)

_PAGE = 2000


@dataclass(frozen=True, slots=True)
class KnownPool:
    """A pool as the store held it at ``revision``."""

    pool: Pool
    revision: int

    @property
    def key(self) -> str:
        """Where its record stands."""
        return keys.pool(self.pool.space, self.pool.cidr)

    @property
    def condition(self) -> Condition:
        """That its record is still the same."""
        return Unchanged(self.key, self.revision)


@dataclass(frozen=True, slots=True)
class Index:
    """Which pools there are, by address space, as the store held it in ``entry``."""

    pools: Mapping[str, tuple[IPNetwork, ...]]
    entry: Entry | None

    @property
    def all(self) -> list[IPNetwork]:
        """The pools of all spaces."""
        return [cidr for cidrs in self.pools.values() for cidr in cidrs]

    def of(self, space: str) -> tuple[IPNetwork, ...]:
        """The pools of one space."""
        return self.pools.get(space, ())

    @property
    def condition(self) -> Condition:
        """That no pool came or went since."""
        return Absent(keys.POOL_INDEX) if self.entry is None else Unchanged(keys.POOL_INDEX, self.entry.revision)

    def with_pool(self, space: str, cidr: IPNetwork) -> Operation:
        """Write it with one pool more."""
        present = [one for one in self.of(space) if one != cidr]
        return Put(keys.POOL_INDEX, codec.encode_pool_index({**self.pools, space: [*present, cidr]}))

    def without_pool(self, space: str, cidr: IPNetwork) -> Operation:
        """Write it with one pool less; it vanishes with the last."""
        fewer = {**self.pools, space: tuple(one for one in self.of(space) if one != cidr)}
        left = {one: cidrs for one, cidrs in fewer.items() if cidrs}
        return Put(keys.POOL_INDEX, codec.encode_pool_index(left)) if left else Delete(keys.POOL_INDEX)


class Pools:
    """The pools of the cluster, as this host takes part in them."""

    def __init__(self, store: Store, *, host: str) -> None:
        self._store = store
        self._host = host
        self._known: dict[str, KnownPool] = {}

    def holder(self, pool_id: PoolId) -> Holder:
        """How this host's hold is written down."""
        return Holder(self._host, pool_id.nonce)

    def index(self) -> Index:
        """All pools there are."""
        entry = self._store.get(keys.POOL_INDEX)
        return Index({} if entry is None else codec.decode_pool_index(entry), entry)

    def read(self, space: str, cidr: IPNetwork) -> KnownPool | None:
        """A pool as it is now."""
        return self._note(keys.pool(space, cidr), self._store.get(keys.pool(space, cidr)))

    def join(self, pool_id: PoolId) -> KnownPool:
        """Hold the pool: as one more holder, or as the first.

        Raises Refuse if it is new and overlaps another pool of its address space.
        """
        known = self.read(pool_id.space, pool_id.cidr)
        for _ in attempts(f"pool {pool_id.cidr}: other hosts changed it each time it was to be joined"):
            if known is not None:
                joined = self.try_join(pool_id, known)
            else:
                index = self.index()
                refuse_overlap(pool_id, index.of(pool_id.space))
                joined = self.create(pool_id, index)
            if joined is not None:
                return joined
            # As the commit that lost has found it: no need to read it again.
            known = self._known.get(keys.pool(pool_id.space, pool_id.cidr))
        raise AssertionError

    def try_join(self, pool_id: PoolId, known: KnownPool) -> KnownPool | None:
        """Hold a pool that exists; None if its record has changed meanwhile."""
        holder = self.holder(pool_id)
        if holder in known.pool.holders:
            return known
        _, now = self._rewrite(known, replace(known.pool, holders=(*known.pool.holders, holder)))
        # Ours also where the commit counts as lost: its answer was, and others have rewritten the record since.
        return now if now is not None and holder in now.pool.holders else None

    def create(self, pool_id: PoolId, index: Index) -> KnownPool | None:
        """Make a new pool, held by this host; None if any pool came or went since ``index`` was read."""
        holder = self.holder(pool_id)
        pool = Pool(pool_id.space, pool_id.cidr, (holder,))
        key, value = keys.pool(pool.space, pool.cidr), codec.encode_pool(pool)
        commit = self._store.commit(
            [Absent(key), index.condition], [Put(key, value), index.with_pool(pool.space, pool.cidr)]
        )
        now = self._note(key, Entry(key, value, commit.revision) if commit.succeeded else commit.current[key])
        return now if now is not None and holder in now.pool.holders else None

    def held(self, pool_id: PoolId) -> KnownPool:
        """The pool that ``pool_id`` holds, as last seen: whoever changes something conditions it by this.

        A store that lost the pool (restored from an old copy, the host forgotten by hand) learns of it anew here: the
        request is the proof that this host's engine has a network on it.
        """
        key = keys.pool(pool_id.space, pool_id.cidr)
        holder = self.holder(pool_id)
        known = self._known.get(key)
        if known is None or holder not in known.pool.holders:
            known = self.read(pool_id.space, pool_id.cidr)
        if known is None or holder not in known.pool.holders:
            log.warning("pool %s of %s is in use here, but the store did not know", pool_id.cidr, pool_id.space)
            known = self.join(pool_id)
        return known

    def learn(self, current: Mapping[str, Entry | None], pool_id: PoolId) -> None:
        """Take note of the pool's record as a commit that lost a race found it."""
        key = keys.pool(pool_id.space, pool_id.cidr)
        if key in current:
            self._note(key, current[key])

    def changed(self, pool: Pool, revision: int) -> None:
        """Take note that a commit of ours has written ``pool``."""
        known = KnownPool(pool, revision)
        self._known[known.key] = known

    def addresses(self, space: str, cidr: IPNetwork) -> Iterator[Entry]:
        """The addresses in use of a pool, in order, read page by page."""
        prefix = start = keys.addresses(space, cidr)
        while page := self._store.range(prefix, start=start, limit=_PAGE).entries:
            yield from page
            # The next key there can be: a blank sorts before all that an address is spelled with.
            start = f"{page[-1].key} "

    def release(self, pool_id: PoolId) -> None:
        """Give the hold up; with the last one the pool goes, and its cursors.  May be repeated.

        The addresses that it held were released before.
        """
        holder = self.holder(pool_id)
        for _ in attempts(f"pool {pool_id.cidr}: other hosts changed it each time it was to be released"):
            known = self.read(pool_id.space, pool_id.cidr)
            if known is None or holder not in known.pool.holders:
                log.info("pool %s: nothing left to release", pool_id)
                return
            others = tuple(one for one in known.pool.holders if one != holder) or self._with_endpoints(known, holder)
            if others:
                done, _ = self._rewrite(known, replace(known.pool, holders=others))
            else:
                done = self._remove(known)
            if done:
                return

    def _remove(self, known: KnownPool) -> bool:
        space, cidr = known.pool.space, known.pool.cidr
        index = self.index()
        commit = self._store.commit(
            [known.condition, index.condition],
            [Delete(known.key), DeletePrefix(f"{known.key}/"), index.without_pool(space, cidr)],
        )
        if commit.succeeded:
            self._known.pop(known.key, None)
        return commit.succeeded

    def _with_endpoints(self, known: KnownPool, but: Holder) -> tuple[Holder, ...]:
        """Who has endpoints in a pool that it does not hold: a host that was forgotten by mistake, if anybody.

        Its containers run.  It becomes a holder again, rather than lose their addresses to others.
        """
        found = {
            holder: None
            for held in map(codec.decode_held_address, self.addresses(known.pool.space, known.pool.cidr))
            if held.kind is AddressKind.ENDPOINT
            for holder in held.holders
        }
        return tuple(holder for holder in found if holder != but)

    def _rewrite(self, known: KnownPool, pool: Pool) -> tuple[bool, KnownPool | None]:
        """Write a pool's record if nobody else did: whether that was so, and the record as it is now."""
        value = codec.encode_pool(pool)
        commit = self._store.commit([known.condition], [Put(known.key, value)])
        now = Entry(known.key, value, commit.revision) if commit.succeeded else commit.current[known.key]
        return commit.succeeded, self._note(known.key, now)

    def _note(self, key: str, entry: Entry | None) -> KnownPool | None:
        if entry is None:
            self._known.pop(key, None)
            return None
        known = self._known.get(key)
        if known is None or known.revision != entry.revision:
            known = self._known[key] = KnownPool(codec.decode_pool(entry), entry.revision)
        return known


def refuse_overlap(pool_id: PoolId, pools: Collection[IPNetwork]) -> None:
    """Raise Refuse if the pool shares addresses with another pool of its space."""
    for other in pools:
        if other != pool_id.cidr and overlaps(other, pool_id.cidr):
            raise Refuse(
                f"subnet {pool_id.cidr} overlaps {other}, which is a pool of {describe(pool_id.space)} already; "
                f"choose a subnet beside it, or --subnet {other} with an --ip-range of it, or give the segment "
                "an address space of its own with --ipam-opt segment=NAME"
            )
