"""What the pages say about files, commands and settings is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ourvidz_gateway.catalog import load_catalog

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def pages() -> list[Path]:
    """All Markdown pages of ours; folders with a dot hold other people's."""
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*.md")]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


def headings(page: str) -> set[str]:
    """The anchors that a page's headings have."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_relative_link_leads_somewhere(page: Path):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^()\s]+)\)", text) if not re.match(r"https?:", link)]
    dead = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / page.parent / path) if path else ROOT / page
        if not target.exists() or (anchor and anchor not in headings(target.read_text())):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_is_named_exists(page: str):
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_the_settings_page_is_what_the_settings_classes_say():
    script = [sys.executable, ROOT / "scripts" / "make_settings_page.py"]
    environment = {**os.environ, "OURVIDZ_LOG_LEVEL": "debug", "OURVIDZ_SDXL_LOG_LEVEL": "debug"}
    printed = subprocess.run(script, capture_output=True, text=True, check=True, env=environment).stdout
    assert (ROOT / "docs" / "settings.md").read_text() == printed, "run: make_settings_page.py > docs/settings.md"


def test_the_readme_lists_exactly_the_job_types_of_the_catalog():
    listed = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \| ([\d.]+) \| [\d.]+ s \|$", README, re.MULTILINE)
    recipes = {name: job_type.recipe for name, job_type in load_catalog().job_types.items()}
    assert listed == [(name, str(recipe.step_count), str(recipe.guidance_scale)) for name, recipe in recipes.items()]


def test_the_readme_shows_the_grpc_example_as_it_is():
    assert f"```python\n{(ROOT / 'examples' / 'grpc_client.py').read_text()}```" in README


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_one_screen(example: Path):
    assert len(example.read_text().splitlines()) <= 30
