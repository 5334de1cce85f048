"""Configurations: what is read, what is refused, in one line each and without secrets."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from routing import both, request, router

from advisor.catalog import load_catalog
from advisor.catalog.locations import PROFILES
from advisor.errors import InputError
from advisor.router import prerouting
from advisor.router.addresses import checked_url, is_loopback, is_refused
from advisor.router.config import ConfigurationError, RouterConfig
from advisor.router.costs import prices
from advisor.router.settings import RouterTask
from advisor.task import TaskProfile

EXAMPLE = PROFILES / "router" / "intent-classification.yaml"
UPSTREAM = {"base_url": "http://127.0.0.1:8001/v1", "model": "m"}


def document(**changes: Any) -> dict[str, Any]:
    return {"slm": UPSTREAM, "llm": UPSTREAM, **changes}


def problems(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        RouterConfig.from_mapping(document(**changes))
    return caught.value.problems


def test_the_shipped_example_is_what_its_schema_says() -> None:
    schema = json.loads((PROFILES / "schemas" / "router.json").read_text())
    plain = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))

    assert list(Draft202012Validator(schema).iter_errors(plain)) == []
    config = RouterConfig.load(EXAMPLE)
    assert config.task.kind == "label"
    assert RouterConfig.from_yaml(config.to_yaml()) == config


def test_a_task_profile_gives_the_gates() -> None:
    task = TaskProfile.load(PROFILES / "tasks" / "invoice-extraction.yaml").task
    found = RouterTask.of_task(task)

    assert found.kind == "json"
    assert found.rules == ("abs(total - net - tax) < 0.02",)
    config = RouterConfig.from_mapping(document()).model_copy(update={"task": found})
    assert RouterConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slm": {**UPSTREAM, "timeout": 3}}, "unknown key 'slm.timeout'"),
        ({"slm": {"model": "m"}}, "'slm.base_url' is missing"),
        ({"slm": None}, "slm is missing: the policy asks a small model"),
        ({"llm": None}, "llm is missing"),
        ({"policy": {"threshold": float("nan")}}, "policy.threshold"),
        ({"policy": {"name": "hedge"}}, "needs hedge_after_s"),
        ({"policy": {"name": "prerouter"}}, "needs prerouter"),
        ({"policy": {"score": "logistic"}}, "logistic"),
        ({"policy": {"canary": {"share": 2, "policy": "llm_only"}}}, "policy.canary.share = 2"),
        ({"task": {"pattern": "("}}, "pattern"),
        ({"task": {"rules": ["import os"]}}, "not an expression"),
        ({"task": {"schema": {"$ref": "http://x/y"}}}, "remote reference"),
        ({"high_risk": [{"header": "a", "field": "b"}]}, "one of header, field and pattern"),
        ({"high_risk": [{"pattern": "["}]}, "pattern"),
        ({"budget": {"usd_per_day": 5}}, "needs slm.price"),
        ({"failure": {"retries": -1}}, "failure.retries = -1"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    [problem] = problems(**changes)

    assert message in problem
    assert "\n" not in problem


def test_every_problem_has_a_line() -> None:
    found = problems(slm={**UPSTREAM, "timeout_s": 0}, failure={"retries": -1}, nonsense=1)

    assert len(found) == 3


SECRET = "sk-proj-0123456789"


@pytest.mark.parametrize(
    "changes",
    [
        {"slm": {**UPSTREAM, "api_key_env": SECRET}},
        {"slm": {**UPSTREAM, "api_key": SECRET}},
        {"slm": {**UPSTREAM, "base_url": f"http://me:{SECRET}@host/v1"}},
        {"server": {"api_keys_env": SECRET}},
        {"cache": {"redis_url_env": f"redis://:{SECRET}@host"}},
        {"slm": {**UPSTREAM, "extra_body": SECRET}},
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(changes: dict[str, Any]) -> None:
    assert SECRET not in " ".join(problems(**changes))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1",
        "http://[fe80::1]/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://[fd00:ec2::254]/v1",
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://metadata.google.internal/v1",
        "http://METADATA.google.internal./v1",
        "http://0.0.0.0:80/v1",
        "http://100.100.100.200/v1",
        "file:///etc/passwd",
        "ftp://host/v1",
        "http:///v1",
        "http://host/v1?key=1",
        "http://host:99999/v1",
        f"http://{'a' * 80}.example/v1",
        "host/v1",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        checked_url(url)


@given(st.ip_addresses(v=4, network="169.254.0.0/16") | st.ip_addresses(v=6, network="fe80::/10"))
def test_no_link_local_address_passes(address: Any) -> None:
    assert is_refused(str(address))


def test_addresses_that_are_fine() -> None:
    for url in ("http://10.1.2.3:8000/v1", "https://api.example.com/v1/", "http://[::1]:8000/v1"):
        assert checked_url(url) == url.rstrip("/")
    assert is_loopback("127.0.0.5")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.com")


def test_a_name_that_resolves_to_a_metadata_service_is_not_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import asyncio

    async def rebound(*_: Any, **__: Any) -> list[Any]:
        return [(2, 1, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", rebound)

    async def scenario() -> None:
        async with both() as models:
            llm = {"base_url": "http://innocent.example/v1"}
            failure = {"retries": 0}
            policy = {"name": "llm_only"}
            async with router(models, llm=llm, policy=policy, failure=failure) as opened:
                answer = await opened.answer(request())
        assert answer.status == 502
        assert answer.body is not None
        assert answer.body["error"]["code"] == "upstream_connection"

    asyncio.run(scenario())


def test_the_environment_is_checked_at_the_start(tmp_path: Path) -> None:
    config = RouterConfig.from_mapping(
        document(
            slm={**UPSTREAM, "api_key_env": "SLM_KEY"},
            llm={**UPSTREAM, "api_key_env": "LLM_KEY"},
            policy={"name": "prerouter", "prerouter": {"file": "none.npz", "min_gain": 0.1}},
        ),
        folder=tmp_path,
    )
    with pytest.raises(ConfigurationError) as caught:
        config.check_environment({"LLM_KEY": "x"}, host="192.168.1.1")

    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "slm.api_key_env",
        "policy.prerouter.file",
        "--host 192.168.1.1 is reached from other machines",
    ]


@pytest.mark.parametrize("key", ["sk-1\r\nx-evil: 1", "sk-schlüssel"])
def test_a_key_that_no_header_can_hold_is_found_at_the_start_and_not_shown(key: str) -> None:
    config = RouterConfig.from_mapping(document(slm={**UPSTREAM, "api_key_env": "SLM_KEY"}))
    with pytest.raises(ConfigurationError, match="SLM_KEY holds a line break") as caught:
        config.check_environment({"SLM_KEY": key})
    assert "sk-" not in str(caught.value)


def test_a_file_that_is_no_pre_router_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match="not a pre-router"):
        prerouting.load(tmp_path / "x.npz")


def test_a_hosted_models_price_comes_from_the_catalogue() -> None:
    known = load_catalog().hosted[0]
    config = RouterConfig.from_mapping(document(llm={**UPSTREAM, "price": known.id}))
    found = prices(config)["llm"]

    assert found is not None
    assert found.output_usd_per_mtok == known.output_usd_per_mtok
    with pytest.raises(InputError, match="no hosted model of that name"):
        prices(RouterConfig.from_mapping(document(llm={**UPSTREAM, "price": "gpt-0"})))


def metric_names() -> set[str]:
    """Every name that the router's metrics may have at Prometheus."""
    import asyncio

    async def scenario() -> str:
        async with both() as models, router(models, cache={}) as opened:
            models.slm.confidence = 0.1
            await opened.answer(request())
            opened.metrics.compared("agree")
            return opened.metrics.text().decode()

    families = text_string_to_metric_families(asyncio.run(scenario()))
    return {sample.name for family in families for sample in family.samples}


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    import re

    dashboard = json.loads((PROFILES / "router" / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((PROFILES / "router" / "prometheus-alerts.yaml").read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    queries += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    asked = {name for query in queries for name in re.findall(r"\badvisor_\w+", query)}

    assert len(asked) >= 10
    assert asked <= metric_names()
    names = [rule["alert"] for group in alerts["groups"] for rule in group["rules"]]
    assert "AdvisorEscalationRateAboveLimit" in names
