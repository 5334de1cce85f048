"""The sandbox engine: what it spells, its queue, and its models' accuracy against their card."""

import codecs
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.documents import read_yaml
from advisor.errors import InputError
from advisor.quality.metrics import exact_match
from advisor.trial.sandbox import rows
from advisor.trial.sandbox.engine import (
    CONTEXT_TOKENS,
    ROLES,
    WEIGHTS,
    Decoding,
    Engine,
    GeneratedToken,
    Generation,
    Role,
    Spelling,
    log_softmax,
    model_folder,
)
from advisor.trial.sandbox.evaluate import SandboxFigures, evaluate_split
from advisor.trial.sandbox.metrics import ServerMetrics
from advisor.trial.sandbox.prompt import prompt_text
from advisor.trial.sandbox.scheduler import Job, Scheduler

pytest.importorskip("ctranslate2", reason="the light engine is not installed")


def card() -> SandboxFigures:
    return SandboxFigures.model_validate(
        read_yaml(WEIGHTS / "card.yaml", what="sandbox card")["figures"]
    )


@given(
    st.text(alphabet="ab}é€𝄞", max_size=10),
    st.text(alphabet="ab}é", min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=40, max_size=40),
)
def test_text_released_piece_by_piece_is_the_text_before_the_stop(
    text: str, stop: str, lengths: list[int]
) -> None:
    raw, spelling, shown = text.encode(), Spelling([stop]), ""
    for length in lengths:
        shown += spelling.add(raw[:length])
        raw = raw[length:]
        assert text.split(stop)[0].startswith(shown)
    shown += spelling.finish()

    assert not raw
    assert shown == text.split(stop)[0]


def test_of_two_stop_texts_the_first_that_is_whole_ends_the_answer() -> None:
    spelling = Spelling(["}}", ","])

    assert [spelling.add(piece) for piece in (b"{a", b"}", b"},b")] == ["{", "a", ""]
    assert spelling.stopped


def test_half_a_character_is_held_back() -> None:
    spelling = Spelling()

    assert spelling.add("€".encode()[:2]) == ""
    assert spelling.add("€".encode()[2:]) == "€"
    assert spelling.add(b"\xe2") + spelling.finish() == codecs.decode(b"\xe2", errors="replace")


def test_log_softmax_of_two_logits() -> None:
    assert log_softmax(np.array([0.0, math.log(3.0)])) == pytest.approx(
        [math.log(0.25), math.log(0.75)]
    )


class Recorder:
    """Stands for the model: notes whom it served, and takes its time."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.running = self.most = 0

    def generate(self, prompt: list[str], decoding: Decoding, on_token: object) -> Generation:
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(0.005)
        self.served.append(prompt[0])
        self.running -= 1
        if prompt[0] == "3":
            raise RuntimeError("broken")
        return Generation((), prompt[0], "stop", 2)


def test_requests_are_served_one_at_a_time_in_the_order_they_came() -> None:
    model, metrics = Recorder(), ServerMetrics("m")
    scheduler = Scheduler(model, metrics)  # type: ignore[arg-type]
    ends: list[Generation | Exception] = []
    jobs = [Job([str(i)], Decoding(), on_token=print, on_end=ends.append) for i in range(6)]
    jobs[4].cancelled.set()
    for job in jobs:
        scheduler.submit(job)
    scheduler.close()

    assert model.served == ["0", "1", "2", "3", "5"], "the cancelled one costs nothing"
    assert model.most == 1
    assert isinstance(ends[3], RuntimeError), "a failure is reported and the next one is served"
    assert [end.finish_reason for end in ends if isinstance(end, Generation)] == [
        "stop", "stop", "stop", "cancelled", "stop",
    ]  # fmt: skip
    page = metrics.page()
    assert 'vllm:request_success_total{finished_reason="stop",model_name="m"} 4.0' in page
    assert 'vllm:request_success_total{finished_reason="error",model_name="m"} 1.0' in page
    assert 'vllm:generation_tokens_total{model_name="m"} 8.0' in page
    assert 'vllm:num_requests_waiting{model_name="m"} 0.0' in page
    assert 'vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 6.0' in page


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    loaded = Engine("small")
    yield loaded
    loaded.close()


def test_tokens_spell_what_was_asked(engine: Engine) -> None:
    text = ' please book a desk, "é€"'
    tokens = engine._tokenizer.encode(text, add_special_tokens=False).ids

    assert b"".join(engine._bytes[i] for i in tokens).decode() == text


def test_log_probabilities_belong_to_the_tokens(engine: Engine) -> None:
    """The chosen token is the likeliest, and the whole vocabulary's probabilities sum to 1."""
    prompt = engine.prompt_tokens(prompt_text("please cancel the badge"))
    everything = engine.generate(prompt, Decoding(top_logprobs=1279))

    assert everything.finish_reason == "stop"
    assert everything.steps == len(everything.tokens) + 1
    for token in everything.tokens:
        assert token.alternatives[0].text == token.text
        assert token.alternatives[0].logprob == pytest.approx(token.logprob, abs=1e-5)
        total = sum(math.exp(rival.logprob) for rival in token.alternatives)
        assert total == pytest.approx(1, abs=1e-5)


