"""What all tests share: where the real data are. They stay outside the project; their licences differ from its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DRILL = "drill"
"""The property of a test that holds its line in the table of drills: what was seen, seconds to recover."""
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when Ray is imported: it listens on 127.0.0.1 alone


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long` runs the tests that are marked `long`, too; `--extended` also those that are marked `extended`."""
    parser.addoption("--long", action="store_true", help="run the tests that take long, too")
    parser.addoption("--extended", action="store_true", help="run all tests; some take minutes each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for: by an option, with `-m`, or by the test's own name."""
    named = any("::" in word for word in config.invocation_params.args)
    if config.getoption("--extended") or config.getoption("-m") or named:
        return
    left_out = ["extended"] if config.getoption("--long") else ["extended", "long"]
    long = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Print the table of docs/drills.md."""
    yield
    rows = []
    for report in terminalreporter.getreports("passed"):
        title = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        rows += [(title, *value) for name, value in report.user_properties if name == DRILL]
    if rows:
        terminalreporter.write_line("\n| drill | what was seen | seconds to recover |\n|---|---|---|")
        for row in sorted(rows):
            terminalreporter.write_line(f"| {' | '.join(row)} |")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data and golden outputs; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("CGN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no real data at {folder}: set CGN_TEST_DATA to the folder that holds mnist/, golden/, ...")
    return folder
