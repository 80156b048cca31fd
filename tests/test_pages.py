"""The pages that users read: where their links lead."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "results/*.md", "benchmarks/*.md", "dmfer_jax/**/*.md")
    for page in ROOT.glob(pattern)
)


def headings_of(page: Path) -> set[str]:
    """Names of a page's headings as anchors, made as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in headings_of(target), f"{link}: no such heading"


def test_reference_names_what_there_is():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    table = text.partition("## Where things are")[2].partition("##")[0]
    names = re.findall(r"`(dmfer_jax\.[\w.]+)`", table)
    assert len(names) > 30
    for name in names:
        assert name == "dmfer_jax.load" or importlib.util.find_spec(name), name
