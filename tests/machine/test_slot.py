"""A slot moves only along its table of transitions, and the table of slots counts the states as slots move."""

from __future__ import annotations

import itertools

import pytest

from grpcpool._machine.slot import TRANSITIONS, Slot, SlotEvent, TransitionError
from grpcpool._machine.slot_table import SlotTable
from grpcpool._values.slot_states import SlotState

WAYS = {
    ("opening", "opened"): "ready",
    ("opening", "open_failed"): "closed",
    ("opening", "unreachable"): "lost",
    ("opening", "closed"): "closed",
    ("ready", "lost"): "lost",
    ("ready", "retired"): "draining",
    ("lost", "recovered"): "ready",
    ("lost", "retired"): "draining",
    ("draining", "restored"): "ready",
    ("draining", "closed"): "closed",
}
NO_WAYS = sorted(set(itertools.product(map(str, SlotState), map(str, SlotEvent))) - WAYS.keys())


def slot_in(state: str) -> Slot:
    """A slot that has been put into that state."""
    slot = Slot(1, limit=3, now=5.0, deadline=9.0)
    slot.state = SlotState(state)
    return slot


def table_with(*states: str) -> tuple[SlotTable, list[Slot]]:
    """A table whose slots reached these states by valid moves."""
    ways = {
        "opening": [],
        "ready": [SlotEvent.OPENED],
        "lost": [SlotEvent.OPENED, SlotEvent.LOST],
        "draining": [SlotEvent.OPENED, SlotEvent.RETIRED],
        "closed": [SlotEvent.OPEN_FAILED],
    }
    table = SlotTable()
    slots = [table.add(limit=3, now=5.0, deadline=9.0) for _ in states]
    for slot, state in zip(slots, states, strict=True):
        for event in ways[state]:
            move(table, slot, event)
    return table, slots


def move(table: SlotTable, slot: Slot, event: SlotEvent) -> None:
    """Moves the slot; a closed slot leaves the table."""
    table.move(slot, event)
    if slot.state == "closed":
        table.forget(slot)


@pytest.mark.parametrize(("way", "end"), WAYS.items())
def test_valid_transition(way: tuple[str, str], end: str) -> None:
    """Each transition of the table leads to its state."""
    slot = slot_in(way[0])
    slot.move(SlotEvent(way[1]))
    assert slot.state == end


@pytest.mark.parametrize(("state", "event"), NO_WAYS)
def test_invalid_transition(state: str, event: str) -> None:
    """A transition that is not in the table raises, names the slot, and leaves its state unchanged."""
    slot = slot_in(state)
    with pytest.raises(TransitionError, match=f"slot 1: {event} while {state}"):
        slot.move(SlotEvent(event))
    assert slot.state == state


def test_the_table_has_no_other_transitions() -> None:
    """The table holds exactly these transitions, and nothing leaves CLOSED."""
    assert {(str(state), str(event)): str(end) for (state, event), end in TRANSITIONS.items()} == WAYS
    assert not [state for state, _ in TRANSITIONS if state is SlotState.CLOSED]


@pytest.mark.parametrize(
    ("in_flight", "exclusive", "streams", "room"),
    [
        (0, False, None, True),
        (1, False, None, False),
        (1, True, None, False),
        (0, False, 3, True),
        (0, False, 4, False),
        (2, False, 1, True),
        (2, False, 2, False),
        (3, False, 1, False),
        (1, True, 1, False),
    ],
)
def test_room(in_flight: int, streams: int | None, *, exclusive: bool, room: bool) -> None:
    """A slot has room for streams up to its limit beside streams only, and for a whole lease only when empty."""
    slot = slot_in("ready")
    slot.in_flight, slot.exclusive = in_flight, exclusive
    assert slot.has_room(streams) is room


def test_repr() -> None:
    """The repr shows the number, the state, the load, and whether the slot is leased as a whole."""
    slot = slot_in("ready")
    assert repr(slot) == "<Slot 1 ready 0/3>"
    slot.in_flight, slot.exclusive = 1, True
    assert repr(slot) == "<Slot 1 ready 1/3 exclusive>"


def test_table_counts() -> None:
    """The table counts each state; a closed slot has left; numbers are never reused."""
    table, slots = table_with("opening", "ready", "ready", "lost", "draining", "closed")
    assert (table.opening, table.ready, table.lost, table.draining) == (1, 2, 1, 1)
    assert [slot.id for slot in table] == [1, 2, 3, 4, 5]
    assert len(table) == 5
    assert slots[5] not in table
    assert table.add(limit=1, now=0.0, deadline=1.0).id == 7


def test_connections() -> None:
    """A draining slot does not count against `max_size`; a successor counts together with the slot it replaces."""
    table, slots = table_with("opening", "ready", "lost", "draining")
    assert table.connections == 3
    successor = table.add(limit=3, now=5.0, deadline=9.0, replaces=slots[1])
    assert (table.connections, table.opening, table.successors) == (3, 2, 1)
    assert slots[1].successor is successor
    assert successor.replaces is slots[1]


def test_separated_successor() -> None:
    """A successor separated from the slot it was to replace counts on its own; separating it again does nothing."""
    table, slots = table_with("ready")
    successor = table.add(limit=3, now=5.0, deadline=9.0, replaces=slots[0])
    assert table.separate(successor) is slots[0]
    assert table.separate(successor) is None
    assert (slots[0].successor, successor.replaces) == (None, None)
    assert (table.successors, table.connections) == (0, 2)


def test_states_oldest_first() -> None:
    """The slots of a state, and those in service, come oldest first."""
    table, slots = table_with("lost", "opening", "ready", "lost", "draining")
    assert table.in_state(SlotState.LOST) == [slots[0], slots[3]]
    assert table.in_service() == [slots[0], slots[2], slots[3]]


def test_iteration_survives_closing() -> None:
    """Slots may be closed while the table is iterated."""
    table, _ = table_with("opening", "opening")
    for slot in table:
        move(table, slot, SlotEvent.CLOSED)
    assert list(table) == []


def test_a_forbidden_move_is_not_counted_as_closed() -> None:
    """A failed attempt to close a closed slot does not change the table's counts."""
    table, slots = table_with("closed")
    with pytest.raises(TransitionError):
        table.move(slots[0], SlotEvent.CLOSED)
