"""The pickers: what each promises, and that each agrees with a slow and obvious one."""

from __future__ import annotations

import collections
import tracemalloc

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from bench_gates.counting import Calls
from grpcpool import PoolConfig
from grpcpool._machine import rings
from grpcpool._machine.pickers import make_places
from grpcpool._machine.places import NEVER, Holding
from grpcpool._machine.queue import WaitQueue
from grpcpool._machine.slot import Slot, SlotEvent
from grpcpool._machine.slot_table import SlotTable
from grpcpool._values.config import PickerName
from machine.settings import dice

ALL: list[PickerName] = ["least_loaded", "fill", "round_robin"]


class Bench:
    """Ready slots in places that are notified of every change, as the fleet does."""

    def __init__(self, name: PickerName, slots: int, *, limit: int = 4, target: int = 2, seed: int = 0) -> None:
        """Creates this many empty slots."""
        config = PoolConfig(picker=name, max_streams=limit, target_streams=target)
        self.places = make_places(config, SlotTable(), WaitQueue(target), dice(seed).random)
        self.slots = [Slot(number, limit=limit, now=0.0, deadline=0.0) for number in range(slots)]
        for slot in self.slots:
            slot.move(SlotEvent.OPENED)
            self.places.enter(slot)

    def take(self, streams: int | None = 1) -> Slot | None:
        """Picks a slot and puts the request on it, as drivers do."""
        if streams is None:
            return self.places.take_whole(Holding())
        return self.places.take(Holding()) if streams == 1 else self.places.acquire(streams, Holding())

    def free(self, slot: Slot, streams: int = 1) -> None:
        """Takes a request off the slot."""
        self.places.release(slot, None if slot.exclusive else streams, 0.0, Holding(slot))

    def lower(self, slot: Slot, limit: int) -> None:
        """The server has shown a lower limit."""
        slot.limit = limit
        self.places.refresh(slot)

    def loads(self) -> list[int]:
        """What each slot carries."""
        return [slot.in_flight for slot in self.slots]


@pytest.mark.parametrize("name", ALL)
def test_full_slots_are_not_picked(name: PickerName) -> None:
    """As many picks succeed as there are streams, then none; one release allows one more, on that slot."""
    bench = Bench(name, 3)
    assert all(bench.take() is not None for _ in range(12))
    assert bench.take() is None
    assert bench.places.lightest() is None
    bench.free(bench.slots[1])
    assert bench.take() is bench.slots[1]


@pytest.mark.parametrize("name", ALL)
def test_whole_slots(name: PickerName) -> None:
    """A whole lease gets an empty slot only, nothing is picked beside it, and afterwards the slot is picked again."""
    bench = Bench(name, 2)
    first = bench.take()
    whole = bench.take(None)
    assert whole not in (None, first)
    assert bench.take(None) is None
    assert {bench.take() for _ in range(3)} == {first}
    assert bench.take() is None
    assert whole is not None
    bench.free(whole)
    assert bench.take(None) is whole


@pytest.mark.parametrize("name", ALL)
def test_removed_slots_are_not_picked(name: PickerName) -> None:
    """A slot that left service is not picked, whether idle or busy; removing it again does nothing."""
    bench = Bench(name, 3)
    busy = bench.take()
    assert busy is not None
    idle = next(slot for slot in bench.slots if slot is not busy)
    for slot in (busy, idle, busy, idle):
        bench.places.remove(slot)
        assert slot not in bench.places
    (rest,) = [slot for slot in bench.slots if slot not in (busy, idle)]
    assert {bench.take() for _ in range(4)} == {rest}
    assert bench.take() is None


@pytest.mark.parametrize("name", ALL)
def test_a_slot_restored_with_calls_on_it(name: PickerName) -> None:
    """A slot restored to service with calls on it is picked up to its limit."""
    bench = Bench(name, 1)
    slot = bench.slots[0]
    bench.places.remove(slot)
    slot.in_flight = 3
    bench.places.reload(slot, 3)
    assert bench.places.lightest() is slot
    assert [bench.take(), bench.take()] == [slot, None]


