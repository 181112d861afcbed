"""Leases: keys that vanish when their holder does."""

from spanlan.store.etcd3.calls import Caller
from spanlan.store.etcd3.errors import LeaseLost, Rejected
from spanlan.store.etcd3.wire import messages


class Lease:
    """A lease that was granted.  It ends ``ttl`` seconds after the last ``refresh``."""

    def __init__(self, caller: Caller, lease_id: int, ttl: int) -> None:
        self._caller = caller
        self.id = lease_id
        self.ttl = ttl

    def refresh(self, *, timeout: float | None = None) -> int:
        """Start the time anew and return it in seconds.  Raises LeaseLost if there is nothing left to refresh."""
        # a lost lease is no error to etcd: it answers that there are 0 seconds left
        request = messages.LeaseKeepAliveRequest(ID=self.id)
        left = int(self._caller.call("LeaseKeepAlive", request, timeout=timeout).message.TTL)
        if left <= 0:
            raise LeaseLost(self.id)
        return left

    def remaining(self, *, timeout: float | None = None) -> int:
        """Seconds left.  Raises LeaseLost."""
        request = messages.LeaseTimeToLiveRequest(ID=self.id)
        left = int(self._caller.call("LeaseTimeToLive", request, timeout=timeout).message.TTL)
        if left < 0:
            raise LeaseLost(self.id)
        return left

    def revoke(self, *, timeout: float | None = None) -> None:
        """End it now, and its keys with it.  A lease that has ended is no error."""
        try:
            self._caller.call("LeaseRevoke", messages.LeaseRevokeRequest(ID=self.id), timeout=timeout)
        except Rejected as error:
            if error.code != "NOT_FOUND":
                raise
