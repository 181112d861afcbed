"""Addresses that are asked for by number, and the release of all.

An endpoint's address is claimed by a transaction on condition that nobody has it, so no two hosts ever hold one.
Gateways and auxiliary addresses are reservations: nobody gets them for a container, and every host that names one is
one more holder.  Each claim is also conditioned by the pool's record, see ``pools``.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from os.path import commonprefix

from spanlan.control.attempts import attempts
from spanlan.control.ipam import picking
from spanlan.control.ipam.pool_id import PoolId, describe
from spanlan.control.ipam.pools import KnownPool, Pools
from spanlan.errors import Refuse, Retry
from spanlan.model.address import IPAddress, sortable_number
from spanlan.model.pool import AddressKind, HeldAddress, Holder, Release
from spanlan.store import codec, keys
from spanlan.store.base import Absent, Commit, Condition, Delete, Entry, Operation, Put, Store, Unchanged

log = logging.getLogger(__name__)


class Addresses:
    """The addresses of all pools.  ``unsettled`` hears of claims that may or may not have reached the store."""

    def __init__(self, store: Store, pools: Pools, *, unsettled: Callable[[Release], None]) -> None:
        self._store = store
        self._pools = pools
        self._unsettled = unsettled
        # Endpoints' addresses that this process has claimed: what a release means, and one round trip less for it.
        self._claimed: dict[tuple[PoolId, IPAddress], Entry] = {}

    def claim(self, pool_id: PoolId, address: IPAddress) -> None:
        """Hold an address for one endpoint.  Raises Refuse, naming who has it, if anybody does."""
        refuse_unusable(pool_id, address)
        held = self.new_claim(pool_id, address)
        key = keys.address(pool_id.space, pool_id.cidr, address)
        for _ in attempts(f"pool {pool_id.cidr}: its record changed each time {address} was to be claimed"):
            commit = self.commit_claim(pool_id, held)
            if self.is_ours(commit, pool_id, held):
                return
            holder = commit.current[key]
            if holder is not None:
                raise Refuse(_taken(pool_id, codec.decode_held_address(holder), "choose another one"))

    def reserve(self, pool_id: PoolId, address: IPAddress, kind: AddressKind) -> None:
        """Hold a gateway or an auxiliary address, together with whoever reserved it too.

        Raises Refuse if it is an endpoint's, or if one network names it twice.
        """
        refuse_unusable(pool_id, address)
        for attempt in attempts(f"address {address}: other hosts changed it each time it was to be reserved"):
            if self._try_reserve(pool_id, self._pools.held(pool_id), address, kind, again=attempt > 0):
                return

    def gateway(self, pool_id: PoolId) -> IPAddress:
        """Hold the pool's gateway: the one it has, else its first address that is free.

        So every host that names no gateway gets the same one.  Raises Refuse if all addresses are in use.
        """
        for attempt in attempts(f"pool {pool_id.cidr}: other hosts changed it each time its gateway was reserved"):
            known = self._pools.held(pool_id)
            address = known.pool.gateway
            if address is None:
                span = picking.usable(pool_id.cidr)
                free = picking.free(self.read_used(pool_id), span, after=None, count=1)
                if not free:
                    raise Refuse(exhausted(pool_id, span, "gateway"))
                address = type(pool_id.cidr.network_address)(free[0])
            if self._try_reserve(pool_id, known, address, AddressKind.GATEWAY, again=attempt > 0):
                return address
        raise AssertionError

    def new_claim(self, pool_id: PoolId, address: IPAddress, kind: AddressKind = AddressKind.ENDPOINT) -> HeldAddress:
        """The record of an address that this host is about to hold alone."""
        return HeldAddress(address, kind, (self._pools.holder(pool_id),), claim=secrets.token_hex(8))

    def commit_claim(
        self,
        pool_id: PoolId,
        held: HeldAddress,
        conditions: Sequence[Condition] = (),
        operations: Sequence[Operation] = (),
    ) -> Commit:
        """Try to write a claim of an address that nobody has, together with ``operations``."""
        key = keys.address(pool_id.space, pool_id.cidr, held.address)
        known = self._pools.held(pool_id)
        commit = self._commit(
            pool_id,
            held,
            [known.condition, Absent(key), *conditions],
            [Put(key, codec.encode_held_address(held)), *operations],
        )
        self._pools.learn(commit.current, pool_id)
        return commit

    def is_ours(self, commit: Commit, pool_id: PoolId, held: HeldAddress) -> bool:
        """Whether the claim is written: by this commit, or by an earlier sending of it whose answer was lost."""
        key = keys.address(pool_id.space, pool_id.cidr, held.address)
        value = codec.encode_held_address(held)
        entry = Entry(key, value, commit.revision) if commit.succeeded else commit.current[key]
        if entry is None or entry.value != value:
            return False
        self._claimed[pool_id, held.address] = entry
        return True

    def read_used(self, pool_id: PoolId) -> picking.ReadUsed:
        """How to read which addresses of the pool are in use."""
        prefix = keys.addresses(pool_id.space, pool_id.cidr)
        family = type(pool_id.cidr.network_address)

        def read(start: int, end: int, limit: int) -> list[int]:
            first = keys.address(pool_id.space, pool_id.cidr, family(start))
            last = keys.address(pool_id.space, pool_id.cidr, family(end))
            shared = commonprefix([first, last])  # noqa: RUF071 - by character, as a key's prefix is
            entries = self._store.range(shared, start=first, limit=limit).entries
            return [sortable_number(entry.key.removeprefix(prefix)) for entry in entries if entry.key <= last]

        return read

    # -- release ----------------------------------------------------------------------------------------------------

    def prepare_release(self, pool_id: PoolId, address: IPAddress) -> Release:
        """What a release that is asked for now means, for the time when it is carried out.  Reads no store."""
        entry = self._claimed.get((pool_id, address))
        claim = None if entry is None else codec.decode_held_address(entry).claim
        return Release(str(pool_id), address, claim)

    def release(self, pool_id: PoolId, address: IPAddress, claim: str | None) -> None:
        """Give an address up.  What is not held, or held by another claim than the one meant, is left alone."""
        entry = self._claimed.get((pool_id, address))
        if entry is not None and codec.decode_held_address(entry).claim != claim:
            log.info("address %s of pool %s was claimed again since its release was asked for", address, pool_id)
            return
        key = keys.address(pool_id.space, pool_id.cidr, address)
        entry = entry or self._store.get(key)
        for _ in attempts(f"address {address}: other hosts changed it each time it was to be released"):
            commit = self._try_release(pool_id, entry, claim)
            if commit is None or commit.succeeded:
                break
            entry = commit.current[key]
            self._pools.learn(commit.current, pool_id)
        self._claimed.pop((pool_id, address), None)

    def release_all(self, pool_id: PoolId) -> None:
        """Give up whatever this hold on the pool still holds in it: its releases were lost on the way to us."""
        if self._pools.holder(pool_id) not in self._holders(pool_id):
            return
        for entry in self._pools.addresses(pool_id.space, pool_id.cidr):
            if pool_id.nonce.encode() in entry.value:
                held = codec.decode_held_address(entry)
                log.info("address %s of pool %s was never released", held.address, pool_id)
                self._claimed.pop((pool_id, held.address), None)
                self.release(pool_id, held.address, held.claim)

    def _holders(self, pool_id: PoolId) -> tuple[Holder, ...]:
        known = self._pools.read(pool_id.space, pool_id.cidr)
        return () if known is None else known.pool.holders

    def _try_release(self, pool_id: PoolId, entry: Entry | None, claim: str | None) -> Commit | None:
        """Take our hold out of the record; None if there is none that is meant."""
        held = None if entry is None else codec.decode_held_address(entry)
        holder = self._pools.holder(pool_id)
        if entry is None or held is None or holder not in held.holders or claim not in {None, held.claim}:
            log.info("pool %s: nothing left to release of %s", pool_id, held)
            return None
        conditions: list[Condition] = [Unchanged(entry.key, entry.revision)]
        operations: list[Operation] = []
        others = tuple(one for one in held.holders if one != holder)
        if others:
            operations.append(Put(entry.key, codec.encode_held_address(replace(held, holders=others))))
            return self._store.commit(conditions, operations)
        operations.append(Delete(entry.key))
        known = self._pools.read(pool_id.space, pool_id.cidr) if held.kind is AddressKind.GATEWAY else None
        if known is None or known.pool.gateway != held.address:
            return self._store.commit(conditions, operations)
        return self._commit_gateway(known, None, conditions, operations)

    # -- reservations -----------------------------------------------------------------------------------------------

    def _try_reserve(
        self, pool_id: PoolId, known: KnownPool, address: IPAddress, kind: AddressKind, *, again: bool
    ) -> bool:
        """Reserve an address; False if something changed meanwhile.  ``again``: an attempt before has lost."""
        key = keys.address(pool_id.space, pool_id.cidr, address)
        entry = self._store.get(key)
        if entry is None:
            held = self.new_claim(pool_id, address, kind)
            condition: Condition = Absent(key)
        else:
            present = codec.decode_held_address(entry)
            holder = self._pools.holder(pool_id)
            if present.kind is AddressKind.ENDPOINT:
                raise Refuse(_taken(pool_id, present, f"choose another {kind} address, or stop that container first"))
            if holder in present.holders:
                if again or kind is present.kind is AddressKind.GATEWAY:
                    return True
                raise Refuse(f"address {address} is named twice for one network, as {present.kind} and {kind}")
            # Once it is somebody's gateway it is offered to hosts that name none, so that kind stays.
            shared = kind if kind is AddressKind.GATEWAY else present.kind
            held = replace(present, kind=shared, holders=(*present.holders, holder))
            condition = Unchanged(key, entry.revision)
        conditions = [condition, known.condition]
        operations: list[Operation] = [Put(key, codec.encode_held_address(held))]
        try:
            if kind is AddressKind.GATEWAY and known.pool.gateway is None:
                commit = self._commit_gateway(known, address, [condition], operations)
            else:
                commit = self._store.commit(conditions, operations)
        except Retry:
            self._unsettled(Release(str(pool_id), address, held.claim))
            raise
        self._pools.learn(commit.current, pool_id)
        return commit.succeeded

    def _commit_gateway(
        self,
        known: KnownPool,
        gateway: IPAddress | None,
        conditions: Sequence[Condition],
        operations: Sequence[Operation],
    ) -> Commit:
        pool = replace(known.pool, gateway=gateway)
        commit = self._store.commit(
            [*conditions, known.condition], [*operations, Put(known.key, codec.encode_pool(pool))]
        )
        if commit.succeeded:
            self._pools.changed(pool, commit.revision)
        return commit

    def _commit(
        self, pool_id: PoolId, held: HeldAddress, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> Commit:
        try:
            return self._store.commit(conditions, operations)
        except Retry:
            self._unsettled(Release(str(pool_id), held.address, held.claim))
            raise


def refuse_unusable(pool_id: PoolId, address: IPAddress) -> None:
    """Raise Refuse if no host can hold the address in this pool."""
    cidr = pool_id.cidr
    if address not in cidr:
        raise Refuse(f"address {address} is not in pool {cidr}; choose one that is")
    if int(address) not in picking.usable(cidr):
        what = "network" if address == cidr.network_address else "broadcast"
        raise Refuse(f"address {address} is the {what} address of pool {cidr}; choose another one")


def exhausted(pool_id: PoolId, span: picking.Span, use: str) -> str:
    """The message for a pool that is full."""
    where = f"pool {pool_id.cidr} of {describe(pool_id.space)}"
    if pool_id.range != pool_id.cidr and use != "gateway":
        where = f"range {pool_id.range} of {where}"
    cure = "a larger --ip-range" if pool_id.range != pool_id.cidr else "a larger --subnet"
    return (
        f"no address left for {'a' if use == 'gateway' else 'an'} {use}: all {span.size} of {where} are in use; "
        f"remove containers that are not needed, or create the network again with {cure}"
    )


def _taken(pool_id: PoolId, held: HeldAddress, cure: str) -> str:
    hosts = sorted({holder.host for holder in held.holders})
    where = f"host{'s' if len(hosts) > 1 else ''} {', '.join(hosts)}"
    use = {
        AddressKind.ENDPOINT: f"is held by an endpoint on {where}",
        AddressKind.GATEWAY: f"is reserved as gateway by {where}",
        AddressKind.AUXILIARY: f"is reserved as auxiliary address by {where}",
    }[held.kind]
    return f"address {held.address} of pool {pool_id.cidr} of {describe(pool_id.space)} {use}; {cure}"
