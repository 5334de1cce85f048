"""One tiny model in this process: text in, tokens with log-probabilities out.

CTranslate2 runs the int8 weights on one thread, one request at a time. Log-probabilities are the
log-softmax of the logits over the whole vocabulary, before any temperature.
"""

from __future__ import annotations

import codecs
import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from advisor.catalog.locations import PROFILES
from advisor.errors import InputError
from advisor.trial.sandbox.prompt import EOS_TOKEN

Role = Literal["small", "large"]
ROLES: tuple[Role, ...] = ("small", "large")
FinishReason = Literal["stop", "length", "cancelled"]

WEIGHTS = PROFILES / "sandbox"
"""`<role>/ctranslate2` (int8), `<role>/checkpoint` (Hugging Face, fp16), and the card."""

CONTEXT_TOKENS = 256
"""Prompt and answer together; the longest request the task makes has under half of that."""

DEFAULT_MAX_TOKENS = 64
"""The longest right answer has 18 tokens."""


@dataclass(frozen=True)
class Alternative:
    """A token that could have stood at a place."""

    text: bytes
    logprob: float


@dataclass(frozen=True)
class GeneratedToken:
    """One token of an answer."""

    text: bytes
    logprob: float
    alternatives: tuple[Alternative, ...]
    """The likeliest tokens at this place, best first, as many as were asked for."""


@dataclass(frozen=True)
class Generation:
    """One answer."""

    tokens: tuple[GeneratedToken, ...]
    """Without the end-of-sequence token."""
    text: str
    """What they spell, up to a stop text if one was met."""
    finish_reason: FinishReason
    steps: int
    """Decoding steps, the one that ended the answer included: what the work is proportional to."""


@dataclass(frozen=True)
class Decoding:
    """How an answer is to be decoded."""

    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    """0: the likeliest token each time."""
    top_logprobs: int = 0


class Spelling:
    """The text of an answer as its tokens come: what may be shown already, and what must wait.

    Held back are the bytes of a character that is not whole yet and, where there are stop texts,
    as many characters as could be the beginning of one.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(text for text in stop if text)
        self._kept = max((len(text) for text in self._stop), default=1) - 1
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self.stopped = False
        """Whether a stop text was met; nothing from it on is ever shown."""

    def add(self, piece: bytes) -> str:
        """What can be shown once this token is there."""
        if self.stopped:
            return ""
        return self._release(self._decoder.decode(piece), self._kept)

    def finish(self) -> str:
        """What is left to be shown when the answer is over."""
        return "" if self.stopped else self._release(self._decoder.decode(b"", final=True), 0)

    def _release(self, text: str, kept: int) -> str:
        self._pending += text
        met = [place for place in map(self._pending.find, self._stop) if place >= 0]
        if met:
            self.stopped = True
            shown, self._pending = self._pending[: min(met)], ""
            return shown
        cut = max(0, len(self._pending) - kept)
        shown, self._pending = self._pending[:cut], self._pending[cut:]
        return shown


class Engine:
    """A model of the sandbox, loaded.

    Args:
        role: which of the two.
        threads: threads that one generation uses.

    Raises:
        InputError: its weights are not there, or the engine is not installed.
    """

    def __init__(self, role: Role, *, threads: int = 1) -> None:
        try:
            ctranslate2 = import_module("ctranslate2")
            tokenizers = import_module("tokenizers")
        except ImportError as error:
            raise InputError(f"the sandbox engine needs the package '{error.name}'") from None
        tokenizer_file = model_folder(role, "checkpoint") / "tokenizer.json"
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(tokenizer_file))
        self._bytes = token_bytes(self._tokenizer)
        self._end_id: int = self._tokenizer.token_to_id(EOS_TOKEN)
        self._generator: Any = ctranslate2.Generator(
            str(model_folder(role, "ctranslate2")),
            device="cpu",
            compute_type="int8",
            inter_threads=1,
            intra_threads=threads,
        )

    def close(self) -> None:
        """Let the model and its thread go: left to the interpreter's end, they abort it."""
        self._generator = None

    def prompt_tokens(self, prompt: str) -> list[str]:
        """Tokens of a whole prompt (`advisor.trial.sandbox.prompt.prompt_text`).

        Raises:
            InputError: none, or more than the context has room for.
        """
        tokens: list[str] = self._tokenizer.encode(prompt, add_special_tokens=False).tokens
        if not 0 < len(tokens) < CONTEXT_TOKENS:
            raise InputError(
                f"the prompt has {len(tokens)} tokens; 1 to {CONTEXT_TOKENS - 1} are accepted "
                "(prompt and answer share the context)"
            )
        return tokens

    def generate(
        self,
        prompt: Sequence[str],
        decoding: Decoding | None = None,
        on_token: Callable[[GeneratedToken], bool] | None = None,
    ) -> Generation:
        """Decode one answer.

        Args:
            prompt: tokens, as `prompt_tokens` returns them.
            decoding: limits and sampling; None: the likeliest tokens, at most 64.
            on_token: called as each token appears; a true answer ends the generation.
        """
        chosen = decoding or Decoding()
        answer = _Answer(chosen, self._end_id, self._bytes, on_token)
        self._generator.generate_batch(
            [list(prompt)],
            max_length=min(chosen.max_tokens, CONTEXT_TOKENS - len(prompt)),
            include_prompt_in_result=False,
            return_scores=True,
            return_logits_vocab=True,
            return_end_token=True,
            sampling_topk=0 if chosen.temperature > 0 else 1,
            sampling_temperature=chosen.temperature or 1.0,
            callback=answer.step,
        )
        # CTranslate2's thread drops the callback some time after this: what it still refers to by
        # then must not lead to the generator, which cannot be destroyed from its own thread.
        answer.on_token = None
        return answer.generation()


