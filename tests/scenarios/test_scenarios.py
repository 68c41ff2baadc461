"""Every story holds in every world: the machine and both drivers."""

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
from .player import Player, StoryRun
from .story import OPERATIONS, WORLDS, Story, read_stories, story_of
from .sync_player import SyncPlayer

pytestmark = pytest.mark.timeout(60)

STORIES = read_stories()
BY_MACHINE = [story for story in STORIES if "machine" in story.worlds]

Maker = Callable[[PoolConfig, Log, list[str] | None, int], Player]

PLAYERS: dict[str, Maker] = {
    "machine": MachinePlayer,
    "sync": SyncPlayer,
    "aio": AioPlayer,
}


def play(story: Story, make: Maker) -> None:
    """Plays the story in the world that `make` creates."""
    log = Log()
    StoryRun(story, make(story.config, log, story.addresses, story.endpoints), log).play()


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
    """The story holds in this world, step by step."""
    play(story, PLAYERS[world])


@pytest.mark.parametrize("seed", range(5))
def test_the_stories_do_not_depend_on_chance(seed: int) -> None:
    """A story holds whatever random numbers the machine draws."""
    for story in BY_MACHINE:
        dice = random.Random(seed).random  # noqa: S311 -- tests have no secrets
        play(story, lambda *how, dice=dice: MachinePlayer(*how, random=dice))


# --- the stories themselves ----------------------------------------------------------------------------------------


def test_the_stories_cover_everything() -> None:
    """Every operation, machine event, close reason and pool error occurs in some story."""
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
    """Each player accepts each operation, with each of its arguments."""
    inspect.signature(getattr(player, operation)).bind(player, "a", **dict.fromkeys(OPERATIONS[operation]))


def story_with(*steps: dict[str, Any], **entry: Any) -> Story:
    """A story written in a test."""
    return story_of("test", {"name": "inline", "truth": "", "steps": list(steps), **entry})


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
def test_an_invalid_entry_is_refused(entry: dict[str, Any]) -> None:
    """An entry that is not part of the format is refused when the story is read, so nothing written is ignored."""
    with pytest.raises(ValueError, match=r"test, 'inline'|PoolConfig\."):
        story_with(**{"steps": [], **entry})


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
def test_a_wrong_step_fails(steps: list[dict[str, Any]], says: str) -> None:
    """A story fails at the first step after which something other than what is written is observed."""
    with pytest.raises(AssertionError, match=says):
        play(story_with(*steps), MachinePlayer)


def test_a_wrong_final_figure_fails() -> None:
    """A story fails if one of its final figures differs."""
    with pytest.raises(AssertionError, match=r"at the end: \{'acquired': '1, not 2'\}"):
        play(story_with(ACQUIRES, CONNECTS, stats={"acquired": 2, "in_flight": 1}), MachinePlayer)


@pytest.mark.parametrize("fault", ["a refusal is missing", "an extra refusal", "a connection stays open"])
def test_what_no_story_has_to_write_is_checked(fault: str) -> None:
    """In every story waiters are counted and finally answered, and open connections are counted from outside."""

    class Faulty(MachinePlayer):
        def connections(self) -> int:
            return super().connections() + (fault == "a connection stays open")

        def end(self) -> None:
            super().end()
            if fault == "a refusal is missing":
                self._log.clear()
            elif fault == "an extra refusal":
                self._log.answer("b", "PoolClosedError")

    with pytest.raises(AssertionError):
        play(story_with(ACQUIRES), Faulty)
