"""What can go wrong between us and etcd, by what the caller can do about it.

EtcdError
 ├── Unreachable     no server answered in time: try again later
 │    └── Untrusted  ... because TLS did not come about: certificates or addresses must be mended
 ├── Rejected        a server answered, and the answer is no
 │    └── Denied     ... because of who we are: user, password, token or permission
 ├── Compacted       the history asked for is gone: list again
 ├── LeaseLost       the lease has ended, and its keys with it
 └── Closed          the client was closed
"""

from collections.abc import Mapping


class EtcdError(Exception):
    """Base of all errors of this client."""


class Unreachable(EtcdError):  # noqa: N818 - named by the state of things, not "...Error"
    """No server answered in time.

    ``reasons`` says of each endpoint that was tried what happened last.  With ``outcome_unknown`` the request was a
    write and may have been carried out: its answer was lost, not necessarily the request.
    """

    def __init__(self, reasons: Mapping[str, str], *, outcome_unknown: bool = False) -> None:
        self.reasons = dict(reasons)
        self.outcome_unknown = outcome_unknown
        super().__init__("; ".join(f"{endpoint}: {reason}" for endpoint, reason in self.reasons.items()))


class Untrusted(Unreachable):
    """No server answered, and at least one failed in TLS: it is up, but one side does not trust the other."""


class Rejected(EtcdError):  # noqa: N818
    """A server answered with an error that asking again would not change.  ``code`` is gRPC's name of it."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{reason} ({code})")


class Denied(Rejected):
    """The server does not let this user in, or not do this."""


class Compacted(EtcdError):  # noqa: N818
    """The revision asked for is compacted; ``revision`` is the oldest there is, or 0 if the server did not say."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        super().__init__(f"the history before revision {revision} has been compacted")


class LeaseLost(EtcdError):  # noqa: N818
    """The lease does not exist any more; nor do the keys that were bound to it."""

    def __init__(self, lease_id: int) -> None:
        self.lease_id = lease_id
        super().__init__(f"lease {lease_id:x} has ended")


class Closed(EtcdError):  # noqa: N818
    """The client was closed while, or before, it was asked."""

    def __init__(self) -> None:
        super().__init__("the etcd client is closed")
