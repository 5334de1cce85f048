"""The compiled front of a fleet: who gets the next request, who gave up, when replicas come and go.

One clock for all replicas: before a decision at a moment every replica is advanced to it, so a
balancer sees what it would see.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from advisor.serving.blocks import cancel
from advisor.serving.compiled import compiled, inlined
from advisor.serving.kernel import advance, in_system, push
from advisor.serving.layout import NOW, Costs, Engine, FloatArray, IntArray, Load

ROUND_ROBIN, LEAST_LOADED, PREFIX_AWARE = range(3)

AFFINITY_FACTOR = 1.5
AFFINITY_MARGIN = 4
"""A prefix-aware balancer leaves the replica that holds the prefix once it has more than 1.5 times
the requests of the least loaded one and over 4 more: cached tokens are not worth any queue. The
rule is that of SGLang's cache-aware router, with a margin that suits small fleets."""

# What happens next.
ARRIVAL, CANCELLATION, TICK, DRAIN = range(4)

# Front.status
OFF, READY, DRAINING = range(3)

# Front.settings
POLICY, LEAST_REPLICAS, MOST_REPLICAS, TARGET, DOWN_TICKS, FRONT_SETTINGS = range(6)

# Front.rates
INTERVAL, COLD_START, FRONT_RATES = range(3)


class Front(NamedTuple):
    """What stands before the replicas."""

    settings: IntArray
    """POLICY … DOWN_TICKS."""
    rates: FloatArray
    """INTERVAL, COLD_START."""
    groups: IntArray
    """By request, the prompt beginning it shares, -1: none."""
    cancel_order: IntArray
    """Requests that are given up, in that order."""
    cancel_s: FloatArray
    """When, in the same order."""
    replica_of: IntArray
    """By request, filled in."""
    status: IntArray
    """By replica: OFF, READY (perhaps only later) or DRAINING."""
    ready_s: FloatArray
    """By replica: when it becomes or became ready; of a draining one, when it was told to go."""
    launched_s: FloatArray
    """By replica: when its rent began."""
    rented_s: FloatArray
    """By replica: seconds paid for, filled in."""
    residents: IntArray
    """By replica, the prompt beginnings it holds, the most recently used first."""
    pushed: IntArray
    """By replica: requests sent to it, cancelled ones taken off."""
    loads: IntArray
    """By replica: requests inside, when last looked at."""
    history: IntArray
    """By tick, (ready replicas, starting ones, requests inside), filled in."""


@compiled
def dispatch(stop: IntArray, front: Front, costs: Costs, load: Load, fleet: Engine) -> None:
    """Send every request to a replica at its arrival, cancel what is given up, scale, and drain.

    Args:
        stop: returns soon after its one entry is not 0.
        load: of requests with a group, `cached` is the length of the beginning that they share with
            it, and becomes 0 where the replica does not hold it.
        fleet: the engines, with replicas as the first axis of all but `gaps`.
    """
    count, replicas = len(load.arrival_s), len(front.status)
    arrival, given_up, turn, tick = 0, 0, 0, 0
    tick_s = front.rates[INTERVAL] if front.settings[TARGET] > 0 else math.inf
    event = ARRIVAL
    while event != DRAIN and stop[0] == 0:
        arrives_s = load.arrival_s[arrival] if arrival < count else math.inf
        goes_s = front.cancel_s[given_up] if given_up < len(front.cancel_s) else math.inf
        event, moment = _next_event(arrives_s, goes_s, tick_s)
        begin, end = 0, replicas
        if event == CANCELLATION:
            begin = front.replica_of[front.cancel_order[given_up]]
            end = begin + 1
        elif event == ARRIVAL and front.settings[POLICY] == ROUND_ROBIN:
            end = 0
        for replica in range(begin, end):
            if front.pushed[replica] > 0:
                engine = _replica(replica, fleet)
                advance(moment, event == CANCELLATION, stop, costs, load, engine)
                front.loads[replica] = in_system(
                    moment, front.pushed[replica], engine.state, engine.moments
                )
        if event == TICK:
            _scale(tick, tick_s, front, fleet.moments)
            tick += 1
            tick_s = (tick + 1) * front.rates[INTERVAL]
        elif event == ARRIVAL:
            chosen = _choose(front.groups[arrival], turn, moment, front)
            turn = chosen + 1
            _send(arrival, chosen, front, load, fleet)
            arrival += 1
        elif event == CANCELLATION:
            engine = _replica(begin, fleet)
            gone = cancel(front.cancel_order[given_up], costs, load, engine)
            front.pushed[begin] -= gone
            front.loads[begin] -= gone
            given_up += 1
    _count_rent(load.arrival_s[count - 1], front, fleet.moments)


@inlined
def _next_event(arrives_s: float, goes_s: float, tick_s: float) -> tuple[int, float]:
    """What comes first: a decision to scale while requests arrive, an arrival, a cancellation."""
    if math.isinf(arrives_s) and math.isinf(goes_s):
        return DRAIN, math.inf
    if tick_s <= min(arrives_s, goes_s) and not math.isinf(arrives_s):
        return TICK, tick_s
    if arrives_s <= goes_s:
        return ARRIVAL, arrives_s
    return CANCELLATION, goes_s


