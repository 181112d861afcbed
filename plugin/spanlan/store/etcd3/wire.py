"""The part of etcd's v3 API that this client speaks, as a table of names and numbers.

The interface is etcd's (Apache-2.0; ``api/etcdserverpb/rpc.proto`` and ``api/mvccpb/kv.proto``); a test compares every
number with it.  The message classes are built here at import, in a descriptor pool of their own: there is no
generated code that ties us to one release of protobuf, and nothing collides with another etcd package in the process.

Classes are reached as attributes of ``messages``: ``messages.PutRequest(key=b"k")``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "spanlan.etcd3"


class EventType(IntEnum):
    """mvccpb.Event.EventType."""

    PUT = 0
    DELETE = 1


class SortOrder(IntEnum):
    """RangeRequest.SortOrder."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """RangeRequest.SortTarget."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class CompareResult(IntEnum):
    """Compare.CompareResult."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(IntEnum):
    """Compare.CompareTarget."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its number and type, whether it is repeated, and the choice (protobuf's oneof) it belongs to."""

    number: int
    type: str | type[IntEnum]
    repeated: bool = False
    choice: str = ""


def _many(number: int, type_: str) -> Field:
    return Field(number, type_, repeated=True)


def _one_of(choice: str, **fields: Field) -> dict[str, Field]:
    return {name: Field(field.number, field.type, choice=choice) for name, field in fields.items()}


_HEADER: Final = {"header": Field(1, "ResponseHeader")}

TABLE: Final[Mapping[str, Mapping[str, Field]]] = {
    # -- what is stored --------------------------------------------------------------------------------------------
    "KeyValue": {
        "key": Field(1, "bytes"),
        "create_revision": Field(2, "int64"),
        "mod_revision": Field(3, "int64"),
        "version": Field(4, "int64"),
        "value": Field(5, "bytes"),
        "lease": Field(6, "int64"),
    },
    "Event": {
        "type": Field(1, EventType),
        "kv": Field(2, "KeyValue"),
        "prev_kv": Field(3, "KeyValue"),
    },
    "ResponseHeader": {
        "cluster_id": Field(1, "uint64"),
        "member_id": Field(2, "uint64"),
        "revision": Field(3, "int64"),
        "raft_term": Field(4, "uint64"),
    },
    # -- service KV ------------------------------------------------------------------------------------------------
    "RangeRequest": {
        "key": Field(1, "bytes"),
        "range_end": Field(2, "bytes"),
        "limit": Field(3, "int64"),
        "revision": Field(4, "int64"),
        "sort_order": Field(5, SortOrder),
        "sort_target": Field(6, SortTarget),
        "serializable": Field(7, "bool"),
        "keys_only": Field(8, "bool"),
        "count_only": Field(9, "bool"),
    },
    "RangeResponse": _HEADER
    | {
        "kvs": _many(2, "KeyValue"),
        "more": Field(3, "bool"),
        "count": Field(4, "int64"),
    },
    "PutRequest": {
        "key": Field(1, "bytes"),
        "value": Field(2, "bytes"),
        "lease": Field(3, "int64"),
        "prev_kv": Field(4, "bool"),
        "ignore_value": Field(5, "bool"),
        "ignore_lease": Field(6, "bool"),
    },
    "PutResponse": _HEADER | {"prev_kv": Field(2, "KeyValue")},
    "DeleteRangeRequest": {
        "key": Field(1, "bytes"),
        "range_end": Field(2, "bytes"),
        "prev_kv": Field(3, "bool"),
    },
    "DeleteRangeResponse": _HEADER
    | {
        "deleted": Field(2, "int64"),
        "prev_kvs": _many(3, "KeyValue"),
    },
    "Compare": {
        "result": Field(1, CompareResult),
        "target": Field(2, CompareTarget),
        "key": Field(3, "bytes"),
        **_one_of(
            "target_union",
            version=Field(4, "int64"),
            create_revision=Field(5, "int64"),
            mod_revision=Field(6, "int64"),
            value=Field(7, "bytes"),
            lease=Field(8, "int64"),
        ),
        "range_end": Field(64, "bytes"),
    },
    "RequestOp": _one_of(
        "request",
        request_range=Field(1, "RangeRequest"),
        request_put=Field(2, "PutRequest"),
        request_delete_range=Field(3, "DeleteRangeRequest"),
        request_txn=Field(4, "TxnRequest"),
    ),
    "ResponseOp": _one_of(
        "response",
        response_range=Field(1, "RangeResponse"),
        response_put=Field(2, "PutResponse"),
        response_delete_range=Field(3, "DeleteRangeResponse"),
        response_txn=Field(4, "TxnResponse"),
    ),
    "TxnRequest": {
        "compare": _many(1, "Compare"),
        "success": _many(2, "RequestOp"),
        "failure": _many(3, "RequestOp"),
    },
    "TxnResponse": _HEADER
    | {
        "succeeded": Field(2, "bool"),
        "responses": _many(3, "ResponseOp"),
    },
    "CompactionRequest": {"revision": Field(1, "int64"), "physical": Field(2, "bool")},
    "CompactionResponse": _HEADER,
    # -- service Watch ---------------------------------------------------------------------------------------------
    "WatchCreateRequest": {
        "key": Field(1, "bytes"),
        "range_end": Field(2, "bytes"),
        "start_revision": Field(3, "int64"),
        "progress_notify": Field(4, "bool"),
        "prev_kv": Field(6, "bool"),
        "fragment": Field(8, "bool"),
    },
    "WatchCancelRequest": {"watch_id": Field(1, "int64")},
    "WatchProgressRequest": {},
    "WatchRequest": _one_of(
        "request_union",
        create_request=Field(1, "WatchCreateRequest"),
        cancel_request=Field(2, "WatchCancelRequest"),
        progress_request=Field(3, "WatchProgressRequest"),
    ),
    "WatchResponse": _HEADER
    | {
        "watch_id": Field(2, "int64"),
        "created": Field(3, "bool"),
        "canceled": Field(4, "bool"),
        "compact_revision": Field(5, "int64"),
        "cancel_reason": Field(6, "string"),
        "fragment": Field(7, "bool"),
        "events": _many(11, "Event"),
    },
    # -- service Lease ---------------------------------------------------------------------------------------------
    "LeaseGrantRequest": {"TTL": Field(1, "int64"), "ID": Field(2, "int64")},
    "LeaseGrantResponse": _HEADER
    | {
        "ID": Field(2, "int64"),
        "TTL": Field(3, "int64"),
        "error": Field(4, "string"),
    },
    "LeaseRevokeRequest": {"ID": Field(1, "int64")},
    "LeaseRevokeResponse": _HEADER,
    "LeaseKeepAliveRequest": {"ID": Field(1, "int64")},
    "LeaseKeepAliveResponse": _HEADER | {"ID": Field(2, "int64"), "TTL": Field(3, "int64")},
    "LeaseTimeToLiveRequest": {"ID": Field(1, "int64"), "keys": Field(2, "bool")},
    "LeaseTimeToLiveResponse": _HEADER
    | {
        "ID": Field(2, "int64"),
        "TTL": Field(3, "int64"),
        "grantedTTL": Field(4, "int64"),
        "keys": _many(5, "bytes"),
    },
    # -- services Auth and Maintenance -----------------------------------------------------------------------------
    "AuthenticateRequest": {"name": Field(1, "string"), "password": Field(2, "string")},
    "AuthenticateResponse": _HEADER | {"token": Field(2, "string")},
    "StatusRequest": {},
    "StatusResponse": _HEADER
    | {
        "version": Field(2, "string"),
        "dbSize": Field(3, "int64"),
        "leader": Field(4, "uint64"),
        "raftIndex": Field(5, "uint64"),
        "raftTerm": Field(6, "uint64"),
    },
}

