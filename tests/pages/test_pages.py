"""What people see of a whole run in a browser: Prefect's pages, MLflow's, and the reports."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flows.summary import VIEW
from tests.flows.conftest import until
from tests.flows.stored import runs
from tests.pages.browser import (
    EXPANDER,
    FAINT_TEXT,
    LOADED_IMAGES,
    WIDER_THAN_THE_PAGE,
    address,
    assert_shown,
    brightness,
    chromium,
    pixels,
    visit,
)
from tests.pages.served import Served, served

pytestmark = pytest.mark.extended
TITLE = "cgn-full · miniature seed 0, digits seed 0"
REPORTS = {"mnist/digits": "Does it see the digit", "imagenet/miniature": "Does it see the object"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shown(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:  # noqa: ARG001 skips without one
    with served(tmp_path_factory.mktemp("pages") / "cgn") as shown:
        yield shown


def test_prefect_lists_the_deployments(shown: Served, browser: Any) -> None:
    with visit(browser, f"{shown.prefect}/deployments") as page:
        for name in ("cgn-full", "cgn-imagenet", "cgn-mnist", "cgn-nightly"):
            row = page.locator("tr", has=page.get_by_text(name, exact=True))
            assert_shown(row.get_by_text("Ready"))
        assert_shown(page.get_by_text("At 03:00 AM every day"))


def test_prefect_opens_on_a_page_that_asks_no_other_server(shown: Served, browser: Any) -> None:
    with visit(browser, shown.prefect) as page:
        assert_shown(page.get_by_text("Active Work Pools"))
        page.wait_for_load_state("networkidle")
        assert not page.get_by_text("Upgrade").count()


def test_prefect_shows_the_run_with_its_timeline(shown: Served, browser: Any) -> None:
    stages = shown.platform.tasks(shown.run)
    with visit(browser, f"{shown.prefect}/runs/flow-run/{shown.run}") as page:
        assert_shown(page.get_by_text(TITLE).first)
        assert_shown(page.get_by_text("Completed").first)
        assert_shown(page.get_by_text(f"{len(stages)} Task runs"))
        until(lambda: timeline(page) > 1000, what="bars of completed tasks")
        page.get_by_text("Task Runs", exact=True).click()
        for name in stages:
            assert_shown(page.get_by_role("link", name=name, exact=True).first)
        page.get_by_text("Logs", exact=True).click()
        assert_shown(page.get_by_text(f"{len(stages)} stages: "))


def timeline(page: Any) -> int:
    """The pixels of the run's graph that have the colour of a completed task. It is a canvas, so there is no text."""
    red, green, blue = np.moveaxis(pixels(page.locator("canvas").first.screenshot()), 2, 0)
    return int((green > 2 * np.maximum(red, blue)).sum())


def test_prefect_shows_the_summary_with_a_link_to_mlflow(shown: Served, browser: Any) -> None:
    stages = shown.platform.tasks(shown.run)
    with visit(browser, shown.artifact("summary")) as page:
        for name in stages:
            assert_shown(page.locator("tr", has=page.get_by_text(name, exact=True)).get_by_text("Completed"))
        for target in REPORTS:
            assert_shown(page.get_by_text(f"runs/{target}/report/index.html"))
        link = page.locator(f"a[href^='{shown.mlflow}']").first.get_attribute("href")
    with visit(browser, link) as page:
        assert_shown(page.get_by_role("heading", name=TITLE))


def test_prefect_lists_the_artifacts(shown: Served, browser: Any) -> None:
    with visit(browser, f"{shown.prefect}/artifacts") as page:
        assert_shown(page.get_by_text(f"{len(shown.platform.artifacts(shown.run))} Artifacts"))
        assert_shown(page.get_by_text("mnist-train-cgn-digits-sheets").first)


@pytest.mark.parametrize("key", ["mnist-train-cgn-digits-sheets", "imagenet-generate-miniature-examples"])
def test_prefect_shows_images(shown: Served, browser: Any, key: str) -> None:
    with visit(browser, shown.artifact(key)) as page:
        assert_shown(page.locator("img[src^='data:image/png']"))
        assert [image for image in page.evaluate(LOADED_IMAGES) if image.startswith("data:image/png")]


def test_prefect_shows_values(shown: Served, browser: Any) -> None:
    with visit(browser, shown.artifact("mnist-evaluate-digits-values")) as page:
        assert_shown(page.get_by_text("original_counterfactual").first)


def test_prefect_shows_progress(shown: Served, browser: Any) -> None:
    key = "mnist-train-cgn-digits-progress"  # made here, because only stages of a minute and more have one
    shown.platform.post("artifacts/", {"key": key, "type": "progress", "data": 42.0, "flow_run_id": shown.run})
    with visit(browser, shown.artifact(key)) as page:
        assert_shown(page.get_by_text("42%").first)


CELLS = (
    ("train_cgn mnist/digits", "mnist/digits", "cgn-mnist-digits-generator"),
    ("train_classifier imagenet/miniature ensemble", "imagenet/miniature", "cgn-imagenet-miniature-classifier"),
    ("evaluate mnist/digits", "mnist/digits", "-"),
)
"""Runs, a dataset of each, and its model."""


def stage_run(shown: Served, name: str, *, tab: str = "") -> str:
    """The address in MLflow of the run of a stage, such as `train_cgn mnist/digits`."""
    return f"{shown.mlflow}/#/experiments/1/runs/{runs(shown.mlflow)[name].info.run_id}{tab}{VIEW}"


