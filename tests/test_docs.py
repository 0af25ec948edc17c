"""The documentation agrees with the code where it can be checked."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


def test_the_page_of_fields_is_up_to_date() -> None:
    render = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))["render"]
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == render(), "run: python docs/make_configuration.py"


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    requirements = project["dependencies"] + project["optional-dependencies"]["dev"]
    rows = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| "))
    explained = set(re.findall(r"[\w-]+", rows))
    assert {re.split(r"[<>=!~\[ ]", r)[0] for r in requirements} <= explained


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