def test_a_temperature_leaves_reported_log_probabilities_alone(engine: Engine) -> None:
    prompt = engine.prompt_tokens(prompt_text("please cancel the badge"))
    seen: list[GeneratedToken] = []
    for temperature in (0.0, 2.0):
        generation = engine.generate(
            prompt, Decoding(max_tokens=1, temperature=temperature, top_logprobs=3)
        )
        seen.append(generation.tokens[0])

    assert [rival.logprob for rival in seen[0].alternatives] == pytest.approx(
        [rival.logprob for rival in seen[1].alternatives], abs=1e-5
    )


def test_decoding_ends_at_its_limit_its_stop_text_and_when_nobody_listens(engine: Engine) -> None:
    prompt = engine.prompt_tokens(prompt_text("please cancel the badge"))
    whole = engine.generate(prompt)
    limited = engine.generate(prompt, Decoding(max_tokens=2))
    stopped = engine.generate(prompt, Decoding(stop=(',"item',)))
    left = engine.generate(prompt, on_token=lambda token: True)

    assert (limited.finish_reason, limited.steps) == ("length", 2)
    assert whole.text.startswith(limited.text)
    assert (stopped.finish_reason, stopped.text) == ("stop", whole.text.split(',"item')[0])
    assert (left.finish_reason, len(left.tokens)) == ("cancelled", 1)


def test_a_prompt_beyond_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match=f"1 to {CONTEXT_TOKENS - 1} are accepted"):
        engine.prompt_tokens(prompt_text("desk " * 300))


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(InputError, match="accepted are small, large"):
        model_folder("medium", "checkpoint")  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ROLES)
def test_one_model_serves_several_threads_alike(role: Role) -> None:
    """The engine may be asked from any thread; answers do not depend on which."""
    engine, answers = Engine(role), []
    prompt = engine.prompt_tokens(prompt_text("please order three desks by monday"))
    threads = [
        threading.Thread(target=lambda: answers.append(engine.generate(prompt).text))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    engine.close()
    assert len(set(answers)) == 1
    assert exact_match(answers[0], '{"intent":"order","item":"desk","day":"monday","count":3}')


FORGETFUL = """
from advisor.trial.sandbox.engine import Engine
for _ in range(8):
    engine = Engine("small")
    engine.generate(["<s>"], on_token=lambda token, engine=engine: False)
    del engine
print("alive")
"""


def test_an_engine_may_be_dropped_right_after_an_answer() -> None:
    """Its own thread still holds the callback then, and must not be the one that destroys it."""
    done = subprocess.run([sys.executable, "-c", FORGETFUL], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize("split", ["held_out", "unseen_wording"])
def test_models_are_as_good_as_their_card_says(split: str) -> None:
    """200 other rows: within four standard errors of a share of what the card states."""
    stated = getattr(card(), split)
    measured = evaluate_split(split, n=200, seed=5)  # type: ignore[arg-type]

    for role in ROLES:
        p = getattr(stated, role).accuracy
        allowed = 4 * math.sqrt(max(p * (1 - p), 0.01) / 200)
        assert getattr(measured, role).accuracy == pytest.approx(p, abs=allowed), role
    assert stated.small.accuracy < stated.large.accuracy
    assert stated.cascade["0.2"] > stated.small.accuracy


def test_the_card_is_of_what_ships() -> None:
    stated = card().bytes

    assert sum(stated.values()) < 10_000_000
    for folder, size in stated.items():
        assert sum(file.stat().st_size for file in (WEIGHTS / folder).iterdir()) == size


def test_test_rows_are_not_empty_of_risk() -> None:
    assert any(row.risk == "high" for row in rows("held_out", 200, 5))
