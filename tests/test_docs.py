"""The documentation: the site builds, links lead somewhere, and the commands that it names exist."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cgn.__main__ import COMMANDS, VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("results/**/*.md")]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"python -m ((?:cgn|flows|tests)(?:\.\w+)*)(?: +([\w-]+))?")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file; the part after # is the site's business."""
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not re.match(r"\w+:|#", link)]
    return [link for link in targets if not (page.parent / link.partition("#")[0]).exists()]


def unknown_commands(text: str) -> list[str]:
    """`python -m` commands whose module does not exist, and those of cgn whose verb does not."""
    joined = text.replace("\\\n", " ")
    unknown = []
    for module, word in MODULE.findall(joined):
        if importlib.util.find_spec(module) is None:
            unknown.append(module)
        elif module == "cgn" and word.islower() and word[0] != "-" and word not in {*VERBS, *COMMANDS}:
            unknown.append(f"{module} {word}")
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_to_files(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_exist(page: Path) -> None:
    assert unknown_commands(page.read_text(encoding="utf-8")) == []


def test_a_wrong_link_and_a_wrong_command_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#x) [b](missing.md) [c](https://example.org)", encoding="utf-8")
    assert broken_links(page) == ["missing.md"]
    text = "python -m cgn VERB; python -m cgn --help; python -m cgn evaluate x; python -m cgn train; python -m tests.no"
    assert unknown_commands(text) == ["cgn train", "tests.no"]


def test_test_files_in_commands_exist() -> None:
    named = {path for page in PAGES for path in re.findall(r"pytest (tests/\S+?\.py)", page.read_text("utf-8"))}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.long
def test_the_site_builds_strictly_and_needs_no_other_server(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {page: page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 8
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]*src="?(?:https?:)?//|<link[^>]*rel="?stylesheet[^>]*href="?(?:https?:)?//'
    )
    assert [page for page, text in pages.items() if loaded.search(text)] == []
    reference = pages[tmp_path / "site" / "api" / "index.html"]
    from cgn import __all__ as public

    assert [name for name in public if f'id="cgn.api.{name}"' not in reference] == []
    assert re.findall(r'id="cgn\.api\.(?:\w+\.)?_\w+"', reference) == []
