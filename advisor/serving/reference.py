"""The specification of the simulator: vLLM's scheduler, one step at a time, in plain Python.

Written to be read beside vllm/v1/core/sched/scheduler.py (vLLM 0.32, Apache-2.0) and to be obeyed
by `advisor.serving.kernel`, which reaches the same times by jumping from event to event.

The rules, for text-only requests served first come, first served, without speculative decoding:

1.  A step has a budget of `max_num_batched_tokens`. Running requests come first, in the order they
    were admitted: one token for each that decodes; a prefill under way takes what is left, up to
    its end. The budget is never below `max_num_seqs`, so every decoding request moves every step.
2.  A running request that needs a KV block when none is free preempts the one admitted last, which
    loses its blocks and goes to the front of the waiting queue; it may be itself.
3.  Then waiting requests are admitted in order while budget and seats (`max_num_seqs`) last, the
    blocks suffice (for the whole prompt, or for its first chunk), and nothing was preempted in
    this step. Without chunked prefill the whole prompt must fit what is left of the budget.
    The first that cannot be admitted holds up all behind it.
4.  A prompt's cached tokens are skipped. A preempted request computes its prompt and the tokens it
    had generated again, but for the cached ones: with prefix caching its full blocks stay
    findable until they are given out again, which happens in the order they were freed, the last
    block of a request first.
5.  A prefill that ends in a step yields a token in that step.
6.  Synchronous: a step is scheduled when the one before it ends. Asynchronous: it is scheduled when
    the one before it begins, so arrivals after that moment, and the seats and blocks of requests
    that end in the running step, come into play one step later; where there is nothing to schedule
    then, scheduling happens at the end after all.

7.  A cancelled request leaves when a step is scheduled that could have seen an arrival at that
    time.

The cached beginning is one that all requests share: its blocks are held once, and for good.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.physics.step_cost import StepCost
from advisor.serving.engine import EngineSettings
from advisor.serving.workload import Requests

FloatArray = NDArray[np.float64]


@dataclass(slots=True)
class _Sequence:
    """A request inside the engine."""

    index: int
    input_tokens: int
    output_tokens: int
    cached: int
    computed: int = 0
    generated: int = 0
    blocks: list[int] = field(default_factory=list)
    """Blocks of its own, after the shared ones."""
    prefilling: bool = True
    done: bool = False
    """Ended in the step before; still seated in asynchronous scheduling."""
    last_token_s: float = math.nan

    @property
    def tokens(self) -> int:
        """Tokens that exist: prompt and generated."""
        return self.input_tokens + self.generated


@dataclass(slots=True)
class ReferenceResult:
    """What the reference saw, request by request and in all."""

    scheduled_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    arrival_s: FloatArray
    preemptions: NDArray[np.int64]
    gaps_s: list[float] = field(default_factory=list)
    """Every time between two tokens of a request."""
    steps: int = 0
    busy_s: float = 0.0
    kv_peak_blocks: int = 0


class ReferenceEngine:
    """One engine, advanced step by step."""

    def __init__(
        self, step: StepCost, engine: EngineSettings, *, kv_blocks: int, requests: Requests
    ) -> None:
        n = len(requests)
        self.step, self.engine, self.requests = step, engine, requests
        self.shared_blocks = self._whole_blocks(int(requests.cached_tokens.max()))
        self.pool = kv_blocks
        self.free = dict.fromkeys(range(kv_blocks - self.shared_blocks))
        """Free blocks, in the order in which they will be given out."""
        self.content: dict[int, tuple[int, int]] = {}
        """What a block holds, while it can be found: (request, place among its own blocks)."""
        self.upcoming = deque(i for i in range(n) if not math.isnan(requests.arrival_s[i]))
        self.unissued = deque(i for i in range(n) if math.isnan(requests.arrival_s[i]))
        self.waiting: deque[_Sequence] = deque()
        self.running: list[_Sequence] = []
        self.now = self.seen = 0.0
        self.result = ReferenceResult(
            scheduled_s=np.full(n, np.nan),
            first_token_s=np.full(n, np.nan),
            finish_s=np.full(n, np.nan),
            arrival_s=requests.arrival_s.copy(),
            preemptions=np.zeros(n, dtype=np.int64),
        )

    def run(self) -> ReferenceResult:
        """Serve everything."""
        self.advance(math.inf)
        return self._as_clients_see_it()

    def advance(self, limit_s: float) -> None:
        """Make every step that begins before a moment."""
        while self.now < limit_s:
            self._let_arrivals_in()
            self._let_cancelled_go()
            plan = self._schedule()
            nothing_ended = not any(sequence.done for sequence in self.running)
            self._drop_ended()
            if plan:
                self._execute(plan)
            elif self.seen < self.now or not nothing_ended:
                self.seen = self.now
            elif self.upcoming and self.result.arrival_s[self.upcoming[0]] < limit_s:
                arrival = float(self.result.arrival_s[self.upcoming[0]])
                self.now = self.seen = max(self.now, arrival)
            else:
                return

    def _as_clients_see_it(self) -> ReferenceResult:
        """Without what came after a client had gone."""
        if self.requests.cancel_s is not None:
            for times in (self.result.first_token_s, self.result.finish_s):
                times[times > self.requests.cancel_s] = math.nan
        return self.result

    def _let_arrivals_in(self) -> None:
        while self.upcoming and self.result.arrival_s[self.upcoming[0]] <= self.seen:
            index = self.upcoming.popleft()
            caching = self.engine.enable_prefix_caching
            self.waiting.append(
                _Sequence(
                    index=index,
                    input_tokens=int(self.requests.input_tokens[index]),
                    output_tokens=int(self.requests.output_tokens[index]),
                    cached=int(self.requests.cached_tokens[index]) if caching else 0,
                )
            )

    def _schedule(self) -> dict[int, tuple[_Sequence, int]]:
        """Tokens of each request in the step to come: {request: (sequence, tokens)}."""
        plan: dict[int, tuple[_Sequence, int]] = {}
        budget = self.engine.max_num_batched_tokens
        preempted = False
        position = 0
        while position < len(self.running) and budget > 0:
            sequence = self.running[position]
            position += 1
            if sequence.done:
                continue
            tokens = min(sequence.tokens - sequence.computed, budget)
            need = self._blocks_for(sequence, sequence.computed + tokens) - len(sequence.blocks)
            while need > len(self.free) and self.running[-1] is not sequence:
                self._preempt()
                preempted = True
            if need > len(self.free):
                self._preempt()
                preempted = True
                break
            self._take(sequence, need)
            plan[sequence.index] = (sequence, tokens)
            budget -= tokens
        if not preempted:
            self._admit(plan, budget)
        held = self.pool - len(self.free)
        self.result.kv_peak_blocks = max(self.result.kv_peak_blocks, held)
        return plan

    def _admit(self, plan: dict[int, tuple[_Sequence, int]], budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.engine.max_num_seqs:
            sequence = self.waiting[0]
            found = self._find_blocks(sequence)
            hit = sequence.cached + len(found) * self.engine.block_size
            missing = sequence.tokens - hit
            if missing > budget and not self.engine.enable_chunked_prefill:
                break
            tokens = min(missing, budget)
            need = self._blocks_for(sequence, hit + tokens)
            whole = self._blocks_for(sequence, sequence.tokens)
            if (whole if self.engine.scheduler_reserve_full_isl else need) > len(self.free):
                break
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.computed, sequence.prefilling = hit, True
            for block in found:
                del self.free[block]
            sequence.blocks = found
            self._take(sequence, need - len(found))
            plan[sequence.index] = (sequence, tokens)
            budget -= tokens
            if math.isnan(self.result.scheduled_s[sequence.index]):
                self.result.scheduled_s[sequence.index] = self.now

    def _preempt(self) -> None:
        """Put the request admitted last back to the front of the queue, without its blocks."""
        sequence = self.running.pop()
        self._give_back(sequence)
        if sequence.done:
            return
        sequence.computed = 0
        self.waiting.appendleft(sequence)
        self.result.preemptions[sequence.index] += 1

    def _execute(self, plan: dict[int, tuple[_Sequence, int]]) -> None:
        duration = self._duration(plan)
        start, end = self.now, self.now + duration
        self.result.steps += 1
        self.result.busy_s += duration
        for sequence, tokens in plan.values():
            sequence.computed += tokens
            if sequence.computed == sequence.tokens:
                self._emit_token(sequence, end)
        self.now = end
        self.seen = start if self.engine.async_scheduling else end
        if not self.engine.async_scheduling:
            self._drop_ended()

    def _emit_token(self, sequence: _Sequence, when: float) -> None:
        result, index = self.result, sequence.index
        sequence.prefilling = False
        sequence.generated += 1
        if sequence.generated == 1:
            result.first_token_s[index] = when
        else:
            result.gaps_s.append(when - sequence.last_token_s)
        sequence.last_token_s = when
        if sequence.generated == sequence.output_tokens:
            result.finish_s[index] = when
            sequence.done = True
            if self.unissued and self.requests.closed_loop is not None:
                following = self.unissued.popleft()
                result.arrival_s[following] = when + self.requests.closed_loop.think_s
                self.upcoming.append(following)

    def _duration(self, plan: dict[int, tuple[_Sequence, int]]) -> float:
        """The step time, term by term as `StepCost` defines it."""
        step = self.step
        tokens = sampled = context = windowed = pairs = windowed_pairs = 0
        has_prefill = False
        for sequence, count in plan.values():
            past = sequence.computed
            tokens += count
            sampled += past + count == sequence.tokens
            if not sequence.prefilling:
                context += past + 1
                windowed += min(past + 1, step.window)
            else:
                has_prefill = True
                pairs += sum(past + i for i in range(1, count + 1))
                windowed_pairs += sum(min(past + i, step.window) for i in range(1, count + 1))
        return (
            float(step.token_s[tokens])
            + float(step.sample_s[sampled])
            + (step.mixed_s if has_prefill else 0.0)
            + step.kv_s * context
            + step.window_kv_s * windowed
            + step.prefill_s * pairs
            + step.window_prefill_s * windowed_pairs
        )

    def _drop_ended(self) -> None:
        """Free the seats and blocks of requests that ended."""
        for sequence in self.running:
            if sequence.done:
                self._give_back(sequence)
        self.running = [sequence for sequence in self.running if not sequence.done]

    def _blocks_for(self, sequence: _Sequence, tokens: int) -> int:
        """Blocks of its own that a request needs to hold `tokens` tokens."""
        return -(-tokens // self.engine.block_size) - self._whole_blocks(sequence.cached)

    def _whole_blocks(self, tokens: int) -> int:
        return tokens // self.engine.block_size if self.engine.enable_prefix_caching else 0

    def _take(self, sequence: _Sequence, count: int) -> None:
        """Give out the blocks that were freed first; what they held can no longer be found."""
        for _ in range(count):
            block = next(iter(self.free))
            del self.free[block]
            self.content.pop(block, None)
            sequence.blocks.append(block)

    def _give_back(self, sequence: _Sequence) -> None:
        """Free a request's blocks, the last one first; full ones remain findable."""
        if self.engine.enable_prefix_caching:
            known = sequence.computed
            if self.engine.async_scheduling and not sequence.prefilling:
                known -= 1  # The token of the step that runs is not known yet.
            full = known // self.engine.block_size - self._whole_blocks(sequence.cached)
            for place in range(full):
                self.content[sequence.blocks[place]] = (sequence.index, place)
        for block in reversed(sequence.blocks):
            self.free[block] = None
        sequence.blocks = []

    def _find_blocks(self, sequence: _Sequence) -> list[int]:
        """Free blocks that still hold the beginning of a preempted request, from its first."""
        places = {
            place: block
            for block, (index, place) in self.content.items()
            if index == sequence.index
        }
        # At least the last token is computed again: its logits are needed.
        most = (sequence.tokens - 1) // self.engine.block_size
        found: list[int] = []
        while len(found) in places and len(found) < most - self._whole_blocks(sequence.cached):
            found.append(places[len(found)])
        return found

    def _let_cancelled_go(self) -> None:
        cancel_s = self.requests.cancel_s
        if cancel_s is None:
            return
        for sequence in [*self.waiting, *self.running]:
            if not sequence.done and cancel_s[sequence.index] <= self.seen:
                if sequence in self.running:
                    self.running.remove(sequence)
                    self._give_back(sequence)
                else:
                    self.waiting.remove(sequence)
