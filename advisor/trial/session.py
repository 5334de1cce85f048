"""A running trial: where its records go, what ends it early, and how one arm is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from advisor.task import TaskProfile
from advisor.trial.data import TrialRow
from advisor.trial.endpoints import body_of, risk_headers
from advisor.trial.judging import Judging, Price
from advisor.trial.load.driver import ArmResult, Outcome, Watch, run_arm
from advisor.trial.load.plan import DEFAULT_TIMEOUT_S, LoadPlan, PlannedRequest
from advisor.trial.records import ArmName, RequestRecord
from advisor.trial.store import TrialStore

Announce = Callable[[str], None]


class StoppedError(Exception):
    """The trial was told to stop, or a cap was reached."""


@dataclass
class Session:
    """What every arm of a trial shares."""

    store: TrialStore
    trial: str
    task: TaskProfile
    rows: Mapping[str, TrialRow]
    judging: Judging
    keys: Mapping[str, str]
    announce: Announce
    stop: threading.Event
    budget_usd: float | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    keep_answers: bool = True
    spent_usd: float = 0.0

    def send(
        self,
        arm: ArmName,
        base_url: str,
        model: str,
        rows: Sequence[TrialRow],
        *,
        times_s: Sequence[float | None] | None = None,
        concurrency: int | None = None,
        stream: bool = True,
        logprobs: bool = False,
        api_key_env: str | None = None,
        price: Price | None = None,
        extras: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
        numbers: Sequence[int] | None = None,
        resumed_at_s: float | None = None,
    ) -> ArmResult:
        """Send rows to one place, each on record.

        Args:
            times_s: when each is sent; None: a closed loop of `concurrency` users.
            price: of the answers that say no cost themselves.
            watch: a reason to end this arm alone.
            numbers: of the requests in the arm; None: from 0.
            resumed_at_s: where an arm goes on that was cut off (`run_arm`).

        Raises:
            StoppedError: the whole trial was told to end meanwhile, or the sender's process died.
            InputError: the records cannot be written.
        """
        plan = LoadPlan(
            base_url=base_url,
            model=model,
            requests=[
                PlannedRequest(
                    number=numbers[place] if numbers is not None else place,
                    row_id=row.id,
                    body={**body_of(row, self.task, logprobs=logprobs), **(extras or {})},
                    scheduled_s=times_s[place] if times_s is not None else None,
                    headers=risk_headers(row),
                )
                for place, row in enumerate(rows)
            ],
            api_key_env=api_key_env,
            timeout_s=self.timeout_s,
            stream=stream,
            keep_logprobs=logprobs,
            concurrency=concurrency if times_s is None else None,
        )
        ended: list[str] = []
        result = run_arm(
            self.store,
            self.trial,
            arm,
            plan,
            judge=partial(self._judge, price=price),
            watch=partial(self._watch, own=watch, ended=ended),
            keys=self.keys,
            keep_answers=self.keep_answers,
            resumed_at_s=resumed_at_s,
        )
        if ended:
            raise StoppedError(ended[0])
        if result.died:
            raise StoppedError(str(result.stopped))
        return result

    def check(self) -> None:
        """Raise where the trial was told to end.

        Raises:
            StoppedError: it was.
        """
        reason = self._reason()
        if reason is not None:
            raise StoppedError(reason)

    def _judge(self, outcome: Outcome, *, price: Price | None) -> RequestRecord:
        return self.judging(outcome, price=price)

    def _watch(
        self, records: Sequence[RequestRecord], *, own: Watch | None, ended: list[str]
    ) -> str | None:
        self.spent_usd += sum(record.cost_usd or 0.0 for record in records)
        reason = self._reason()
        if reason is not None:
            ended.append(reason)
            return reason
        return own(records) if own is not None else None

    def _reason(self) -> str | None:
        if self.stop.is_set():
            return "stopped by the user"
        if self.budget_usd is not None and self.spent_usd >= self.budget_usd:
            return f"the cap of ${self.budget_usd:g} is spent (${self.spent_usd:.4g})"
        return None