@pytest.mark.parametrize("name", ALL)
def test_several_streams_beside_lowered_limits(name: PickerName) -> None:
    """A request for several streams finds the only slot with room, even behind emptier slots with lowered limits."""
    bench = Bench(name, 4)
    for slot in bench.slots[:3]:
        bench.lower(slot, 2)
    bench.slots[3].in_flight = 1
    bench.places.refresh(bench.slots[3])
    assert bench.take(3) is bench.slots[3]
    assert bench.take(3) is None
    assert bench.take(2) in bench.slots[:3]


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_least_loaded_keeps_loads_within_one(slots: int) -> None:
    """While calls only arrive, the fullest slot carries at most one more than the emptiest, so max <= mean + 1."""
    bench = Bench("least_loaded", slots, limit=9)
    for _ in range(slots * 9):
        bench.take()
        assert max(bench.loads()) - min(bench.loads()) <= 1


def test_least_loaded_evens_out() -> None:
    """After an uneven release the emptiest slot is filled first."""
    bench = Bench("least_loaded", 3)
    for _ in range(9):
        bench.take()
    for _ in range(3):
        bench.free(bench.slots[1])
    assert [bench.take() for _ in range(3)] == [bench.slots[1]] * 3


def pick_free(bench: Bench) -> Slot:
    """Takes a stream and releases it at once."""
    slot = bench.take()
    assert slot is not None
    bench.free(slot)
    return slot


def test_least_loaded_breaks_ties_at_random() -> None:
    """Equally loaded slots are picked about equally often, and two pools pick in different orders."""
    one, other = Bench("least_loaded", 4, seed=1), Bench("least_loaded", 4, seed=2)
    picks = [pick_free(one).id for _ in range(400)]
    assert picks != [pick_free(other).id for _ in range(400)]
    counts = collections.Counter(picks)
    assert len(counts) == 4
    assert min(counts.values()) > 90


@pytest.mark.parametrize("name", ALL)
def test_a_slot_that_would_be_full_enough_to_grow_is_not_taken(name: PickerName) -> None:
    """`take` leaves that to the machine, and changes nothing."""
    bench = Bench(name, 1, limit=4)
    bench.places.growth_load = 1
    assert bench.take() is None
    bench.places.growth_load = 2
    assert bench.take() is bench.slots[0]
    assert bench.take() is None
    assert bench.loads() == [1]
    bench.places.growth_load = NEVER
    assert bench.take() is bench.slots[0]


def test_round_robin_is_fair() -> None:
    """Each slot has its turn, in the same order again and again, even when calls end at once."""
    bench = Bench("round_robin", 3)
    assert [pick_free(bench).id for _ in range(9)] == [0, 1, 2] * 3
    assert [bench.take() for _ in range(6)] == bench.slots * 2


def test_round_robin_is_blind_to_load() -> None:
    """A release changes no slot's turn; only full slots are skipped."""
    bench = Bench("round_robin", 3, limit=2)
    for _ in range(5):
        bench.take()
    bench.free(bench.slots[0])
    assert bench.take() is bench.slots[2]
    assert bench.take() is bench.slots[0]
    assert bench.take() is None


def test_fill_uses_as_few_as_possible() -> None:
    """One slot after the other is filled to the target; only then is each filled beyond it, evenly."""
    bench = Bench("fill", 3, limit=4, target=2)
    used = []
    for _ in range(12):
        bench.take()
        used.append(sorted(bench.loads(), reverse=True))
    assert used[:6] == [[1, 0, 0], [2, 0, 0], [2, 1, 0], [2, 2, 0], [2, 2, 1], [2, 2, 2]]
    assert used[6:] == [[3, 2, 2], [3, 3, 2], [3, 3, 3], [4, 3, 3], [4, 4, 3], [4, 4, 4]]


def test_fill_lets_the_others_fall_idle() -> None:
    """A trickle of calls stays on the slot that is already in use."""
    bench = Bench("fill", 4, target=3)
    first = bench.take()
    assert {pick_free(bench) for _ in range(10)} == {first}


