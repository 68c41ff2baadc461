"""Programs of their own: for what takes the whole process along, and for what is seen only when it ends."""

from __future__ import annotations

import textwrap

from grpcpool._grpc.release import GRPC_RELEASE
from support.programs import run_python
from support.servers import Server

# What gRPC up to 1.7x says at the end of an interpreter in which a channel of asyncio's was not closed.
_OF_OLD_GRPC = "Error in sys.excepthook:\n\nOriginal exception was:\n"

_PRELUDE = """
import asyncio, faulthandler, gc, logging, os, re, signal, sys, tempfile, threading, time, traceback
import grpc
import grpcpool
from grpcpool import aio, PoolConfig, PoolForkedError
from support.connections import connections_to
from support.servers import ECHO, SLOW

# In development mode it complains of what takes longer than 0.1 s.
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
    '''Runs work in a child; returns the code it ends with: 0 if all went well.

    A child that is forked while an operation of asyncio gRPC is pending may be killed by gRPC itself, pool or no pool:
    then, with more `tries`, there is another, and what gRPC said of it is not told.
    '''
    faulthandler.disable()
    with tempfile.TemporaryFile() as said:
        # Before the fork, for within it gRPC has its say in the child.
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        pid = os.fork()
        if not pid:
            run_and_exit(work)
        os.dup2(stderr, 2)
        os.close(stderr)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code in (-signal.SIGSEGV, -signal.SIGABRT) and tries > 1:
            return fork(work, tries - 1)
        said.seek(0)
        # It may fail while the child is ending well.
        lines = [line for line in said.read().decode().splitlines() if tries == 1 or not OF_GRPC.match(line)]
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

    It must end well within so many `seconds`, say what is expected, and nothing on its standard error.
    """
    done = run_python(
        _PRELUDE + textwrap.dedent(program),
        server.target,
        options=("-X", "dev", "-W", "error"),
        seconds=seconds,
        environment=environment,
    )
    assert done.stdout.split() == [expect], done.stdout + done.stderr
    said = done.stderr.replace(_OF_OLD_GRPC, "") if GRPC_RELEASE < (1, 80) else done.stderr
    assert not said, said
