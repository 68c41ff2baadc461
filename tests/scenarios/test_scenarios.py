"""The scenario tests: each story, in each world."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest

from grpcpool import PoolConfig
from grpcpool._values.listener import HOOKS
from grpcpool._values.slot_states import CloseReason

from .aio_player import AioPlayer
from .log import Log
from .machine_player import MachinePlayer
from .player import Player, Telling
from .story import OPERATIONS, WORLDS, Story, read_stories, story_of
from .sync_player import SyncPlayer

pytestmark = pytest.mark.timeout(60)

STORIES = read_stories()
BY_MACHINE = [story for story in STORIES if "machine" in story.worlds]

PLAYERS: dict[str, Callable[[PoolConfig, Log], Player]] = {
    "machine": MachinePlayer,
    "sync": SyncPlayer,
    "aio": AioPlayer,
}


def play(story: Story, make: Callable[[PoolConfig, Log], Player]) -> None:
    """Plays the story in the world that `make` makes."""
    log = Log()
    Telling(story, make(story.config, log), log).play()


@pytest.mark.parametrize(
    ("world", "story"),
    [
        pytest.param(world, story, id=f"{world}-{story.id}")
        for world in WORLDS
        for story in STORIES
        if world in story.worlds
    ],
)
def test_story(world: str, story: Story) -> None:
    """The story is true in this world, step by step."""
    play(story, PLAYERS[world])


@pytest.mark.parametrize("seed", range(5))
def test_chance_has_no_part_in_it(seed: int) -> None:
    """Whatever dice the pool throws, the stories are the same."""
    for story in BY_MACHINE:
        dice = random.Random(seed).random  # noqa: S311 -- dice
        play(story, lambda config, log, dice=dice: MachinePlayer(config, log, random=dice))  # type: ignore[misc]


# --- what the stories are ------------------------------------------------------------------------------------------


def test_they_tell_of_everything() -> None:
    """Each operation, event of the machine, reason to close, and error of the pool is in some story."""
    steps = [step for story in STORIES for step in story.steps]
    events = [event for step in steps for event in step.events]
    answers = {word for step in steps for answer in step.answers.values() for word in str(answer).split()}
    assert {step.operation for step in steps} == OPERATIONS.keys()
    assert {event.split()[0].rstrip(":") for event in events} == set(HOOKS.values()) - {"released"}
    assert {reason for reason in CloseReason if any(f": {reason}" in event for event in events)} == set(CloseReason)
    errors = {"PoolClosedError", "PoolTimeoutError", "PoolExhaustedError", "PoolOpenError", "LeaseReleasedError"}
    assert errors <= answers
    assert len({story.id for story in STORIES}) == len(STORIES) >= 45


@pytest.mark.parametrize("player", [MachinePlayer, SyncPlayer, AioPlayer])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_world_knows_each_operation(player: type, operation: str) -> None:
    """Each player takes each operation, with each of its arguments."""
    inspect.signature(getattr(player, operation)).bind(player, "a", **dict.fromkeys(OPERATIONS[operation]))


def told(*steps: dict[str, Any], **entry: Any) -> Story:
    """A story told on the spot."""
    return story_of("test", {"name": "told", "truth": "", "steps": list(steps), **entry})


@pytest.mark.parametrize(
    "entry",
    [
        {"stat": {"size": 1}},
        {"worlds": ["machine"]},
        {"because": "of this"},
        {"worlds": ["moon"], "because": "of this"},
        {"config": {"classic": [5, 3]}},
        {"config": {"min_size": -1}},
        {"steps": [{"aquire": "a"}]},
        {"steps": [{"acquire": "a", "release": "a"}]},
        {"steps": [{"acquire": "a", "grace": 1}]},
        {"steps": [{"acquire": "a", "event": ["opening 1"]}]},
        {"steps": [{"acquire": "a"}, {"call": "a"}]},
    ],
    ids=str,
)
def test_a_slip_of_the_pen_is_found(entry: dict[str, Any]) -> None:
    """What no story has is refused when it is read, so that nothing is written in vain."""
    with pytest.raises(ValueError, match=r"test, 'told'|PoolConfig\."):
        told(**{"steps": [], **entry})


ACQUIRES = {"acquire": "a", "events": ["opening 1"]}
CONNECTS = {"connects": 1, "events": ["opened 1", "granted 1 after 0 s"], "answers": {"a": 1}}


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([{"acquire": "a"}], "step 1"),
        ([{"acquire": "a", "events": ["opening 1", "opening 2"]}], "step 1"),
        ([{"acquire": "a", "events": ["opening 2"]}], "step 1"),
        ([{**ACQUIRES, "answers": {"a": 1}}], "step 1"),
        ([{**ACQUIRES, "error": "ValueError"}], "step 1"),
        ([{**ACQUIRES, "stats": {"opening": 2}}], "step 1"),
        ([ACQUIRES, {**CONNECTS, "answers": {}}], "step 2"),
        ([ACQUIRES, {**CONNECTS, "answers": {"a": 2}}], "step 2"),
        ([ACQUIRES, {**CONNECTS, "answers": {"a": "PoolTimeoutError"}}], "step 2"),
        ([ACQUIRES, {"resize": {"max_size": 0}}], "step 2"),
        ([ACQUIRES, CONNECTS, {"advance": 1, "events": ["closed 1: idle"]}], "step 3"),
    ],
)
def test_what_is_not_so_is_found(steps: list[dict[str, Any]], says: str) -> None:
    """A story fails at the first step after which anything else is seen than is written."""
    with pytest.raises(AssertionError, match=says):
        play(told(*steps), MachinePlayer)


def test_what_is_not_so_in_the_end_is_found() -> None:
    """A story fails if a figure in the end is another."""
    with pytest.raises(AssertionError, match=r"in the end: \{'acquired': '1, not 2'\}"):
        play(told(ACQUIRES, CONNECTS, stats={"acquired": 2, "in_flight": 1}), MachinePlayer)


@pytest.mark.parametrize("lie", ["waits for ever", "carries on", "stays open"])
def test_what_a_story_need_not_say_is_looked_at(lie: str) -> None:
    """In every story, who waits is counted and answered in the end, and what is open is counted from outside."""

    class Liar(MachinePlayer):
        def connections(self) -> int:
            return super().connections() + (lie == "stays open")

        def end(self) -> None:
            super().end()
            if lie == "waits for ever":
                self._log.clear()
            elif lie == "carries on":
                self._log.answer("b", "PoolClosedError")

    with pytest.raises(AssertionError):
        play(told(ACQUIRES), Liar)