# Which service each call belongs to.  Request and response are named after the call, but for the shortened ones.
_SERVICES: Final = {
    "KV": ("Range", "Put", "DeleteRange", "Txn", "Compact"),
    "Watch": ("Watch",),
    "Lease": ("LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive"),
    "Auth": ("Authenticate",),
    "Maintenance": ("Status",),
}
_LONG_NAMES: Final = {"Compact": "Compaction"}


@dataclass(frozen=True, slots=True)
class Method:
    """A remote procedure: its HTTP/2 path and the classes of what goes there and comes back."""

    path: str
    request: Any
    response: Any


def _build() -> SimpleNamespace:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3")
    for enumeration in (EventType, SortOrder, SortTarget, CompareResult, CompareTarget):
        listed = file.enum_type.add(name=enumeration.__name__)
        for member in enumeration:
            # the values of one file share one namespace in protobuf
            listed.value.add(name=f"{enumeration.__name__}_{member.name}", number=member.value)
    for message_name, fields in TABLE.items():
        message = file.message_type.add(name=message_name)
        choices = list(dict.fromkeys(field.choice for field in fields.values() if field.choice))
        for choice in choices:
            message.oneof_decl.add(name=choice)
        for name, field in fields.items():
            entry = message.field.add(name=name, number=field.number)
            entry.label = kinds.LABEL_REPEATED if field.repeated else kinds.LABEL_OPTIONAL
            if field.choice:
                entry.oneof_index = choices.index(field.choice)
            if not isinstance(field.type, str):
                entry.type = kinds.TYPE_ENUM
                entry.type_name = f".{PACKAGE}.{field.type.__name__}"
            elif field.type in TABLE:
                entry.type = kinds.TYPE_MESSAGE
                entry.type_name = f".{PACKAGE}.{field.type}"
            else:
                entry.type = kinds.Type.Value(f"TYPE_{field.type.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return SimpleNamespace(
        **{name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in TABLE}
    )


messages: Final = _build()

METHODS: Final[Mapping[str, Method]] = {
    name: Method(
        path=f"/etcdserverpb.{service}/{name}",
        request=getattr(messages, f"{_LONG_NAMES.get(name, name)}Request"),
        response=getattr(messages, f"{_LONG_NAMES.get(name, name)}Response"),
    )
    for service, names in _SERVICES.items()
    for name in names
}
