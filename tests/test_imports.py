"""The rooms: the engine knows nothing of screens, and light commands load nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIGHT = (
    "events", "control", "inbox", "config", "presets", "runs", "status", "wire", "doctor",
    "record.lineage", "record.journal", "record.recorder", "record.digest", "record.story", "watching.watch",
)  # fmt: skip


def loaded_by(code: str, cwd: Path = ROOT, *, ends: int = 0) -> set[str]:
    """Top-level modules that are loaded in a fresh interpreter after running `code`, which ends with that."""
    report = "import sys; print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}))"
    program = f"import atexit; atexit.register(lambda: exec({report!r})); {code}"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == ends, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("LOADED"), done.stderr
    return set(last.split()[1:])


def command(*arguments: str) -> str:
    return f"import sys; sys.argv = {['stepwise', *arguments]!r}; from stepwise_tui.cli import main; main()"


def test_the_engine_imports_no_screen() -> None:
    """The contract of pyproject.toml; also indirect imports count."""
    linter = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(linter, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_light_modules_load_without_torch() -> None:
    loaded = loaded_by("; ".join(f"import trainer.{module}" for module in LIGHT))
    assert "trainer" in loaded and not {"torch", "transformers", "textual"} & loaded


def test_the_cockpit_loads_without_torch() -> None:
    """Whoever attaches waits for all that is loaded."""
    assert not {"torch", "transformers"} & loaded_by("import stepwise_tui.app")


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "textual", "rich", "pydantic", "numpy", "trainer"}
    assert not heavy & loaded_by(command("--help"))


def test_a_defect_is_told_without_torch() -> None:
    """What goes wrong may be that torch cannot be loaded."""
    failing = "from stepwise_tui.output import explained\nwith explained(): raise RuntimeError('x')"
    assert "torch" not in loaded_by(f"exec({failing!r})", ends=1)


def test_help_of_a_command_loads_nothing_of_ours() -> None:
    """Typer itself reads arguments with pydantic; nothing else may be loaded."""
    heavy = {"torch", "transformers", "textual", "rich", "numpy", "trainer"}
    assert not heavy & loaded_by(command("run", "preset", "--help"))


@pytest.mark.parametrize("arguments", [("runs",), ("runs", "--json"), ("presets",)])
def test_looking_around_loads_neither_torch_nor_textual(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert not {"torch", "transformers", "textual"} & loaded_by(command(*arguments), tmp_path)


def test_a_mistake_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    mistaken = command("run", "preset", "mult2x2", "--set", "optim.lr=fast")
    assert "torch" not in loaded_by(mistaken, tmp_path, ends=2)
    assert "torch" not in loaded_by(command("resume", "nowhere"), tmp_path, ends=2)


def test_training_from_scratch_loads_no_datasets() -> None:
    assert "datasets" not in loaded_by("import trainer.run, stepwise_tui.link")