@dataclass
class _Answer:
    """An answer while it is decoded."""

    decoding: Decoding
    end_id: int
    vocabulary: Sequence[bytes]
    on_token: Callable[[GeneratedToken], bool] | None
    tokens: list[GeneratedToken] = field(default_factory=list)
    text: str = ""
    steps: int = 0
    reason: FinishReason = "length"

    def __post_init__(self) -> None:
        self.spelling = Spelling(self.decoding.stop)

    def step(self, result: Any) -> bool:
        """Called by the engine for each token; true ends the decoding."""
        _stay_known()
        self.steps += 1
        if result.token_id == self.end_id:
            self.reason = "stop"
            return True
        token = generated_token(result, self.vocabulary, self.decoding.top_logprobs)
        self.tokens.append(token)
        self.text += self.spelling.add(token.text)
        if self.on_token is not None and self.on_token(token):
            self.reason = "cancelled"
            return True
        if self.spelling.stopped:
            self.reason = "stop"
        return self.spelling.stopped

    def generation(self) -> Generation:
        text = self.text + self.spelling.finish()
        return Generation(tuple(self.tokens), text, self.reason, self.steps)


_this_thread = threading.local()


def _stay_known() -> None:
    """Keep the interpreter's record of the calling thread, which is CTranslate2's own.

    It is made when that thread calls back and dropped when the call returns: for every token, with
    memory mapped and unmapped, which takes up to a fifth of a token's time. A second claim on it
    that is not given back lets it live as long as the thread.
    """
    if not getattr(_this_thread, "stays", False):
        ctypes.pythonapi.PyGILState_Ensure()
        _this_thread.stays = True


def generated_token(result: Any, vocabulary: Sequence[bytes], top: int) -> GeneratedToken:
    """A step of CTranslate2 as a token with its `top` likeliest rivals."""
    rivals: tuple[Alternative, ...] = ()
    if top:
        logprobs = log_softmax(np.asarray(result.logits, dtype=np.float64).reshape(-1))
        best = np.argpartition(-logprobs, top)[:top]
        best = best[np.argsort(-logprobs[best], kind="stable")]
        rivals = tuple(Alternative(vocabulary[i], float(logprobs[i])) for i in best)
    return GeneratedToken(vocabulary[result.token_id], float(result.log_prob), rivals)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(vocabulary,) log-probabilities: logits − ln Σ exp logits."""
    shifted = logits - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def model_name(role: Role) -> str:
    """The name a model is served under."""
    return f"sandbox-{role}"


def model_folder(role: Role, kind: Literal["ctranslate2", "checkpoint"]) -> Path:
    """Folder of one model's shipped weights.

    Raises:
        InputError: no such role, or nothing there.
    """
    if role not in ROLES:
        raise InputError(f"role '{role}': accepted are {', '.join(ROLES)}")
    folder = WEIGHTS / role / kind
    if not folder.is_dir():
        raise InputError(f"sandbox: no weights in {folder}")
    return folder


def token_bytes(tokenizer: Any) -> list[bytes]:
    """What each token id spells, in bytes.

    A byte-level vocabulary writes each byte as one printable character (the table of GPT-2:
    printable bytes are themselves, the others follow from U+0100 on); added tokens are plain text.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain}
    table |= {chr(256 + place): byte for place, byte in enumerate(others)}
    added = tokenizer.get_added_tokens_decoder()
    spelt = []
    for token_id in range(tokenizer.get_vocab_size()):
        text = tokenizer.id_to_token(token_id)
        is_plain_text = token_id in added
        spelt.append(text.encode() if is_plain_text else bytes(table[char] for char in text))
    return spelt
