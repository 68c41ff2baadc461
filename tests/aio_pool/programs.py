"""Separate programs, for tests that affect the whole process or that check what happens when it ends."""

from __future__ import annotations

import textwrap

from grpcpool._grpc.version import GRPC_RELEASE
from support.programs import run_python
from support.servers import Server

# What gRPC up to 1.7x prints when an interpreter ends in which an asyncio channel was not closed.
_OF_OLD_GRPC = "Error in sys.excepthook:\n\nOriginal exception was:\n"

_PRELUDE = """
import asyncio, faulthandler, gc, logging, os, re, signal, sys, tempfile, threading, time, traceback
import grpc
import grpcpool
from grpcpool import aio, PoolConfig, PoolForkedError
from support.connections import connections_to
from support.servers import ECHO, SLOW

# In development mode it warns of callbacks that take longer than 0.1 s.
logging.getLogger("asyncio").setLevel(logging.ERROR)
target = sys.argv[1]
port = int(target.rpartition(":")[2])


OF_GRPC = re.compile(r"[A-Z]\\d{4} |[*]{3} ")


def factory():
    return grpc.aio.insecure_channel(target, grpcpool.isolated())


async def unary(channel, method, request, timeout=20):
    return await channel.unary_unary(method)(request, timeout=timeout)


async def use(pool):
    async with pool.acquire(timeout=20) as lease:
        assert await unary(lease, ECHO, b"a") == b"a"
    assert await unary(pool, ECHO, b"b") == b"b"


def fork(work, tries=1):
    '''Runs work in a child and returns its exit code: 0 if the work succeeded.

    gRPC itself may kill a child forked while an asyncio operation is pending, with or without a pool. With more
    `tries`, another child is then forked, and what gRPC wrote about the first is dropped.
    '''
    faulthandler.disable()
    with tempfile.TemporaryFile() as output:
        # Before the fork, because gRPC already writes in the child during the fork.
        stderr = os.dup(2)
        os.dup2(output.fileno(), 2)
        pid = os.fork()
        if not pid:
            run_and_exit(work)
        os.dup2(stderr, 2)
        os.close(stderr)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code in (-signal.SIGSEGV, -signal.SIGABRT) and tries > 1:
            return fork(work, tries - 1)
        output.seek(0)
        # gRPC may write errors even though the child succeeds.
        lines = [line for line in output.read().decode().splitlines() if tries == 1 or not OF_GRPC.match(line)]
        sys.stderr.write("".join(f"{line}\\n" for line in lines))
        return code


def run_and_exit(work):
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(7)
    os._exit(0)


"""


def run_program(server: Server, program: str, *, expect: str = "fine", seconds: float = 60, **environment: str) -> None:
    """Runs a program in a fresh interpreter, in development mode, with warnings as errors.

    It must end within `seconds` with status 0, print what is expected, and print nothing on its standard error.
    """
    done = run_python(
        _PRELUDE + textwrap.dedent(program),
        server.target,
        options=("-X", "dev", "-W", "error"),
        seconds=seconds,
        environment=environment,
    )
    assert done.stdout.split() == [expect], done.stdout + done.stderr
    errors = done.stderr.replace(_OF_OLD_GRPC, "") if GRPC_RELEASE < (1, 80) else done.stderr
    assert not errors, errors
