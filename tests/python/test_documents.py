"""Every example of docs/python.md and of the package's README, as it is printed."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from omega_resilience.testing import Emulator

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/python.md", "crates/omega-python/README.md"])
async def test_every_example_runs(page: str, omega_emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        # The emulator has no key of this name's, and what is asked of it goes to it.
        done = eval(compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(done):
            await done
    assert "You said: Hello!" in capsys.readouterr().out


def test_every_argument_is_in_the_page() -> None:
    from omega_resilience import UnifiedLLMClient

    page = (ROOT / "docs/python.md").read_text()
    for function in (UnifiedLLMClient.__init__, UnifiedLLMClient.chat):
        for name, parameter in inspect.signature(function).parameters.items():
            if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                assert f"`{name}" in page, name


def test_every_exception_is_in_the_page() -> None:
    from omega_resilience import _errors

    page = (ROOT / "docs/python.md").read_text()
    assert all(f"`{name}`" in page for name in _errors.__all__)
