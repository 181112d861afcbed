"""What this host remembers by itself: networks and endpoints by their engine's ids, and what it still owes the store.

dockerd replays nothing: after a restart of either side it goes on using ids that it told us once.  And it swallows the
errors of removals, so that what could not be taken back while the store was away must be remembered here.  The records
are in a store of the host's own (a SQLite file), which is there when the cluster's is not.
"""

import itertools
import threading
from collections.abc import Mapping, Sequence

from spanlan import deadline
from spanlan.control import records_codec
from spanlan.errors import Broken
from spanlan.model.local import LocalEndpoint, Network
from spanlan.store.base import Delete, Operation, Put, Store
from spanlan.store.codec import from_json, to_json

_NETWORKS = "/networks/"
_ENDPOINTS = "/endpoints/"
_DEBTS = "/debts/"

# What is owed: a kind and its arguments, as text that is read again after a restart.
Debt = Mapping[str, str]


class Records:
    """Networks, endpoints and debts of this host; held in memory, and on disk before a method returns."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._networks: dict[str, Network] = {}
        self._endpoints: dict[str, LocalEndpoint] = {}
        self._debts: dict[str, Debt] = {}
        for entry in store.range(_NETWORKS).entries:
            network = records_codec.read_network(from_json(entry))
            self._networks[network.network_id] = network
        for entry in store.range(_ENDPOINTS).entries:
            endpoint = records_codec.read_endpoint(from_json(entry))
            self._endpoints[endpoint.endpoint_id] = endpoint
        for entry in store.range(_DEBTS).entries:
            self._debts[entry.key] = from_json(entry)
        self._debt_numbers = itertools.count(max((int(key.rsplit("/", 1)[1]) for key in self._debts), default=0) + 1)

    def network(self, network_id: str) -> Network | None:
        """The network that the engine knows by this id."""
        with self._lock:
            return self._networks.get(network_id)

    def networks(self) -> list[Network]:
        """All networks of this host."""
        with self._lock:
            return list(self._networks.values())

    def endpoint(self, endpoint_id: str) -> LocalEndpoint | None:
        """The endpoint that the engine knows by this id."""
        with self._lock:
            return self._endpoints.get(endpoint_id)

    def endpoints(self) -> list[LocalEndpoint]:
        """All endpoints of this host."""
        with self._lock:
            return list(self._endpoints.values())

    def debts(self) -> list[tuple[str, Debt]]:
        """What is still owed to the cluster's store, the oldest first, each with the key to settle it by."""
        with self._lock:
            return sorted(self._debts.items())

    def remember_network(self, network: Network) -> None:
        """Write a network down."""
        self._write([Put(f"{_NETWORKS}{network.network_id}", to_json(records_codec.write_network(network)))])
        with self._lock:
            self._networks[network.network_id] = network

    def forget_network(self, network_id: str, owed: Sequence[Debt] = ()) -> None:
        """Forget a network, and in the same step write down what is owed because of that."""
        self._forget(f"{_NETWORKS}{network_id}", owed)
        with self._lock:
            self._networks.pop(network_id, None)

    def remember_endpoint(self, endpoint: LocalEndpoint) -> None:
        """Write an endpoint down."""
        self._write([Put(f"{_ENDPOINTS}{endpoint.endpoint_id}", to_json(records_codec.write_endpoint(endpoint)))])
        with self._lock:
            self._endpoints[endpoint.endpoint_id] = endpoint

    def forget_endpoint(self, endpoint_id: str, owed: Sequence[Debt] = ()) -> None:
        """Forget an endpoint, and in the same step write down what is owed because of that."""
        self._forget(f"{_ENDPOINTS}{endpoint_id}", owed)
        with self._lock:
            self._endpoints.pop(endpoint_id, None)

    def owe(self, debt: Debt) -> None:
        """Write down something that the cluster's store must be told when it is back."""
        self._owe_and([], [debt])

    def settle(self, key: str) -> None:
        """Strike out a debt."""
        self._write([Delete(key)])
        with self._lock:
            self._debts.pop(key, None)

    def _forget(self, key: str, owed: Sequence[Debt]) -> None:
        self._owe_and([Delete(key)], owed)

    def _owe_and(self, operations: list[Operation], owed: Sequence[Debt]) -> None:
        keyed = {f"{_DEBTS}{next(self._debt_numbers):012d}": dict(debt) for debt in owed}
        self._write([*operations, *(Put(key, to_json(debt)) for key, debt in keyed.items())])
        with self._lock:
            self._debts.update(keyed)

    def _write(self, operations: Sequence[Operation]) -> None:
        # A request that ran out of time is undone, and what cannot be undone is owed: both are written here.
        with deadline.lifted():
            written = self._store.commit([], operations).succeeded
        if not written:
            raise Broken("the host's own records could not be written, although nothing stood against it")
