"""etcd, and as much of its API as the tests use: puts, ranges and watches.

The messages are described by hand: the fields of each message are one line, with the numbers of etcd's `rpc.proto` and
`kv.proto`. Readers ignore the fields left out here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

from components.programs import Program, free_port

PUT, RANGE, WATCH = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.Watch/Watch"

_MESSAGES = {
    "KeyValue": "bytes key 1, int64 mod_revision 3, bytes value 5",
    "ResponseHeader": "int64 revision 3",
    "PutRequest": "bytes key 1, bytes value 2",
    "PutResponse": "ResponseHeader header 1",
    "RangeRequest": "bytes key 1, bytes range_end 2",
    "RangeResponse": "ResponseHeader header 1, repeated KeyValue kvs 2, int64 count 4",
    "WatchCreateRequest": "bytes key 1, bytes range_end 2",
    "WatchRequest": "WatchCreateRequest create_request 1",
    "Event": "KeyValue kv 2",
    "WatchResponse": "ResponseHeader header 1, bool created 3, bool canceled 4, repeated Event events 11",
}


def _describe() -> descriptor_pb2.FileDescriptorProto:
    """What `protoc` would generate for the messages."""
    file = descriptor_pb2.FileDescriptorProto(name="tests/etcd.proto", package="etcd", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for field in fields.split(", "):
            *repeated, kind, name, number = field.split()
            label = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
            one = described.field.add(name=name, number=int(number), label=label)
            if kind in _MESSAGES:
                one.type_name = f".etcd.{kind}"
            else:
                one.type = f"TYPE_{kind.upper()}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_describe())


def message(name: str) -> Any:
    """The class of a message."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"etcd.{name}"))


class KeyValueStore:
    """A stub: etcd's methods over any sync or asyncio channel."""

    def __init__(self, channel: Any) -> None:
        """Over `channel`."""
        self.put = _stub(channel.unary_unary, PUT, "Put")
        self.range = _stub(channel.unary_unary, RANGE, "Range")
        self.watch = _stub(channel.stream_stream, WATCH, "Watch")


def _stub(make: Any, method: str, name: str) -> Any:
    return make(
        method,
        request_serializer=message(f"{name}Request").SerializeToString,
        response_deserializer=message(f"{name}Response").FromString,
    )


def put(key: str, value: str) -> Any:
    """A request to put a value under a key."""
    return message("PutRequest")(key=key.encode(), value=value.encode())


def all_under(prefix: str) -> Any:
    """A request for all keys with a prefix."""
    return message("RangeRequest")(key=prefix.encode(), range_end=_after(prefix))


def watch_under(prefix: str) -> Any:
    """A request to watch puts under keys with a prefix; the first answer is `created`."""
    create = message("WatchCreateRequest")(key=prefix.encode(), range_end=_after(prefix))
    return message("WatchRequest")(create_request=create)


def values_of(pairs: Iterable[Any]) -> list[int]:
    """The values of these keys, which are numbers."""
    return [int(pair.value) for pair in pairs]


def _after(prefix: str) -> bytes:
    """The exclusive end of the range of keys with a prefix."""
    return prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1])


class Etcd(Program):
    """One etcd, alone in its cluster; its data survive a restart."""

    name = "etcd"

    def __init__(self) -> None:
        """Does not start it yet."""
        super().__init__()
        self._peer_port = 0

    def command(self) -> list[str]:
        """It elects itself quickly: its clock ticks every 5 ms, not every 100."""
        self._peer_port = free_port()
        clients, peers = f"http://{self.target}", f"http://127.0.0.1:{self._peer_port}"
        return [
            "--data-dir=data",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--heartbeat-interval=5",
            "--election-timeout=50",
            "--logger=zap",
            "--log-level=warn",
        ]

    def wait_until_it_serves(self) -> None:
        """Returns once it answers: it listens before it has elected itself."""
        with grpc.insecure_channel(self.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            KeyValueStore(channel).range(all_under("any"), timeout=20, wait_for_ready=True)
