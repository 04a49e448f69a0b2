"""A headless Chromium, the system's own, and what is wrong with a page that it shows."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
LOOPBACK = ("127.0.0.1", "localhost")
OPTIONS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
"""Root needs the first; with the second no request leaves the machine, also where a network is there."""
PATIENCE_MS = 300_000  # for what never comes, on a machine that is busy
TOLERATED = ("/users/current", "/favicon.ico", "/ico/undefined.svg")
"""MLflow asks who has signed in, also where it has no accounts; the others are icons that Prefect does not have."""
EXPANDER = ".ag-row [col-id*='Run Name'] button"
"""In MLflow's table: what shows the runs of the stages below that of their pipeline."""

BROKEN_IMAGES = """() => [...document.images].filter(image => image.checkVisibility() &&
    !(image.complete && image.naturalWidth)).map(image => image.currentSrc.slice(0, 200) || image.outerHTML)"""
LOADED_IMAGES = """() => [...document.images].filter(image => image.naturalWidth && image.checkVisibility())
    .map(image => image.currentSrc)"""
WIDER_THAN_THE_PAGE = """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
    [...document.querySelectorAll('body *')]
    .filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(part => part.outerHTML.slice(0, 120))"""
FAINT_TEXT = """least => {
  const parse = colour => { const [r, g, b, a = 1] = colour.match(/[0-9.]+/g).map(Number); return [r, g, b, a]; };
  const luminance = ([r, g, b]) => [r, g, b].map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const over = (above, below) =>
    above.slice(0, 3).map((value, index) => value * above[3] + below[index] * (1 - above[3]));
  const behind = part => {
    if (!part) return matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255];
    const own = parse(getComputedStyle(part).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(part.parentElement));
  };
  const filled = part => {  // the colour of the figure's last shape, before a text of it, that lies below the text
    const {left, right, top, bottom} = part.getBoundingClientRect(), [x, y] = [(left + right) / 2, (top + bottom) / 2];
    const below = [...part.ownerSVGElement.querySelectorAll('path, rect')].filter(shape => {
      const box = shape.getBoundingClientRect(), style = getComputedStyle(shape);
      return box.left <= x && x <= box.right && box.top <= y && y <= box.bottom && style.fill !== 'none' &&
        shape.compareDocumentPosition(part) & Node.DOCUMENT_POSITION_FOLLOWING;
    }).at(-1);
    if (!below) return behind(part.parentElement);
    const style = getComputedStyle(below), [r, g, b, a] = parse(style.fill);
    return over([r, g, b, a * style.opacity * style.fillOpacity], behind(part.parentElement));
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const part = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !part.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const style = getComputedStyle(part), drawn = part instanceof SVGElement;
    const ground = drawn ? filled(part) : behind(part), ink = parse(drawn ? style.fill : style.color);
    const [low, high] = [luminance(over(ink, ground)), luminance(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < least) found.push(`${ratio.toFixed(2)}: ${text.slice(0, 60)}`);
  }
  return found;
}"""
"""Visible text whose contrast with what is behind it (WCAG 2.2, 1.4.3) is below a ratio."""


def executable() -> str | None:
    """The path of the first browser that is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where none is installed."""
    api = pytest.importorskip("playwright.sync_api", reason="the browser's driver is in the dependency group services")
    if not (path := executable()):
        pytest.skip(f"no browser here, looked for {', '.join(NAMES)} (Debian: apt-get install chromium)")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Any, url: str, *, width: int = 1400, dark: bool = False, scale: float = 1) -> Iterator[Any]:
    """A page, and at the end an AssertionError with what went wrong while it was open.

    That is: an error on its console, a script that failed, a request that left the machine, an image that is broken.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
        timezone_id="UTC",
        locale="en-US",
    )
    context.set_default_timeout(PATIENCE_MS)
    page, problems = context.new_page(), []

    def note_message(message: Any) -> None:
        place = message.location["url"]
        harmless = "ResizeObserver loop" in message.text or urlsplit(place).path.endswith(TOLERATED)
        if message.type == "error" and not harmless:
            problems.append(f"console: {message.text} ({place})")

    def note_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in LOOPBACK:
            problems.append(f"request to another machine: {request.url[:200]}")

    page.on("console", note_message)
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    context.on("request", note_request)
    try:
        page.goto(url)
        yield page
        problems += [f"broken image: {image}" for image in page.evaluate(BROKEN_IMAGES)]
    finally:
        context.close()
    assert not problems, "\n".join([url, *problems])


def assert_shown(part: Any) -> None:
    """Wait until a part of a page is visible. Raises playwright's TimeoutError, which names it, where it never is."""
    part.wait_for()


def pixels(png: bytes) -> NDArray[np.int32]:
    """A screenshot: (height, width, 3), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int32)


def brightness(page: Any) -> float:
    """Of the page's upper left corner: 0 black to 1 white."""
    return float(pixels(page.screenshot(clip={"x": 0, "y": 0, "width": 1, "height": 1})).mean() / 255)


def address(path: Path) -> str:
    """A file's address for a browser."""
    return path.resolve().as_uri()