@inlined
def _replica(index: int, fleet: Engine) -> Engine:
    return Engine(
        fleet.state[index],
        fleet.moments[index],
        fleet.rows[index],
        fleet.last_s[index],
        fleet.phases[index],
        fleet.gaps,
    )


@compiled
def _choose(group: int, turn: int, moment: float, front: Front) -> int:
    """The replica for a request that arrives now."""
    if front.settings[POLICY] == ROUND_ROBIN:
        return _next_in_turn(turn, moment, front)
    least = _least_loaded(turn, moment, front)
    if front.settings[POLICY] == PREFIX_AWARE and group >= 0:
        return _holder(least, group, moment, front)
    return least


@compiled
def _send(who: int, replica: int, front: Front, load: Load, fleet: Engine) -> None:
    """Queue a request at a replica."""
    group = front.groups[who]
    if group >= 0 and not _touch(group, front.residents[replica]):
        load.cached[who] = 0
    front.replica_of[who] = replica
    push(who, fleet.state[replica], load.link)
    front.pushed[replica] += 1


@inlined
def _is_ready(replica: int, moment: float, front: Front) -> bool:
    return bool(front.status[replica] == READY and front.ready_s[replica] <= moment)


@compiled
def _next_in_turn(turn: int, moment: float, front: Front) -> int:
    replicas = len(front.status)
    for step in range(replicas):
        replica = (turn + step) % replicas
        if _is_ready(replica, moment, front):
            return replica
    return 0


@compiled
def _least_loaded(turn: int, moment: float, front: Front) -> int:
    """The ready replica with the fewest requests; the next in turn among equals."""
    replicas, best, loads = len(front.status), -1, front.loads
    for step in range(replicas):
        replica = (turn + step) % replicas
        if _is_ready(replica, moment, front) and (best < 0 or loads[replica] < loads[best]):
            best = replica
    return best


@compiled
def _holder(least: int, group: int, moment: float, front: Front) -> int:
    """The least loaded replica that holds a prompt beginning, unless it has too much to do."""
    best, loads = -1, front.loads
    for replica in range(len(front.status)):
        if not _is_ready(replica, moment, front):
            continue
        if best >= 0 and loads[replica] >= loads[best]:
            continue
        for slot in range(front.residents.shape[1]):
            if front.residents[replica, slot] == group:
                best = replica
                break
    if best < 0:
        return least
    crowded = loads[best] > AFFINITY_FACTOR * loads[least]
    return least if crowded and loads[best] > loads[least] + AFFINITY_MARGIN else best


@compiled
def _touch(group: int, residents: IntArray) -> bool:
    """Move a prompt beginning to the front of the replica's list; whether it was there before."""
    position, found = len(residents) - 1, False
    for slot in range(len(residents)):
        if residents[slot] == group:
            position, found = slot, True
            break
    for slot in range(position, 0, -1):
        residents[slot] = residents[slot - 1]
    residents[0] = group
    return found


@compiled
def _scale(tick: int, now: float, front: Front, moments: FloatArray) -> None:
    """Start and drain replicas: as many as the requests inside need, at a target number each.

    Fewer only if that would have sufficed at each of the last DOWN_TICKS ticks.
    """
    settings, status, loads = front.settings, front.status, front.loads
    active, ready, inside = 0, 0, 0
    for replica in range(len(status)):
        inside += loads[replica]
        if status[replica] == READY:
            active += 1
            ready += front.ready_s[replica] <= now
        elif status[replica] == DRAINING and loads[replica] == 0:
            status[replica] = OFF
            left_s = max(moments[replica, NOW], front.ready_s[replica])
            front.rented_s[replica] += max(min(left_s, now) - front.launched_s[replica], 0.0)
    front.history[tick, 0], front.history[tick, 1] = ready, active - ready
    front.history[tick, 2] = inside
    most_inside = inside
    for earlier in range(max(tick - settings[DOWN_TICKS], 0), tick):
        most_inside = max(most_inside, front.history[earlier, 2])
    fewest, most = settings[LEAST_REPLICAS], settings[MOST_REPLICAS]
    up = min(max(-(-inside // settings[TARGET]), fewest), most)
    down = min(max(-(-most_inside // settings[TARGET]), fewest), most)
    for replica in range(len(status)):
        if active < up and status[replica] == OFF:
            status[replica] = READY
            front.launched_s[replica] = now
            front.ready_s[replica] = now + front.rates[COLD_START]
            front.residents[replica, :] = -1
            active += 1
    for replica in range(len(status) - 1, -1, -1):
        # The last one that is ready stays, whatever is starting.
        if active > down and ready > 1 and _is_ready(replica, now, front):
            status[replica] = DRAINING
            front.ready_s[replica] = now
            active -= 1
            ready -= 1


@compiled
def _count_rent(last_arrival_s: float, front: Front, moments: FloatArray) -> None:
    """Add what replicas that are still there were paid for: until all is served."""
    for replica in range(len(front.status)):
        if front.status[replica] == OFF:
            continue
        end_s = last_arrival_s
        if front.status[replica] == DRAINING:
            end_s = front.ready_s[replica]
        end_s = max(end_s, moments[replica, NOW])
        front.rented_s[replica] += max(end_s - front.launched_s[replica], 0.0)
