"""A server that refuses streams by a rule, run in its own process by `refusing_server`.

It imports nothing of the project. gRPC's own servers refuse only occasionally. This one is a small HTTP/2 server that
speaks enough gRPC, on the h2 library. It announces a generous limit of streams, and refuses with
``RST_STREAM(REFUSED_STREAM)`` by its rule, at the headers, before it has looked at a request.

It prints its port when it serves. A line on its standard input is a command, answered by a line on its standard output
(see `_Control`). It ends when its standard input does, so that it never outlives the process that started it. The
(first) request says what a method does; see `refusing_server.RefusingServer`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from support.refusing_counts import Count

_OK, _UNAVAILABLE = 0, 14
_PREFIX = struct.Struct(">?I")


@dataclasses.dataclass
class Rule:
    """Which streams are refused.

    Attributes:
        open: Those beyond this many open ones on a connection; `None`: any number may be open.
        first: This many of each connection, the first ones.
        next: This many of all connections together, the next ones.
        every: One of this many of all connections together, since the counts were restarted; 0: none.
        methods: If given, only streams of the methods with these names.
        held: Whether they are refused only when ``refusals`` are let go, or that of this one: ``refusal:1``, and so on.
    """

    open: int | None = None
    first: int = 0
    next: int = 0
    every: int = 0
    methods: list[str] | None = None
    held: bool = False


class World:
    """What all connections share."""

    def __init__(self, rule: Rule, announced: int) -> None:
        """Goes by `rule`, and announces a limit of `announced` streams."""
        self.announced = announced
        self.begin(rule)

    def begin(self, rule: Rule) -> None:
        """Refuses by `rule` from now on, and restarts the counts."""
        self.rule = rule
        self._let_go: dict[str, asyncio.Event] = {}
        self.counts: dict[str, Count] = {}
        self.handled: Counter[str] = Counter()
        self.held: Counter[str] = Counter()

    def refuses(self, count: Count, method: str) -> bool:
        """Whether the stream that has just begun is refused."""
        rule = self.rule
        if rule.methods is not None and method not in rule.methods:
            return False
        if rule.next:
            rule.next -= 1
            return True
        if rule.every and sum(each.begun for each in self.counts.values()) % rule.every == 0:
            return True
        return (rule.open is not None and count.open >= rule.open) or count.begun <= rule.first

    def let_go(self, tag: str) -> asyncio.Event:
        """The event that is set when `tag` is let go."""
        return self._let_go.setdefault(tag, asyncio.Event())

    def report(self) -> dict[str, Any]:
        """All that was counted, for JSON."""
        return {
            "counts": {peer: dataclasses.asdict(count) for peer, count in self.counts.items()},
            "handled": dict(self.handled),
            "held": [tag for tag, number in self.held.items() if number],
        }


class Stream:
    """One call."""

    def __init__(self, connection: Connection, number: int, headers: dict[str, str]) -> None:
        """A call on the stream with this number; its task is not started yet."""
        self.connection = connection
        self.number = number
        self.headers = headers
        self.method = headers[":path"].rpartition("/")[2]
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self._received = b""
        self._has_answered = False

    def receive(self, data: bytes) -> None:
        """Takes some of the client's bytes."""
        self._received += data
        while len(self._received) >= _PREFIX.size:
            _, length = _PREFIX.unpack_from(self._received)
            end = _PREFIX.size + length
            if len(self._received) < end:
                return
            self.requests.put_nowait(self._received[_PREFIX.size : end])
            self._received = self._received[end:]

    def end_requests(self) -> None:
        """Notes that the client has no more to send."""
        self.ended = True
        self.requests.put_nowait(None)

    def begin_answer(self) -> None:
        """Sends the headers together with what comes next, in one packet."""
        self._has_answered = True
        headers = [(":status", "200"), ("content-type", "application/grpc"), ("initial", "yes")]
        self.connection.h2.send_headers(self.number, headers)

    def answer(self, message: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        """Sends a response, and before the first the headers."""
        if not self._has_answered:
            self._has_answered = True
            headers = [(":status", "200"), ("content-type", "application/grpc"), *metadata]
            self.connection.h2.send_headers(self.number, headers)
        self.connection.h2.send_data(self.number, _PREFIX.pack(False, len(message)) + message)
        self.connection.flush()

    def finish(self, status: int = _OK, details: str = "", metadata: tuple[tuple[str, str], ...] = ()) -> None:
        """Ends the call with a status."""
        trailers = [("grpc-status", str(status)), ("grpc-message", details), *metadata]
        if not self._has_answered:
            trailers[:0] = [(":status", "200"), ("content-type", "application/grpc")]
        self.connection.h2.send_headers(self.number, trailers, end_stream=True)
        if not self.ended:
            self.connection.h2.reset_stream(self.number, ErrorCodes.NO_ERROR)
        self.connection.flush()

    def reset(self, code: int) -> None:
        """Ends the call without a status."""
        self.connection.h2.reset_stream(self.number, code)
        self.connection.flush()

    # --- what the methods do ------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Does what the first request says, and ends the call."""
        world = self.connection.world
        first = await self.requests.get()
        command = (first or b"").decode()
        world.handled[command] += 1
        if self.method == "Su" and not command.startswith("hold:"):
            while await self.requests.get() is not None:
                pass
        verb, _, argument = command.partition(":")
        match verb:
            case "unavailable":
                self.finish(_UNAVAILABLE, argument)
            case "reset":
                self.reset(int(argument))
            case "answered":
                self.begin_answer()
                self.finish(_UNAVAILABLE, argument)
            case "answered_reset":
                self.begin_answer()
                self.reset(int(argument))
            case "late":
                self.answer(b"0")
                await world.let_go("resets").wait()
                self.reset(int(argument))
            case _:
                await self._answer_all(command)

    async def _answer_all(self, command: str) -> None:
        metadata = (("initial", "yes"),) if command == "ok" else ()
        async for message in self._messages(command):
            self.answer(message, metadata)
            if self.method not in ("Us", "Ss"):
                break
        self.finish(metadata=(("trailing", "yes"),) if command == "ok" else ())

    async def _messages(self, command: str) -> AsyncIterator[bytes]:
        verb, _, argument = command.partition(":")
        match verb:
            case "ok":
                for number in range(3):
                    yield str(number).encode()
            case "count":
                for number in range(int(argument)):
                    yield str(number).encode()
            case "hold":
                if self.method in ("Us", "Ss"):
                    yield b"0"
                await self._hold(argument)
                yield b"1"
            case "work":
                await asyncio.sleep(int(argument.partition(",")[0]) / 1000)
                yield command.encode()
            case "metadata":
                yield json.dumps(sorted(self.headers.items())).encode()
            case _:
                yield command.encode()

    async def _hold(self, tag: str) -> None:
        world = self.connection.world
        world.held[tag] += 1
        try:
            await world.let_go(tag).wait()
        finally:
            world.held[tag] -= 1


class Connection(asyncio.Protocol):
    """One connection of a client."""

    transport: asyncio.Transport
    count: Count

    def __init__(self, world: World) -> None:
        """A connection that shares `world` with others."""
        self.world = world
        # gRPC's headers are as they must be; to check each of them would take a third of this server's time.
        config = H2Configuration(
            client_side=False,
            header_encoding="utf-8",
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(config)
        settings = {SettingCodes.MAX_CONCURRENT_STREAMS: world.announced}
        self.h2.local_settings = Settings(client=False, initial_values=settings)
        self._streams: dict[int, Stream] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to serve the client."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self._peer = f"ipv4:{host}:{port}"
        self.count = Count()
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the client's streams."""
        for number in tuple(self._streams):
            self._cancel(number)

    def data_received(self, data: bytes) -> None:
        """Takes some of the client's bytes."""
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            self.flush()
            self.transport.close()
            return
        for event in events:
            self._take(event)
        self.flush()

    def flush(self) -> None:
        """Sends what is waiting to be sent."""
        self.transport.write(self.h2.data_to_send())

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event.stream_id, {str(name): str(value) for name, value in event.headers})
            case DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in self._streams:
                    self._streams[event.stream_id].receive(event.data)
            case StreamEnded():
                if event.stream_id in self._streams:
                    self._streams[event.stream_id].end_requests()
            case StreamReset():
                self._cancel(event.stream_id)
            case ConnectionTerminated():
                self.transport.close()

    def _begin(self, number: int, headers: dict[str, str]) -> None:
        # By its address, so that a connection appears again after the counts were restarted.
        count = self.count = self.world.counts.setdefault(self._peer, Count(open=len(self._streams)))
        count.begun += 1
        stream = Stream(self, number, headers)
        if self.world.refuses(count, stream.method):
            count.refused += 1
            if self.world.rule.held:
                refusal = f"refusal:{sum(each.refused for each in self.world.counts.values())}"
                stream.task = asyncio.get_running_loop().create_task(self._refuse_later(stream, refusal))
            else:
                stream.reset(ErrorCodes.REFUSED_STREAM)
            return
        count.open += 1
        count.most = max(count.most, count.open)
        self._streams[number] = stream
        stream.task = asyncio.get_running_loop().create_task(self._run(stream))

    async def _refuse_later(self, stream: Stream, refusal: str) -> None:
        waiting = [asyncio.ensure_future(self.world.let_go(tag).wait()) for tag in ("refusals", refusal)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        with contextlib.suppress(ProtocolError):
            stream.reset(ErrorCodes.REFUSED_STREAM)

    async def _run(self, stream: Stream) -> None:
        await stream.serve()
        if self._streams.pop(stream.number, None) is not None:
            self.count.completed += 1
            self.count.open -= 1

    def _cancel(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None and stream.task is not None:
            stream.task.cancel()
            self.count.cancelled += 1
            self.count.open -= 1


class _Control:
    """Carries out the lines on standard input.

    ``begin {...}`` sets the rule and restarts the counts; ``rule {...}`` changes only the rule; ``report`` returns what
    was counted; ``let_go tag`` ends the calls ``hold:tag``, including later ones. The answer is a line of JSON.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, line: str) -> Any:
        verb, _, argument = line.strip().partition(" ")
        match verb:
            case "begin":
                self._world.begin(Rule(**json.loads(argument)))
            case "rule":
                self._world.rule = Rule(**json.loads(argument))
            case "let_go":
                self._world.let_go(argument).set()
            case "report":
                return self._world.report()
            case _:
                raise ValueError(line)
        return None


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    world = World(Rule(open=options.open, first=options.first, next=options.next), options.announce)
    server = await loop.create_server(lambda: Connection(world), "127.0.0.1", options.port)
    _say(server.sockets[0].getsockname()[1])
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    control = _Control(world)
    while line := await commands.readline():
        _say(control(line.decode()))
    os._exit(0)


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--announce", type=int, default=1000, help="SETTINGS_MAX_CONCURRENT_STREAMS")
    parser.add_argument("--open", type=int, default=None, help="refuse streams beyond this number on a connection")
    parser.add_argument("--first", type=int, default=0, help="refuse the first ones of each connection")
    parser.add_argument("--next", type=int, default=0, help="refuse the next ones of all connections")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
