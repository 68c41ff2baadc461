"""Locks of the process that another thread holds at the moment of a fork: the child has that thread no more."""

from __future__ import annotations

import os

import pytest

from support.programs import run_python

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
]

_FORK = """
import faulthandler, os, threading

inside, leave = threading.Event(), threading.Event()

def stays():
    inside.set()
    leave.wait()

def fork(other, child):
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        faulthandler.dump_traceback_later(10, exit=True)
        try:
            child()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    leave.set()
    thread.join()
"""


def test_a_patch_that_is_being_applied() -> None:
    """In the child, channels are created, and patches applied and taken back."""
    program = """
import sys, types
import grpc, grpcpool

class Slow(types.ModuleType):
    def __setattr__(self, name, value):
        stays()
        super().__setattr__(name, value)

module = Slow("some_slow")
vars(module)["insecure_channel"] = grpc.insecure_channel
sys.modules["some_slow"] = module
patch = grpcpool.patched()

def child():
    leave.set()
    assert isinstance(grpc.insecure_channel("orders:1"), grpcpool.ChannelPool)
    with grpcpool.patched() as other:
        assert "grpc.insecure_channel" in other.report().replaced

fork(patch.start, child)
patch.stop()
"""
    run_python(_FORK + program, options=())


def test_a_handle_that_cancels_blocking_calls() -> None:
    """In the child, the garbage collector works, and handles can be closed."""
    program = """
import gc
from grpcpool._grpc.blocking_calls import cancel_blocking

class Call:
    def cancel(self, *_):
        pass

waits, ended = threading.Event(), threading.Event()
blocking = {"__name__": "grpc._channel"}
exec("def _blocking(call, wait): wait()", blocking)

def block():
    waits.set()
    ended.wait()

def caller():
    blocking["_blocking"](Call(), block)

def is_within(frame):
    stays()
    return True

called = threading.Thread(target=caller, daemon=True)
called.start()
waits.wait()

def child():
    assert gc.isenabled()
    cancel_blocking({threading.get_ident()}, lambda frame: True)

fork(lambda: cancel_blocking({called.ident}, is_within), child)
assert gc.isenabled()
ended.set()
called.join()
"""
    run_python(_FORK + program, options=())
