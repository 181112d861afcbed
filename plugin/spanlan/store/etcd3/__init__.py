"""A synchronous etcd v3 client, complete for what a daemon needs of a cluster's memory, and nothing more.

It stands alone: grpc and protobuf, no generated code, nothing of spanlan.  What sets it apart is what happens when
servers fail: every call is bounded and moves on to the next endpoint, a watch resumes where it stopped and says when
it is cut off, a token is renewed, and a write whose answer was lost is reported as exactly that.

    client = Client(["h1:2379", "h2:2379"], ca=pem, user="spanlan", password=secret)
    client.put(b"/key", b"value", lease=client.lease(10))
    for happening in client.watch_prefix(b"/"): ...

Make the client after ``os.fork``, never before: gRPC's threads are not in the child.  Under gevent, call
``grpc.experimental.gevent.init_gevent()`` first.  Members, users and roles are the business of etcdctl.
"""

from spanlan.store.etcd3.client import Client
from spanlan.store.etcd3.errors import (
    Closed,
    Compacted,
    Denied,
    EtcdError,
    LeaseLost,
    Rejected,
    Unreachable,
    Untrusted,
)
from spanlan.store.etcd3.leases import Lease
from spanlan.store.etcd3.transactions import (
    absent,
    compare,
    delete,
    delete_prefix,
    get,
    prefix_end,
    put,
    unchanged,
)
from spanlan.store.etcd3.values import (
    Connected,
    Disconnected,
    Event,
    Events,
    Happening,
    KeyValue,
    Listing,
    Progress,
    Transacted,
)
from spanlan.store.etcd3.watching import Watcher
from spanlan.store.etcd3.wire import EventType

__all__ = [
    "Client",
    "Closed",
    "Compacted",
    "Connected",
    "Denied",
    "Disconnected",
    "EtcdError",
    "Event",
    "EventType",
    "Events",
    "Happening",
    "KeyValue",
    "Lease",
    "LeaseLost",
    "Listing",
    "Progress",
    "Rejected",
    "Transacted",
    "Unreachable",
    "Untrusted",
    "Watcher",
    "absent",
    "compare",
    "delete",
    "delete_prefix",
    "get",
    "prefix_end",
    "put",
    "unchanged",
]
