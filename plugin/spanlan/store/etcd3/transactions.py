"""Comparisons and operations, the parts of a transaction.  Each is a wire message, made here and read by the server."""

from typing import Any, Final

from spanlan.store.etcd3.wire import CompareResult, CompareTarget, messages

LARGEST: Final = 128
"""How many comparisons, and operations of a branch, etcd takes in one transaction (its ``--max-txn-ops``)."""

_RELATIONS: Final = {
    "==": CompareResult.EQUAL,
    ">": CompareResult.GREATER,
    "<": CompareResult.LESS,
    "!=": CompareResult.NOT_EQUAL,
}
_TARGETS: Final = {
    "version": CompareTarget.VERSION,
    "create_revision": CompareTarget.CREATE,
    "mod_revision": CompareTarget.MOD,
    "value": CompareTarget.VALUE,
    "lease": CompareTarget.LEASE,
}


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys that start with ``prefix``; a zero byte (etcd's "no end") if there is none.

    Bytes of 0xff cannot be counted up, so they are cut off before the last byte is.
    """
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return b"\0"
    return stem[:-1] + bytes((stem[-1] + 1,))


def compare(key: bytes, target: str, relation: str, operand: int | bytes) -> Any:
    """A comparison such as ``compare(key, "version", ">", 0)``.

    ``target``: version, create_revision, mod_revision, value or lease; ``relation``: ``==``, ``!=``, ``<`` or ``>``.
    """
    return messages.Compare(key=key, target=_TARGETS[target], result=_RELATIONS[relation], **{target: operand})


def absent(key: bytes) -> Any:
    """Holds if the key does not exist."""
    return compare(key, "create_revision", "==", 0)


def unchanged(key: bytes, mod_revision: int) -> Any:
    """Holds if the key exists and was last written at ``mod_revision``."""
    return compare(key, "mod_revision", "==", mod_revision)


def put(key: bytes, value: bytes, *, lease: int = 0) -> Any:
    """Write a key; ``lease`` is the id of one."""
    return messages.RequestOp(request_put=messages.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes) -> Any:
    """Delete a key."""
    return messages.RequestOp(request_delete_range=messages.DeleteRangeRequest(key=key))


def delete_prefix(prefix: bytes) -> Any:
    """Delete all keys that start with ``prefix``."""
    request = messages.DeleteRangeRequest(key=prefix or b"\0", range_end=prefix_end(prefix))
    return messages.RequestOp(request_delete_range=request)


def get(key: bytes) -> Any:
    """Read a key."""
    return messages.RequestOp(request_range=messages.RangeRequest(key=key))
