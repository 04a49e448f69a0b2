"""The documentation's site in a browser: every page, narrow and wide, light and dark."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.flows.conftest import ROOT
from tests.pages.browser import FAINT_TEXT, WIDER_THAN_THE_PAGE, assert_shown, brightness, chromium, visit

pytestmark = pytest.mark.extended
CONTRAST = 4.0  # what the theme gives to code
PAGES = sorted(path.stem for path in ROOT.glob("docs/*.md"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001 skips without one
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each request."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_readable(site: str, browser: Any, name: str, dark: bool) -> None:
    with visit(browser, f"{site}/{'' if name == 'index' else name + '/'}", width=1400, dark=dark) as page:
        assert_shown(page.locator("article h1"))
        assert brightness(page) < 0.5 if dark else brightness(page) > 0.2
        for width in (1400, 400):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(WIDER_THAN_THE_PAGE) == []
        assert page.evaluate(FAINT_TEXT, CONTRAST) == []
