"""The id by which dockerd names a pool: ``SPACE|CIDR|RANGE|NONCE``, for instance ``cluster|10.42.0.0/16|-|8c51…``.

It says all that is needed to serve a request, so nothing has to be remembered across a restart, and it is readable in
dockerd's log.  The nonce makes it unique per RequestPool: two networks of one host on one pool release each their own
hold.  An id comes back from outside and is checked like any other input.
"""

import secrets
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Self

from spanlan import options
from spanlan.errors import Refuse
from spanlan.model.address import IPNetwork, lies_in
from spanlan.store import keys

_SEPARATOR = "|"
_NO_RANGE = "-"
_NONCE_LENGTH = 16
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class PoolId:
    """One hold on a pool.  ``within``: the ``--ip-range`` from which addresses are picked, if one was given."""

    space: str
    cidr: IPNetwork
    within: IPNetwork | None
    nonce: str

    @classmethod
    def new(cls, space: str, cidr: IPNetwork, within: IPNetwork | None = None) -> Self:
        """A new hold, with a nonce of its own."""
        return cls(space, cidr, within, secrets.token_hex(_NONCE_LENGTH // 2))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id back.  Raises Refuse, naming it, for anything that :meth:`new` cannot have made."""
        try:
            space, cidr, within, nonce = text.split(_SEPARATOR)
            pool_id = cls(
                space=_space(space),
                cidr=ip_network(cidr),
                within=None if within == _NO_RANGE else ip_network(within),
                nonce=nonce,
            )
            if len(nonce) != _NONCE_LENGTH or set(nonce) - set("0123456789abcdef"):
                raise ValueError("nonce")  # noqa: TRY301 - all that is wrong ends in one message
            if pool_id.within is not None and not lies_in(pool_id.within, pool_id.cidr):
                raise ValueError("range")  # noqa: TRY301
        except ValueError as error:
            raise Refuse(
                f"pool id {text[:_SHOWN]!r} was not given out by spanlan; remove the network and create it again"
            ) from error
        return pool_id

    @property
    def range(self) -> IPNetwork:
        """Where addresses are picked: the ``--ip-range``, or the whole pool."""
        return self.cidr if self.within is None else self.within

    def __str__(self) -> str:
        within = _NO_RANGE if self.within is None else str(self.within)
        return _SEPARATOR.join((self.space, str(self.cidr), within, self.nonce))


def segment_of(space: str) -> str | None:
    """The segment that an address space belongs to, None for the cluster's."""
    prefix = keys.space_of("")
    return space.removeprefix(prefix) if space.startswith(prefix) else None


def describe(space: str) -> str:
    """An address space in words, for messages."""
    segment = segment_of(space)
    return "the cluster" if segment is None else f"segment {segment}"


def _space(text: str) -> str:
    if text != keys.space_of(None):
        segment = segment_of(text)
        if segment is None:
            raise ValueError("an address space")
        options.name(segment)
    return text
