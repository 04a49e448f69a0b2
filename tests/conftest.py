"""What all tests share: where the real data are. They stay outside the project; their licences differ from its own."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data and golden outputs; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("CGN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no real data at {folder}: set CGN_TEST_DATA to the folder that holds mnist/, golden/, ...")
    return folder
