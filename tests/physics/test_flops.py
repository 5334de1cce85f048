"""Operations of a request, against the 2·P·T rule and against counting token by token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog import ModelSpec, load_catalog
from advisor.physics.attention import attention_flops
from advisor.physics.flops import request_flops, rule_of_thumb_flops
from advisor.physics.parameters import parameter_count

CATALOG = load_catalog()


def token_by_token(model: ModelSpec, prompt: int, output: int) -> float:
    """The prompt in one go, then each token fed back: everything a step multiplies."""
    body = 2.0 * parameter_count(model).active_body
    head = 2.0 * model.vocab_size * model.hidden_size
    total = body * prompt + attention_flops(model, prompt) + head
    for past in range(prompt, prompt + output - 1):
        total += body + attention_flops(model, 1, past) + head
    return total


def test_seven_billion_parameters_times_512_tokens_are_seven_tflop() -> None:
    model = CATALOG.model("meta-llama/Llama-2-7b-hf")
    assert rule_of_thumb_flops(model, 512) == pytest.approx(6.9e12, rel=0.01)
    assert request_flops(model, 511, 1).total == pytest.approx(7e12, rel=0.05)


@given(prompt=st.integers(2, 200), output=st.integers(1, 40))
def test_closed_form_equals_token_by_token(prompt: int, output: int) -> None:
    for name in ("meta-llama/Llama-3.1-8B", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3"):
        model = CATALOG.model(name)
        flops = request_flops(model, prompt, output)
        assert flops.total == pytest.approx(token_by_token(model, prompt, output), rel=1e-12)


def test_the_rule_of_thumb_misses_attention_at_long_context() -> None:
    model = CATALOG.model("meta-llama/Llama-3.1-8B")
    assert request_flops(model, 32_768, 1).difference < -0.15


def test_the_rule_of_thumb_charges_the_embedding_table_as_if_it_were_multiplied() -> None:
    """Llama-3.1-8B at 256 + 256: a table of 0.525 of 8.03 billion, and head and last token."""
    model = CATALOG.model("meta-llama/Llama-3.1-8B")
    assert request_flops(model, 256, 256).difference == pytest.approx(0.10, abs=0.01)


@pytest.mark.parametrize(("prompt", "output"), [(0, 1), (1, 0)])
def test_empty_requests_are_refused(prompt: int, output: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        request_flops(CATALOG.model("meta-llama/Llama-3.1-8B"), prompt, output)
