"""LangChain's OpenAI client pointed at the router: whole answers, streams, structured output."""

import asyncio
import json
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr
from routing import Served, both, served

pytestmark = pytest.mark.live


class Refund(BaseModel):
    """What a customer wants back."""

    order: int
    reason: str


def chat(to: Served, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="advisor",
        base_url=to.url + "/v1",
        api_key=SecretStr("any"),
        max_retries=0,
        include_response_headers=True,
        **settings,
    )


def test_invoke_names_the_route_and_counts_tokens() -> None:
    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:
            answer = await chat(to).ainvoke([HumanMessage("where is my money?")])
            assert answer.content == "refund_status"
            assert answer.response_metadata["headers"]["x-advisor-route"] == "slm"
            assert answer.usage_metadata is not None
            assert answer.usage_metadata["total_tokens"] == 105

            models.slm.confidence = 0.1
            models.llm.text = "card_lost"
            answer = await chat(to).ainvoke("my card is gone")
            assert answer.content == "card_lost"
            assert answer.response_metadata["headers"]["x-advisor-route"] == "llm"

    asyncio.run(scenario())


@pytest.mark.parametrize("confidence", [0.99, 0.1], ids=["small", "large"])
def test_streams(confidence: float) -> None:
    async def scenario() -> None:
        async with both() as models, served(models.config()) as to:
            models.slm.confidence = confidence
            chunks = [c async for c in chat(to, stream_usage=True).astream("where is my money?")]
            assert "".join(str(chunk.content) for chunk in chunks) == "refund_status"
            used = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
            assert [usage["total_tokens"] for usage in used] == [105]

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_is_checked_before_it_is_given_out(method: Any) -> None:
    """The small model's record lacks a field: the large one's, which has it, is given out."""

    def message(record: dict[str, Any]) -> dict[str, Any]:
        if method != "function_calling":
            return {"role": "assistant", "content": json.dumps(record)}
        call = {"name": "Refund", "arguments": json.dumps(record)}
        calls = [{"id": "call-1", "type": "function", "function": call}]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    async def scenario() -> None:
        async with both() as models:
            # "json_mode" states no schema: there the router's own task has it.
            task: dict[str, Any] = {"labels": None}
            if method == "json_mode":
                task["schema"] = Refund.model_json_schema()
            models.slm.message = message({"order": 7})
            models.llm.message = message({"order": 7, "reason": "broken"})
            config = models.config(task=task, policy={"threshold": None})
            async with served(config) as to:
                found = await chat(to).with_structured_output(Refund, method=method).ainvoke("…")
            assert found == Refund(order=7, reason="broken")
            assert (len(models.slm.bodies), len(models.llm.bodies)) == (1, 1)

    asyncio.run(scenario())


def test_an_error_is_the_openai_one() -> None:
    import openai

    async def scenario() -> None:
        async with both() as models, served(models.config(policy={"name": "llm_only"})) as to:
            models.llm.fault = "rate_limited"
            with pytest.raises(openai.RateLimitError):
                await chat(to).ainvoke("where is my money?")

    asyncio.run(scenario())
