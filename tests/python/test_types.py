"""What the type checkers and the linter say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "crates/omega-python"


def passes(*command: str | Path, where: Path = ROOT) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=where, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stub_says_what_the_module_is(tmp_path: Path) -> None:
    allowed = PACKAGE / "stubtest.allow"
    passes("mypy.stubtest", "omega_resilience._omega", "--allowlist", allowed, where=tmp_path)


def test_mypy_accepts_a_program_that_uses_everything(tmp_path: Path) -> None:
    passes("mypy", "--strict", HERE / "everything.py", where=tmp_path)


def test_mypy_accepts_the_package() -> None:
    passes("mypy", "--strict", "omega_resilience", where=PACKAGE / "python")


def test_pyright_accepts_a_program_that_uses_everything(tmp_path: Path) -> None:
    passes("pyright", "--pythonpath", sys.executable, HERE / "everything.py", where=tmp_path)


def test_ruff() -> None:
    where = [PACKAGE / "python", PACKAGE / "compat", PACKAGE / "benches", HERE]
    config = ["--config", PACKAGE / "pyproject.toml"]
    passes("ruff", "check", *config, *where)
    passes("ruff", "format", "--check", *config, *where)
