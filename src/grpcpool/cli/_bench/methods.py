"""The method to call and its request, made from JSON by the types that the server or a ``.proto`` file describes."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, json_format, message_factory  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]

from .._failure import CommandError, UsageError
from .reflected import reflected_pool

_NAME = re.compile(r"/?([A-Za-z_][\w.]*)[/.]([A-Za-z_]\w*)")


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """A method, and what is sent to it.

    Attributes:
        path: As HTTP/2 has it.
        streams: Whether it answers with a stream.
        request: The request, serialized once: what is measured is gRPC.
    """

    path: str
    streams: bool
    request: bytes


def split_name(name: str) -> tuple[str, str]:
    """Service and method of ``package.Service/Method``, with a slash before or a dot between, too.

    Raises:
        UsageError: It is no such name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name!r} is no method: expected package.Service/Method")
    return match[1], match[2]


def describe(name: str, data: str, pool: DescriptorPool, whence: str) -> Method:
    """Finds a method among those described, and makes its request.

    Args:
        name: See `split_name`.
        data: The request as JSON, or ``@`` and the file that has it.
        pool: What is described.
        whence: By whom, for messages.

    Raises:
        CommandError: There is no such method, its requests are a stream, or the data is no request of it.
    """
    service_name, method_name = split_name(name)
    descriptor = _find(service_name, method_name, pool, whence)
    if descriptor.client_streaming:
        raise UsageError(f"{name} takes a stream of requests: only unary and server-streaming methods are measured")
    request = message_factory.GetMessageClass(descriptor.input_type)()
    try:
        json_format.Parse(_text_of(data), request, descriptor_pool=pool)
    except json_format.ParseError as error:
        raise UsageError(f"--data is no {descriptor.input_type.full_name}: {error}") from error
    return Method(f"/{service_name}/{method_name}", descriptor.server_streaming, request.SerializeToString())


def pool_by_reflection(channel: grpc.Channel, name: str, timeout: float) -> DescriptorPool:
    """What the server at the other end of `channel` describes.

    Raises:
        CommandError: It cannot be asked, or serves no reflection.
    """
    service_name, _ = split_name(name)
    try:
        return reflected_pool(channel, service_name, timeout)
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.UNIMPLEMENTED:
            raise CommandError("the server serves no reflection: describe the method with --proto") from error
        raise CommandError(f"the server cannot be asked: {code.name}: {details}") from error


def pool_of_files(files: Sequence[pathlib.Path]) -> DescriptorPool:
    """What ``.proto`` files describe. Their imports are sought beside them and in the working directory.

    Raises:
        CommandError: There is no compiler, or it finds mistakes.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "descriptors")
        roots = dict.fromkeys(["-I.", *(f"-I{file.parent}" for file in files)])
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            *roots,
            "--include_imports",
            f"--descriptor_set_out={out}",
        ]
        done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)  # noqa: S603 -- ours
        if done.returncode != 0:
            raise CommandError(_words_of_compiler(done.stderr))
        described = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = DescriptorPool()
    for file in described.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _words_of_compiler(complaint: str) -> str:
    """What is wrong, by what was said on standard error."""
    last = complaint.strip().rpartition("\n")[2]
    if "grpc_tools" in last and "ModuleNotFoundError" in last:
        return '--proto needs a compiler: pip install "grpcpool[cli]" grpcio-tools'
    if last.startswith("ModuleNotFoundError"):
        # Old releases need what setuptools no longer has.
        return f"the compiler does not run here, a newer grpcio-tools may: {last}"
    return f"the files cannot be compiled: {complaint}"


def _find(service_name: str, method_name: str, pool: DescriptorPool, whence: str) -> MethodDescriptor:
    try:
        service = pool.FindServiceByName(service_name)
    except KeyError as error:
        raise CommandError(f"there is no service {service_name} in {whence}") from error
    found: Any = service.methods_by_name.get(method_name)
    if found is None:
        raise CommandError(f"{service_name} has no method {method_name}, but {', '.join(service.methods_by_name)}")
    return found


def _text_of(data: str) -> str:
    if not data.startswith("@"):
        return data
    try:
        return pathlib.Path(data[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--data {data}: cannot be read: {error}") from error
