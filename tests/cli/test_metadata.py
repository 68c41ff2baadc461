"""`grpcpool bench --metadata`: what is parsed, and that no value is printed."""

from __future__ import annotations

import pytest

from grpcpool.cli._bench.metadata import parse_metadata, without_values
from grpcpool.cli._bench.methods import Method
from grpcpool.cli._bench.result import Plan
from grpcpool.cli._errors import UsageError


def test_metadata() -> None:
    """Names are lower-case; values may contain colons; those of `-bin` names are base64, with padding or without."""
    texts = ["Authorization: Bearer a:b", "x-empty:", "id-bin: AAEC", "short-bin:/w", "padded-bin:/w=="]
    assert parse_metadata(texts) == (
        *(("authorization", "Bearer a:b"), ("x-empty", ""), ("id-bin", b"\0\1\2")),
        *(("short-bin", b"\xff"), ("padded-bin", b"\xff")),
    )
    assert parse_metadata([]) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("secret", "--metadata: number 2 is not valid: expected 'name: value'"),
        (": secret", "--metadata: number 2 is not valid"),
        ("secret name: x", "--metadata: number 2 is not valid"),
        ("token: secret\n", ""),
        ("token: secr\u00e9t", "--metadata token: the value is not printable ASCII"),
        ("token: secret\x00", "--metadata token: the value is not printable ASCII"),
        ("token-bin: secret!", "--metadata token-bin: the value is not valid base64"),
        ("grpc-timeout: secret", "--metadata grpc-timeout: names that begin with grpc- are gRPC's own"),
    ],
)
def test_metadata_that_is_not_valid(text: str, words: str) -> None:
    """The error names the metadata, or its number, and does not contain the value."""
    if not words:
        assert parse_metadata([text]) == (("token", "secret"),)
        return
    with pytest.raises(UsageError) as caught:
        parse_metadata(["a: b", text])
    assert str(caught.value).startswith(words)
    assert "secr" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-H", "token: secret"], ["-H", "token: ..."]),
        (["-Htoken: secret"], ["-Htoken: ..."]),
        (["--metadata=token: secret", "--json"], ["--metadata=token: ...", "--json"]),
        (["--metadata", "token: secret", "-H", "secret"], ["--metadata", "token: ...", "-H", "..."]),
    ],
)
def test_a_command_line_without_values(arguments: list[str], shown: list[str]) -> None:
    """However the option is written, the reported command line has three dots for the value."""
    assert without_values(arguments, ["token: secret", "secret"]) == shown


def test_a_plan_does_not_show_values() -> None:
    """The values are not in its representation."""
    assert "secret" not in repr(Plan(Method("/a/B", False, b""), 1.0, 1.0, 1.0, None, (("token", "secret"),)))
