"""The wheel alone, away from the source folder, is enough to train."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = ["stop.steps=3", "optim.batch=4", "eval.examples=4", "data.test=4", "model.width=16"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_presets_and_nothing_of_the_workshop(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    presets = {f"trainer/_presets/{path.name}" for path in (ROOT / "presets").glob("*.toml")}
    assert presets <= set(names)
    assert {"stepwise_tui/styles.tcss", "trainer/run.py"} <= set(names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"trainer", "stepwise_tui"}


@pytest.mark.slow
def test_installed_from_the_wheel_it_lists_presets_and_trains(wheel: Path, tmp_path: Path) -> None:
    """Dependencies come from this environment; ours must come from the wheel."""
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True)
    # What this environment has, after what the wheel installed; an editable install of ours must not count.
    (site / "borrowed.pth").write_text(next(p for p in sys.path if p.endswith("site-packages")) + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def stepwise(*arguments: str) -> str:
        command = [str(place / "bin" / "stepwise"), *arguments]
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import trainer, stepwise_tui; print(trainer.__file__, stepwise_tui.__file__)"
    python = [str(place / "bin" / "python"), "-c", where]
    found = subprocess.run(
        python, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert found.count(str(place)) == 2
    assert "mult2x2-breaks" in stepwise("presets")
    settings = [word for setting in TINY for word in ("--set", setting)]
    lines = stepwise("run", "preset", "mult2x2", "--name", "first", "--plain", *settings)
    assert "test accuracy" in lines.splitlines()[-1]
    assert "first" in stepwise("runs")
