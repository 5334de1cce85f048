"""Tests whose imports an environment with the `test` extra alone does not have."""

from importlib.util import find_spec

NEEDS = {"playwright": "browser", "langchain_openai": "router/test_router_langchain.py"}

collect_ignore = [path for package, path in NEEDS.items() if find_spec(package) is None]
