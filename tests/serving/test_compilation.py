"""The kernel is compiled once, from the sources as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import CompileResultCacheImpl

from advisor.serving import compilation, compiled
from advisor.serving.compilation import ensure_compiled, is_cached
from advisor.serving.compiled import MODULES

SOURCES = Path(compiled.__file__).parent


def test_a_compiled_kernel_is_not_announced() -> None:
    ensure_compiled()
    assert is_cached()
    said: list[str] = []
    ensure_compiled(said.append)
    assert said == []


def test_a_cold_cache_is_announced_once(tmp_path: Path) -> None:
    """Another cache folder is cold; the announcement comes before the work."""
    program = (
        "from advisor.serving import compilation\n"
        "import advisor.serving.simulate as simulate\n"
        "simulate.compile_kernel = lambda everything: print('compiles', everything)\n"
        "compilation.ensure_compiled(print)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [compilation.MESSAGE, "compiles True"]


def test_where_nothing_can_be_written_code_is_compiled_for_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """numba refuses to cache without a folder; the simulator works all the same."""
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])

    @compiled.compiled
    def add(one: int) -> int:
        return one + 1

    assert add(1) == 2
    assert not compiled.is_on_disk(add)


def test_every_module_with_compiled_code_counts_towards_its_version() -> None:
    """Else a change in one would leave the others' cached code stale."""
    users = {
        path.stem
        for path in SOURCES.glob("*.py")
        if "@compiled\n" in (text := path.read_text(encoding="utf-8")) or "@inlined\n" in text
    }
    assert users <= set(MODULES)
    assert "layout" in MODULES  # its constants are compiled in
