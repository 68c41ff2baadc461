"""What a server answers to the methods of each SDK, in the messages of that SDK."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

HOLD = 0.3
"""Seconds that each call takes."""


class Answer(NamedTuple):
    """What a method answers.

    ``unary`` and ``stream`` answer one message after a while. ``endless``, with a stream of requests, answers one at
    once, and then stays open.
    """

    kind: Literal["unary", "stream", "endless"]
    message: bytes


def answers_of(name: str) -> dict[str, Answer]:
    """The answers to an SDK's methods, by their full names."""
    answers: dict[str, Answer] = globals()[f"_{name}"]()
    return answers


def _otlp() -> dict[str, Answer]:
    return {"/opentelemetry.proto.collector.trace.v1.TraceService/Export": Answer("unary", b"")}


def _qdrant() -> dict[str, Answer]:
    from qdrant_client.grpc import CountResponse, CountResult  # noqa: PLC0415 -- only the one that is wanted

    answer = CountResponse(result=CountResult(count=7))
    return {"/qdrant.Points/Count": Answer("unary", answer.SerializeToString())}


def _triton() -> dict[str, Answer]:
    from tritonclient.grpc.service_pb2 import ModelInferResponse  # noqa: PLC0415 -- as above

    answer = ModelInferResponse(model_name="doubler", raw_output_contents=[b"\x0e\x00\x00\x00"])
    answer.outputs.add(name="y", datatype="INT32", shape=[1])
    return {"/inference.GRPCInferenceService/ModelInfer": Answer("unary", answer.SerializeToString())}


def _pubsub() -> dict[str, Answer]:
    from google.pubsub_v1 import PublishResponse, PubsubMessage, ReceivedMessage, StreamingPullResponse  # noqa: PLC0415

    published = PublishResponse(message_ids=["7"])
    received = ReceivedMessage(ack_id="a", message=PubsubMessage(data=b"order", message_id="7"))
    pulled = StreamingPullResponse(received_messages=[received])
    return {
        "/google.pubsub.v1.Publisher/Publish": Answer("unary", _bytes(published)),
        "/google.pubsub.v1.Subscriber/StreamingPull": Answer("endless", _bytes(pulled)),
    }


def _firestore() -> dict[str, Answer]:
    from google.cloud.firestore_v1.types import BatchGetDocumentsResponse, Document, Value  # noqa: PLC0415

    name = "projects/shop/databases/(default)/documents/orders/1"
    found = Document(name=name, fields={"number": Value(integer_value=7)})
    answer = BatchGetDocumentsResponse(found=found, read_time={"seconds": 1})
    return {"/google.firestore.v1.Firestore/BatchGetDocuments": Answer("stream", _bytes(answer))}


def _bytes(message: Any) -> bytes:
    """A message of Google's, in its own wrapper."""
    return bytes(type(message).serialize(message))