def test_mlflow_lists_the_runs_with_their_datasets_and_models(shown: Served, browser: Any) -> None:
    with visit(browser, f"{shown.mlflow}/#/experiments/1/runs{VIEW}", width=1900) as page:
        assert_shown(page.get_by_text("Counterfactual Generative Networks: ").first)
        assert_shown(page.locator(".ag-row").first)
        assert_shown(page.get_by_role("link", name=TITLE).first)
        page.locator(EXPANDER).click()
        for name, dataset, model in CELLS:
            row = f".ag-row[row-id='{runs(shown.mlflow)[name].info.run_id}']"
            assert_shown(page.locator(f"{row} a", has_text=name))
            assert_shown(page.locator(f"{row} [col-id*='Dataset']", has_text=f"{dataset} ("))
            assert_shown(page.locator(f"{row} [col-id*='Models']", has_text=model))


def test_mlflow_shows_a_training(shown: Served, browser: Any) -> None:
    with visit(browser, stage_run(shown, "train_cgn mnist/digits")) as page:
        assert_shown(page.get_by_role("heading", name="train_cgn mnist/digits"))
        assert_shown(page.get_by_text("Finished", exact=True).first)
        assert_shown(page.get_by_role("link", name=TITLE).first)  # of its pipeline
        for words in ("loss/binary", "mechanisms.shape_width", "Training", "mnist-digits-generator"):
            assert_shown(page.get_by_text(words).first)


def test_mlflow_shows_curves_and_a_slider_over_the_sheets(shown: Served, browser: Any) -> None:
    with visit(browser, stage_run(shown, "train_cgn mnist/digits", tab="/model-metrics")) as page:
        assert_shown(page.locator(".js-plotly-plot").first)
        page.get_by_text("Add section").scroll_into_view_if_needed()
        slider = page.get_by_role("slider").first
        for step in (0, 10, 20):
            page.wait_for_function(f"() => ({LOADED_IMAGES})().some(image => image.includes('step%2B{step}%'))")
            slider.press("ArrowRight")


def test_mlflow_shows_the_models(shown: Served, browser: Any) -> None:
    models = {
        "mnist-digits-generator": "cgn-mnist-digits-generator",
        "mnist-digits-original_counterfactual": "cgn-mnist-digits-classifier",
        "imagenet-miniature-ensemble": "cgn-imagenet-miniature-classifier",
    }
    with visit(browser, f"{shown.mlflow}/#/experiments/1/models{VIEW}", width=1900) as page:
        for name, registered in models.items():
            assert_shown(page.get_by_role("link", name=name, exact=True).first)
            assert_shown(page.get_by_text(registered).first)
    with visit(browser, f"{shown.mlflow}/#/models{VIEW}") as page:
        for kind in ("classifier", "generator"):
            assert_shown(page.get_by_role("link", name=f"cgn-mnist-digits-{kind}").first)


@pytest.mark.parametrize(
    ("target", "arm", "verdict"),
    [("mnist-digits", "original_counterfactual", "passed"), ("imagenet-miniature", "ensemble", "refused: ")],
)
def test_mlflow_shows_the_verdict_of_the_gate(shown: Served, browser: Any, target: str, arm: str, verdict: str) -> None:
    with visit(browser, f"{shown.mlflow}/#/models/cgn-{target}-classifier{VIEW}", width=1900) as page:
        versions = page.locator("[role=row]", has_text="arm:")
        judged = versions.filter(has_text=re.compile(rf"arm: ?{arm}(?!_)")).filter(has_text=f"gate: {verdict}")
        assert_shown(judged)
        assert versions.filter(has_text="gate:").count() == 1
        champions = versions.filter(has_text="champion")
        assert champions.count() == judged.filter(has_text="champion").count() == (verdict == "passed")


def test_mlflow_shows_the_report(shown: Served, browser: Any) -> None:
    with visit(browser, stage_run(shown, "report mnist/digits", tab="/artifacts")) as page:
        page.get_by_text("index.html").first.click()
        assert_shown(page.frame_locator("iframe").get_by_role("heading", name=REPORTS["mnist/digits"]))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("target", REPORTS)
def test_reports_are_readable(shown: Served, browser: Any, target: str, width: int, dark: bool) -> None:
    page_file = shown.project.folder / "runs" / target / "report/index.html"
    with visit(browser, address(page_file), width=width, dark=dark) as page:
        assert_shown(page.get_by_role("heading", name=REPORTS[target]))
        assert brightness(page) < 0.1 if dark else brightness(page) > 0.8
        images = len(page.evaluate(LOADED_IMAGES))
        page.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true; })")
        assert len(page.evaluate(LOADED_IMAGES)) > images > 0
        assert page.evaluate(WIDER_THAN_THE_PAGE) == []
        assert page.evaluate(FAINT_TEXT, 4.5) == []


@pytest.mark.parametrize("target", REPORTS)
def test_a_section_of_a_report_opens_by_keyboard(shown: Served, browser: Any, target: str) -> None:
    with visit(browser, address(shown.project.folder / "runs" / target / "report/index.html")) as page:
        settings = page.get_by_text("Settings of this run")
        seed = page.get_by_role("row", name="Seed 0")
        assert not seed.count()
        settings.locator("xpath=ancestor::summary").focus()
        page.keyboard.press("Enter")
        assert_shown(seed)
