"""The pool as a pure state machine; start with `machine.py`.

Invariants, checked after every step of the model test:
    1.  The slots carry what was granted and not released.
    2.  ``0 <= in_flight <= limit`` for each slot.
    3.  No waiter waits while a ready slot has the room that it asks for, unless that is reserved for another, or the
        slot is in doubt (`doubts.py`).
    4.  First come, first served, among equal asks.
    5.  Each waiter is answered exactly once.
    6.  Connections never exceed `max_size`, plus `max_overflow` in loose mode.
    7.  A closed slot carries nothing; a slot that has drained is gone.
    8.  `next_deadline()` is never in the past after `tick(now)`.
    9.  After `close` there are no effects but closes and refusals, and in the end nothing is open.
    10. An exclusive lease is alone on its slot.
    11. A handicap decides on which slot an ask is granted, never whether it is.
    12. A waiter whose ask fits an empty slot is granted after finitely many releases, whatever else arrives.
    13. The numbers of connections to any two reachable addresses differ by at most one, once all is settled.
"""
