"""The compiled front of a fleet: who gets the next request, who gave up, when replicas come and go.

One clock for all replicas: before a decision at a moment every replica is advanced to it, so a
balancer sees what it would see.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from advisor.serving.kernel import NOW, advance, cancel, in_system, push

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

ROUND_ROBIN, LEAST_LOADED, PREFIX_AWARE = range(3)

AFFINITY_FACTOR = 1.5
AFFINITY_MARGIN = 4
"""A prefix-aware balancer leaves the replica that holds the prefix once it has more than 1.5 times
the requests of the least loaded one and over 4 more: cached tokens are not worth any queue. The
rule is that of SGLang's cache-aware router, with a margin that suits small fleets."""

# What each replica is.
OFF, READY, DRAINING = range(3)

# Settings of the fleet, whole numbers.
POLICY, PREFIX_SLOTS, LEAST_REPLICAS, MOST_REPLICAS, TARGET, DOWN_TICKS, FLEET_SETTINGS = range(7)

# Settings of the fleet, seconds.
INTERVAL, COLD_START, FLEET_RATES = range(3)


@njit(cache=True, nogil=True)
def dispatch(
    stop: IntArray,
    fleet: IntArray,
    fleet_rates: FloatArray,
    settings: IntArray,
    rates: FloatArray,
    token_s: FloatArray,
    sample_s: FloatArray,
    arrival_s: FloatArray,
    inputs: IntArray,
    outputs: IntArray,
    cached: IntArray,
    groups: IntArray,
    cancel_order: IntArray,
    cancel_s: FloatArray,
    link: IntArray,
    cancelled: IntArray,
    scheduled_s: FloatArray,
    first_s: FloatArray,
    finish_s: FloatArray,
    preemptions: IntArray,
    replica_of: IntArray,
    state: IntArray,
    moments: FloatArray,
    rows: IntArray,
    last_s: FloatArray,
    phases: IntArray,
    gaps: IntArray,
    status: IntArray,
    ready_s: FloatArray,
    launched_s: FloatArray,
    rented_s: FloatArray,
    residents: IntArray,
    history: IntArray,
) -> None:
    """Send every request to a replica at its arrival, cancel what is given up, scale, and drain.

    Args:
        fleet, fleet_rates: settings of the fleet, see the indices above.
        groups: by request, the prompt beginning it shares, -1: none (read with PREFIX_AWARE or
            PREFIX_SLOTS > 0, when `cached` is the length of that beginning and becomes 0 where the
            replica does not hold it).
        cancel_order, cancel_s: requests that are given up, in that order, and when.
        replica_of: by request, filled in.
        status, ready_s, launched_s, rented_s: by replica: what it is, when it becomes or became
            ready, when its rent began, and the seconds it was paid for (filled in).
        residents: by replica, the prompt beginnings it holds, the most recently used first.
        history: by tick, (ready replicas, starting ones, requests inside), filled in.
    """
    count, replicas = len(arrival_s), len(status)
    pushed = np.zeros(replicas, dtype=np.int64)
    loads = np.zeros(replicas, dtype=np.int64)
    scaling = fleet[TARGET] > 0
    arrival, given_up, turn, tick = 0, 0, 0, 0
    tick_s = fleet_rates[INTERVAL] if scaling else math.inf
    while arrival < count or given_up < len(cancel_order):
        if stop[0] != 0:
            return
        arrives_s = arrival_s[arrival] if arrival < count else math.inf
        goes_s = cancel_s[given_up] if given_up < len(cancel_order) else math.inf
        if tick_s <= arrives_s and tick_s <= goes_s and arrival < count:
            for replica in range(replicas):
                loads[replica] = 0
                if pushed[replica] > 0:
                    advance(
                        tick_s, False, stop, settings, rates, token_s, sample_s, arrival_s,
                        inputs, outputs, cached, link, cancelled, scheduled_s, first_s, finish_s,
                        preemptions, state[replica], moments[replica], rows[replica],
                        last_s[replica], phases[replica], gaps,
                    )  # fmt: skip
                    loads[replica] = in_system(
                        tick_s, pushed[replica], state[replica], moments[replica]
                    )
            _scale(
                tick, tick_s, fleet, fleet_rates, loads, status, ready_s, launched_s, rented_s,
                residents, moments, history,
            )  # fmt: skip
            tick += 1
            tick_s = (tick + 1) * fleet_rates[INTERVAL]
        elif arrives_s <= goes_s:
            if fleet[POLICY] == ROUND_ROBIN:
                chosen = _next_in_turn(turn, arrives_s, status, ready_s)
            else:
                for replica in range(replicas):
                    if status[replica] != READY or ready_s[replica] > arrives_s:
                        continue
                    advance(
                        arrives_s, False, stop, settings, rates, token_s, sample_s, arrival_s,
                        inputs, outputs, cached, link, cancelled, scheduled_s, first_s, finish_s,
                        preemptions, state[replica], moments[replica], rows[replica],
                        last_s[replica], phases[replica], gaps,
                    )  # fmt: skip
                    loads[replica] = in_system(
                        arrives_s, pushed[replica], state[replica], moments[replica]
                    )
                chosen = _least_loaded(turn, arrives_s, loads, status, ready_s)
                if fleet[POLICY] == PREFIX_AWARE and groups[arrival] >= 0:
                    chosen = _holder(
                        chosen, groups[arrival], arrives_s, loads, status, ready_s, residents
                    )
            turn = chosen + 1
            if fleet[PREFIX_SLOTS] > 0 and groups[arrival] >= 0:
                held = _touch(groups[arrival], residents[chosen], fleet[PREFIX_SLOTS])
                if not held:
                    cached[arrival] = 0
            replica_of[arrival] = chosen
            push(arrival, state[chosen], link)
            pushed[chosen] += 1
            arrival += 1
        else:
            who = cancel_order[given_up]
            chosen = replica_of[who]
            advance(
                goes_s, True, stop, settings, rates, token_s, sample_s, arrival_s,
                inputs, outputs, cached, link, cancelled, scheduled_s, first_s, finish_s,
                preemptions, state[chosen], moments[chosen], rows[chosen],
                last_s[chosen], phases[chosen], gaps,
            )  # fmt: skip
            if cancel(
                who, settings, inputs, outputs, cached, link, cancelled, scheduled_s,
                state[chosen], rows[chosen], last_s[chosen], phases[chosen],
            ):  # fmt: skip
                pushed[chosen] -= 1
            given_up += 1
    for replica in range(replicas):
        advance(
            math.inf, False, stop, settings, rates, token_s, sample_s, arrival_s,
            inputs, outputs, cached, link, cancelled, scheduled_s, first_s, finish_s,
            preemptions, state[replica], moments[replica], rows[replica],
            last_s[replica], phases[replica], gaps,
        )  # fmt: skip
        if status[replica] != OFF:
            end_s = max(moments[replica, NOW], arrival_s[count - 1])
            if status[replica] == DRAINING:
                end_s = max(moments[replica, NOW], ready_s[replica])
            rented_s[replica] += max(end_s - launched_s[replica], 0.0)