class Obvious:
    """Finds the slots that may be picked by going through all of them."""

    def __init__(self, name: PickerName, slots: list[Slot], target: int) -> None:
        """Starts with these slots, empty."""
        self.name = name
        self.target = target
        self.circle = list(slots)
        self.out: set[Slot] = set()

    def changed(self, slot: Slot, *, more: bool = False) -> None:
        """The slot's load or limit has changed; it has had its turn if it carries more."""
        roomy = slot not in self.out and slot.in_flight < slot.limit and not slot.exclusive
        if slot in self.circle and (more or not roomy):
            self.circle.remove(slot)
        if roomy and slot not in self.circle:
            self.circle.append(slot)

    def allowed(self, streams: int | None) -> list[Slot]:
        """The slots that may be picked for this request."""
        fitting = [slot for slot in self.circle if slot.has_room(streams)]
        lightest = [slot for slot in fitting if slot.in_flight == min(slot.in_flight for slot in fitting)]
        if streams is None:
            return fitting
        if self.name == "round_robin":
            return fitting[:1]
        if self.name == "least_loaded":
            return lightest
        below = max((slot.in_flight for slot in self.circle if slot.in_flight < self.target), default=None)
        load = below if below is not None else min((slot.in_flight for slot in self.circle), default=0)
        favoured = [slot for slot in self.circle if slot.in_flight == load]
        willing = [slot for slot in favoured if slot.has_room(streams)]
        return willing if len(willing) == len(favoured) else willing + lightest


