"""Make the screenshots of docs/tour.md again: python -m tests.pages.screenshots [NAME ...]

It runs the default pipeline through Prefect and MLflow in a checkout of its own, at the ports that the README names,
and opens the pages in a browser. Needs the dependency group `services` and an installed Chromium.
"""

import argparse
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from flows.summary import VIEW
from tests.flows.conftest import ROOT
from tests.flows.stored import runs
from tests.pages.browser import EXPANDER, address, chromium, visit
from tests.pages.served import Served, served

FOLDER = ROOT / "docs/screenshots"
PORTS = (4200, 5000)
COLOURS = 192
Shot = Callable[[Any, Served], bytes]


def prefect_run(browser: Any, shown: Served) -> bytes:
    """The timeline of the run."""
    with visit(browser, f"{shown.prefect}/runs/flow-run/{shown.run}", width=1280) as page:
        page.locator("canvas").first.wait_for()
        page.wait_for_timeout(5000)
        page.keyboard.press("c")  # centers the timeline
        page.wait_for_timeout(2000)
        return bytes(page.locator("canvas").first.screenshot())


def mlflow_runs(browser: Any, shown: Served) -> bytes:
    """The experiment, with the stages of the pipeline's run."""
    with visit(browser, f"{shown.mlflow}/#/experiments/1/runs{VIEW}", width=1500) as page:
        page.locator(EXPANDER).click()
        page.get_by_role("link", name="report mnist/digits").first.wait_for()
        return without_assistant(page, height=838)


def mlflow_sheets(browser: Any, shown: Served) -> bytes:
    """The sheet of the last update of the digits' training, and the slider over the updates."""
    run = runs(shown.mlflow)["train_cgn mnist/digits"].info.run_id
    with visit(browser, f"{shown.mlflow}/#/experiments/1/runs/{run}/model-metrics{VIEW}", width=1500) as page:
        page.locator(".js-plotly-plot").first.wait_for()
        page.get_by_text("Add section").scroll_into_view_if_needed()
        page.wait_for_timeout(2000)
        card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has=page.get_by_role("slider")).last
        card.get_by_role("button").first.click()  # the whole page
        dialog = page.get_by_role("dialog")
        dialog.locator("img").last.wait_for()
        for _ in range(3):  # sheets after that of the untrained network
            dialog.get_by_role("slider").first.press("ArrowRight")
        dialog.locator("img").last.wait_for()
        page.wait_for_timeout(3000)
        dialog.locator("img").last.scroll_into_view_if_needed()
        return bytes(dialog.screenshot())


def mlflow_model(browser: Any, shown: Served) -> bytes:
    """A registered model and its versions."""
    with visit(browser, f"{shown.mlflow}/#/models/cgn-mnist-digits-classifier{VIEW}", width=1600) as page:
        page.locator("[role=row]", has_text="champion").wait_for()
        return without_assistant(page, height=890)


def without_assistant(page: Any, *, height: int) -> bytes:
    """A page of MLflow without its bars at the left and the right."""
    page.get_by_role("button", name="Close").last.click()
    page.wait_for_timeout(1000)
    return shot(page, left=195, height=height)


def report_digits(browser: Any, shown: Served) -> bytes:
    """The digits' report, dark."""
    return report(browser, shown, target="mnist/digits", dark=True, height=780)


def report_miniature(browser: Any, shown: Served) -> bytes:
    """The miniature's report, light."""
    return report(browser, shown, target="imagenet/miniature", dark=False, height=714)


def report(browser: Any, shown: Served, *, target: str, dark: bool, height: int) -> bytes:
    """The upper part of a report."""
    page_file = shown.project.folder / "runs" / target / "report/index.html"
    with visit(browser, address(page_file), width=1000, dark=dark) as page:
        return shot(page, height=height)


def shot(page: Any, *, height: int, left: int = 0) -> bytes:
    """The upper part of a page, without `left` pixels of its navigation."""
    width = page.viewport_size["width"]
    return bytes(page.screenshot(clip={"x": left, "y": 0, "width": width - left, "height": height}, full_page=True))


SHOTS: dict[str, Shot] = {
    "prefect-run": prefect_run,
    "mlflow-runs": mlflow_runs,
    "mlflow-sheets": mlflow_sheets,
    "mlflow-model": mlflow_model,
    "report-digits": report_digits,
    "report-miniature": report_miniature,
}


def small(png: bytes) -> bytes:
    """The same image with fewer colours."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Write the images into docs/screenshots."""
    parser = argparse.ArgumentParser(prog="python -m tests.pages.screenshots", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SHOTS, []], help="of images; all by default")
    names = parser.parse_args().names or list(SHOTS)
    FOLDER.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "cgn"
        browser = stack.enter_context(chromium())
        shown = stack.enter_context(served(folder, changes={}, ports=PORTS))
        for name in names:
            (FOLDER / f"{name}.png").write_bytes(small(SHOTS[name](browser, shown)))
            print(f"{os.path.relpath(FOLDER)}/{name}.png", flush=True)


if __name__ == "__main__":
    main()