@njit(cache=True, nogil=True)
def _next_in_turn(turn: int, moment: float, status: IntArray, ready_s: FloatArray) -> int:
    replicas = len(status)
    for step in range(replicas):
        replica = (turn + step) % replicas
        if status[replica] == READY and ready_s[replica] <= moment:
            return replica
    return 0


@njit(cache=True, nogil=True)
def _least_loaded(
    turn: int, moment: float, loads: IntArray, status: IntArray, ready_s: FloatArray
) -> int:
    """The ready replica with the fewest requests; the next in turn among equals."""
    replicas, best, least = len(status), -1, 0
    for step in range(replicas):
        replica = (turn + step) % replicas
        if status[replica] != READY or ready_s[replica] > moment:
            continue
        if best < 0 or loads[replica] < least:
            best, least = replica, loads[replica]
    return best


@njit(cache=True, nogil=True)
def _holder(
    least: int,
    group: int,
    moment: float,
    loads: IntArray,
    status: IntArray,
    ready_s: FloatArray,
    residents: IntArray,
) -> int:
    """The least loaded replica that holds a prompt beginning, unless it has too much to do."""
    best = -1
    for replica in range(len(status)):
        if status[replica] != READY or ready_s[replica] > moment:
            continue
        if best >= 0 and loads[replica] >= loads[best]:
            continue
        for slot in range(residents.shape[1]):
            if residents[replica, slot] == group:
                best = replica
                break
    if best < 0:
        return least
    crowded = loads[best] > AFFINITY_FACTOR * loads[least]
    return least if crowded and loads[best] > loads[least] + AFFINITY_MARGIN else best


@njit(cache=True, nogil=True)
def _touch(group: int, residents: IntArray, slots: int) -> bool:
    """Move a prompt beginning to the front of the replica's list; whether it was there before."""
    position, held = slots - 1, False
    for slot in range(slots):
        if residents[slot] == group:
            position, held = slot, True
            break
    for slot in range(position, 0, -1):
        residents[slot] = residents[slot - 1]
    residents[0] = group
    return held


@njit(cache=True, nogil=True)
def _scale(
    tick: int,
    now: float,
    fleet: IntArray,
    fleet_rates: FloatArray,
    loads: IntArray,
    status: IntArray,
    ready_s: FloatArray,
    launched_s: FloatArray,
    rented_s: FloatArray,
    residents: IntArray,
    moments: FloatArray,
    history: IntArray,
) -> None:
    """Start and drain replicas: as many as the requests inside need, at a target number each.

    Fewer only if that would have sufficed at each of the last DOWN_TICKS ticks.
    """
    active, ready, inside = 0, 0, 0
    for replica in range(len(status)):
        inside += loads[replica]
        if status[replica] == READY:
            active += 1
            ready += ready_s[replica] <= now
        elif status[replica] == DRAINING and loads[replica] == 0:
            status[replica] = OFF
            left_s = max(moments[replica, NOW], ready_s[replica])
            rented_s[replica] += max(min(left_s, now) - launched_s[replica], 0.0)
    history[tick, 0], history[tick, 1], history[tick, 2] = ready, active - ready, inside
    wanted = inside
    for earlier in range(max(tick - fleet[DOWN_TICKS], 0), tick):
        if history[earlier, 2] > wanted:
            wanted = history[earlier, 2]
    up = min(max(-(-inside // fleet[TARGET]), fleet[LEAST_REPLICAS]), fleet[MOST_REPLICAS])
    down = min(max(-(-wanted // fleet[TARGET]), fleet[LEAST_REPLICAS]), fleet[MOST_REPLICAS])
    for replica in range(len(status)):
        if active < up and status[replica] == OFF:
            status[replica] = READY
            launched_s[replica] = now
            ready_s[replica] = now + fleet_rates[COLD_START]
            residents[replica, :] = -1
            active += 1
    for replica in range(len(status) - 1, -1, -1):
        if active > down and ready > 1 and status[replica] == READY and ready_s[replica] <= now:
            status[replica] = DRAINING
            ready_s[replica] = now
            active -= 1
            ready -= 1
