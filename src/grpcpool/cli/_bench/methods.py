"""The method to call, and its request: built from JSON with the types from server reflection or a ``.proto`` file."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, json_format, message_factory  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from .._deadline import Deadline
from .._errors import CommandError, UsageError
from .metadata import Metadata
from .reflection import reflected_pool

_NAME = re.compile(r"/?([A-Za-z_][\w.]*)[/.]([A-Za-z_]\w*)")


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """A method and the request to send.

    Attributes:
        path: The path of the HTTP/2 request.
        streams: Whether it returns a stream.
        request: The request, serialized once, so that gRPC is measured and not protobuf.
    """

    path: str
    streams: bool
    request: bytes


def split_name(name: str) -> tuple[str, str]:
    """Splits ``package.Service/Method``, which may begin with a slash or have a dot in its place.

    Raises:
        UsageError: The name is not valid.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name!r} is not a valid method: expected package.Service/Method")
    return match[1], match[2]


def describe(name: str, data: str, pool: DescriptorPool, source: str) -> Method:
    """Finds a method's description, and builds its request.

    Args:
        name: See `split_name`.
        data: The request as JSON, or ``@`` and the path of a file that contains it.
        pool: The descriptions.
        source: Where they are from, for error messages.

    Raises:
        CommandError: The method does not exist, is client-streaming, or `data` does not fit its request type.
    """
    service_name, method_name = split_name(name)
    descriptor = _find(service_name, method_name, pool, source)
    if descriptor.client_streaming:
        raise UsageError(f"{name} is client-streaming: only unary and server-streaming methods can be measured")
    request = message_factory.GetMessageClass(descriptor.input_type)()
    try:
        json_format.Parse(_read_data(data), request, descriptor_pool=pool)
        serialized = request.SerializeToString()
    except (json_format.ParseError, EncodeError) as error:
        raise UsageError(f"--data is not a valid {descriptor.input_type.full_name}: {error}") from error
    return Method(f"/{service_name}/{method_name}", descriptor.server_streaming, serialized)


def describe_by_reflection(
    channel: grpc.Channel, name: str, data: str, timeout: float, metadata: Metadata = ()
) -> Method:
    """Same as `describe`, with the descriptions that the server provides by reflection, within `timeout` seconds.

    The metadata is sent with each call.

    Raises:
        CommandError: As for `describe`; or the server is unreachable, does not support reflection, or describes
            something that is not valid.
    """
    service_name, _ = split_name(name)
    try:
        with warnings.catch_warnings():
            # protobuf warns of conflicting descriptions, and quotes the server.
            warnings.simplefilter("ignore")
            pool, services = reflected_pool(channel, service_name, Deadline(timeout), metadata)
            return describe(name, data, pool, f"the server's reflection, which has: {', '.join(services)}")
    except CommandError:
        raise
    except grpc.RpcError as error:
        code = error.code()
        if code is grpc.StatusCode.UNIMPLEMENTED:
            raise CommandError("the server does not support reflection: describe the method with --proto") from error
        raise CommandError(f"reflection failed: {explain(error, code.name)}") from error
    except Exception as error:  # protobuf and the client raise many kinds for what a server may send
        raise CommandError(f"the server's reflection is not valid: {type(error).__name__}: {error}") from error


def explain(error: grpc.RpcError, name: str) -> str:
    """Says how a call failed: the name of its failure, gRPC's details and, if there is no connection, what to try."""
    details = f": {error.details()}" if error.details() else ""
    more = "; try grpcpool probe" if error.code() is grpc.StatusCode.UNAVAILABLE else ""
    return f"{name}{details}{more}"


def pool_of_files(files: Sequence[pathlib.Path]) -> DescriptorPool:
    """Returns the descriptions in ``.proto`` files. Imports are resolved next to them and in the working directory.

    Raises:
        CommandError: The compiler is not installed, or reports errors.
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
            raise CommandError(_describe_compiler_error(done.stderr))
        described = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = DescriptorPool()
    for file in described.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _describe_compiler_error(stderr: str) -> str:
    """Describes the error by the compiler's standard error."""
    last = stderr.strip().rpartition("\n")[2]
    if "grpc_tools" in last and "ModuleNotFoundError" in last:
        return '--proto needs the protobuf compiler: pip install "grpcpool[cli]" grpcio-tools'
    if last.startswith("ModuleNotFoundError"):
        # Old releases of grpcio-tools import a module that setuptools has removed.
        return f"the protobuf compiler does not run, try a newer grpcio-tools: {last}"
    return f"cannot compile the .proto files: {stderr}"


def _find(service_name: str, method_name: str, pool: DescriptorPool, source: str) -> MethodDescriptor:
    try:
        service = pool.FindServiceByName(service_name)
    except KeyError as error:
        raise CommandError(f"service {service_name} not found in {source}") from error
    found: Any = service.methods_by_name.get(method_name)
    if found is None:
        raise CommandError(f"{service_name} has no method {method_name}; it has: {', '.join(service.methods_by_name)}")
    return found


def _read_data(data: str) -> str:
    if not data.startswith("@"):
        return data
    try:
        return pathlib.Path(data[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--data: cannot read {data[1:]}: {error}") from error