class Comparison:
    """A picker beside the obvious one."""

    def __init__(self, name: PickerName, slots: int, target: int) -> None:
        """Creates this many empty slots."""
        self.bench = Bench(name, slots, target=target)
        self.obvious = Obvious(name, self.bench.slots, target)
        self.held: list[tuple[Slot, int | None]] = []

    def take(self, streams: int | None) -> None:
        """A request is put on the slot that the picker names."""
        allowed = self.obvious.allowed(streams)
        slot = self.bench.take(streams)
        assert slot in allowed if allowed else slot is None
        if slot is not None:
            self.held.append((slot, streams))
            self.obvious.changed(slot, more=True)

    def free(self, number: int) -> None:
        """One of the requests ends."""
        if self.held:
            slot, streams = self.held.pop(number % len(self.held))
            self.bench.free(slot, streams or 1)
            self.obvious.changed(slot)

    def lower(self, number: int) -> None:
        """The limit of one of the slots in service drops by one."""
        slot = self.bench.slots[number % len(self.bench.slots)]
        if slot not in self.obvious.out and slot.limit > 1:
            self.bench.lower(slot, slot.limit - 1)
            self.obvious.changed(slot)

    def leave_or_return(self, number: int) -> None:
        """One of the slots leaves service, or comes back."""
        slot = self.bench.slots[number % len(self.bench.slots)]
        if slot in self.obvious.out:
            self.obvious.out.remove(slot)
            slot.move(SlotEvent.RECOVERED)
            self.bench.places.refresh(slot)
        else:
            self.obvious.out.add(slot)
            slot.move(SlotEvent.LOST)
            self.bench.places.remove(slot)
        self.obvious.changed(slot)

    def check_lightest(self) -> None:
        """The lightest slot carries the least."""
        lightest = self.bench.places.lightest()
        loads = [slot.in_flight for slot in self.obvious.circle]
        assert (lightest.in_flight if lightest else None) == min(loads, default=None)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from([None, 1, 1, 2, 3])),
        st.tuples(st.sampled_from(["free", "free", "lower", "leave_or_return"]), st.integers(0, 20)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("first", [1, 256])
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=150, deadline=None, database=None)
@given(slots=st.integers(1, 4), target=st.integers(1, 4), operations=OPERATIONS)
def test_picks_as_the_obvious_picker(
    name: PickerName, first: int, slots: int, target: int, operations: list[tuple[str, int | None]]
) -> None:
    """Every pick is one that going through all slots could have chosen, after any takes, releases and limits.

    That is so as well if there are few rings at first, and others are made when they are needed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rings, "_FIRST_RINGS", first)
        comparison = Comparison(name, slots, target)
        for operation, number in operations:
            getattr(comparison, operation)(number)
            comparison.check_lightest()


# --- many streams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_limit_that_is_none_costs_nothing(name: PickerName) -> None:
    """A million streams take no more memory than some hundreds, after many failures as well; nor does a search."""
    tracemalloc.start()
    try:
        bench = Bench(name, 4, limit=1_000_000, target=500_000)
        for failures in range(1, 101):
            for slot in bench.slots:
                slot.recent_failures = failures
                bench.places.rank(slot)
        whole = [bench.take(None) for _ in bench.slots]
        with Calls() as calls:
            assert bench.take() is None
        for each in whole:
            assert each is not None
            bench.free(each)
        assert bench.take() in bench.slots
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000
    assert calls.python.total() < 50


@pytest.mark.parametrize("name", ALL)
def test_loads_beyond_the_first_rings(name: PickerName) -> None:
    """However much slots come to carry, each is picked up to its limit, and again when it has room again."""
    bench = Bench(name, 2, limit=1_000, target=1_000)
    for slot in bench.slots:
        bench.places.acquire(400, Holding(), slot)
        bench.places.acquire(600, Holding(), slot)
    assert bench.take() is None
    for slot in bench.slots:
        bench.free(slot, 400)
    assert bench.loads() == [600, 600]
    _fail(bench, bench.slots[0], 30)
    assert [bench.take(400), bench.take(400)] == bench.slots[::-1]
    assert bench.take() is None


# --- handicaps ------------------------------------------------------------------------------------------------------


def _fail(bench: Bench, slot: Slot, times: int = 1) -> None:
    """Calls on the slot have failed of late."""
    slot.recent_failures += times
    bench.places.rank(slot)


@pytest.mark.parametrize("name", ALL)
def test_a_slot_with_a_handicap_is_picked_last(name: PickerName) -> None:
    """Others are full before a slot with a handicap is picked; then it is."""
    bench = Bench(name, 3, limit=4)
    _fail(bench, bench.slots[0])
    assert {bench.take() for _ in range(8)} == {bench.slots[1], bench.slots[2]}
    assert bench.take() is bench.slots[0]


@pytest.mark.parametrize("name", ALL)
def test_a_handicap_that_has_ended_is_forgotten(name: PickerName) -> None:
    """A slot whose handicap has ended is picked like others."""
    bench = Bench(name, 2)
    _fail(bench, bench.slots[0])
    bench.slots[0].recent_failures = 0
    bench.places.rank(bench.slots[0])
    assert {bench.take(), bench.take(None)} == set(bench.slots)


@pytest.mark.parametrize("name", ALL)
def test_with_a_handicap_each_picker_serves_every_ask(name: PickerName) -> None:
    """A whole connection, and several streams, are granted on a slot with a handicap if no other has the room."""
    bench = Bench(name, 2, limit=4)
    _fail(bench, bench.slots[0])
    assert bench.take() is bench.slots[1]
    assert bench.take(None) is bench.slots[0]
    bench.free(bench.slots[0])
    assert [bench.take(3), bench.take(3)] in ([bench.slots[1], bench.slots[0]], [bench.slots[0], None])
    assert bench.places.lightest() is min(bench.slots, key=lambda slot: slot.in_flight) or bench.loads() == [4, 4]


@pytest.mark.parametrize("name", ALL)
def test_when_all_have_a_handicap_it_changes_nothing(name: PickerName) -> None:
    """With the same handicap on all, the calls are spread as without."""
    plain, sick = Bench(name, 3, seed=3), Bench(name, 3, seed=3)
    for slot in sick.slots:
        _fail(sick, slot, 100)
    for _ in range(10):
        plain.take()
        sick.take()
    assert sorted(plain.loads()) == sorted(sick.loads())


def test_each_failure_counts_as_ten_calls() -> None:
    """`least_loaded` ranks a slot as if it carried ten more calls for each failure of late."""
    bench = Bench("least_loaded", 2, limit=90, target=50)
    _fail(bench, bench.slots[0])
    picked = [bench.take() for _ in range(12)]
    assert picked[:10] == [bench.slots[1]] * 10
    assert set(picked[10:]) == set(bench.slots)
    _fail(bench, bench.slots[0])
    assert [bench.take() for _ in range(9)] == [bench.slots[1]] * 9


def test_a_handicap_outlives_the_absence_of_its_slot() -> None:
    """A slot that leaves service and comes back ranks by the handicap that it has by then."""
    bench = Bench("least_loaded", 2)
    _fail(bench, bench.slots[0])
    bench.places.remove(bench.slots[0])
    assert not bench.places._avoided  # type: ignore[attr-defined]
    bench.places.enter(bench.slots[0])
    assert bench.take() is bench.slots[1]
