"""report: a page that stands alone, whose every accuracy comes from the decisions, and that survives missing sheets."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgn.config.mnist import Gate, Report
from cgn.core.errors import ArtifactError
from cgn.core.files import write_json
from cgn.core.metrics import Silent
from cgn.core.run_record import input_digests
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.evaluation.metrics import accuracy
from cgn.evaluation.predictions import Predictions, gather, image_names, prediction_rows, write_predictions
from cgn.mnist.arms import ARMS
from cgn.mnist.gate import gate
from cgn.mnist.published import VARIANTS, published_accuracies
from cgn.mnist.report import report
from cgn.report.page import render as render_template
from cgn.report.tables import Cell, Row, Table
from tests.support.configs import mnist
from tests.support.rendered import Page, check_page

IMAGES = 200


def make_decisions(*, variant: str = "digits") -> Predictions:
    random = np.random.default_rng(0)
    tables = []
    for condition in ("train", "test_iid", "test_random"):
        labels = dict(zip(("shape", "texture", "background"), random.integers(0, 10, (3, IMAGES)), strict=True))
        for arm, right in zip(ARMS, (0.1, 0.2, 0.8, 0.9), strict=True):
            decision = np.where(random.random(IMAGES) < right, labels["shape"], labels["background"])
            tables.append(
                prediction_rows(
                    classifier=arm,
                    head="label",
                    suite="splits",
                    condition=condition,
                    images=image_names(IMAGES),
                    labels=labels,
                    tops=decision[:, None],
                    probability=np.ones(IMAGES),
                )
            )
    return gather(tables, track="mnist", variant=variant, classes=10, suites={"splits": 10})


def define(folder: Path, verb: str, params: Mapping[str, Any], *, variant: str) -> None:
    write_json(
        folder / "definition.json",
        {"verb": verb, "track": "mnist", "variant": variant, "seed": 4, "params": dict(params), "inputs": {}},
    )


def make_run(root: Path, *, variant: str = "digits") -> dict[str, Path]:
    """Folders of the inputs: decisions and the data's shards; neither definitions nor sheets."""
    folders = {role: root / role for role in ("data", "model", "images", "decisions")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    labels = {"shape": 3, "texture": 1, "background": 4}
    made = [Sample(image=np.full((16, 16, 3), 20 * n, dtype=np.uint8), facts=labels) for n in range(6)]
    shard = write_shard(folders["data"], made, split="test_random", number=0, first_index=0)
    write_manifest(folders["data"], [shard], facts={"track": "mnist", "variant": variant})
    write_predictions(make_decisions(variant=variant), folders["decisions"] / "decisions.parquet")
    training = {arm: {"training": {"running_accuracy": 0.123, "images": 5, "updates": 7}} for arm in ARMS}
    write_json(folders["decisions"] / "accuracy.json", training)
    return folders


def judged(folders: Mapping[str, Path], *, least: float) -> Path:
    """The gate's folder, as the front door leaves it."""
    folder = folders["decisions"].with_name("gate")
    gate(Gate(accuracy=least), variant="digits", sink=Silent(), decisions=folders["decisions"], verdict=folder)
    facts = {"verb": "gate", "track": "mnist", "variant": "digits"}
    write_json(folder / "definition.json", facts | {"inputs": input_digests({"decisions": [folders["decisions"]]})})
    return folder


def picture(path: Path, *, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


def render(root: Path, folders: dict[str, Path], *, variant: str = "digits") -> Page:
    report(Report(examples=5), seed=4, variant=variant, **folders, page=root / "page", sink=Silent())
    return Page((root / "page" / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A run of a published variant with every optional file."""
    root = tmp_path_factory.mktemp("full")
    folders = make_run(root, variant="double_colored")
    picture(folders["data"] / "examples.png", size=(31, 11))
    picture(folders["model"] / "sheets" / "000500.png", size=(32, 12))
    picture(folders["model"] / "sheets" / "003000.png", size=(33, 13))
    picture(folders["images"] / "examples.png", size=(34, 14))
    record = mnist("double_colored", train_cgn={"batch_size": 999})
    define(folders["data"], "prepare", record.prepare.model_dump(), variant="double_colored")
    define(folders["model"], "train_cgn", record.train_cgn.model_dump(), variant="double_colored")
    write_json(folders["decisions"] / "classifiers.json", {"gan": {"params": {"epochs": 10}, "seed": 4}})
    return root, render(root, folders, variant="double_colored")


def test_the_page_stands_alone_and_can_be_read_aloud(full: tuple[Path, Page]) -> None:
    root, page = full
    check_page((root / "page" / "index.html").read_text(encoding="utf-8"))
    assert len(page.all("table")) >= 4


def test_the_page_leads_with_the_answer_and_folds_the_rest(full: tuple[Path, Page]) -> None:
    root, page = full
    decisions = make_decisions(variant="double_colored")
    answer = (root / "page" / "summary.md").read_text(encoding="utf-8").split("\n\n")[1]
    assert answer in page.unfolded
    assert "guessing is right in 10.0\N{NO-BREAK SPACE}%" in answer
    for arm in ("original", "counterfactual", "original_counterfactual"):
        measured = accuracy(decisions.of(classifier=arm, condition="test_random"))
        ends = f"{100 * measured.low:.1f} to {100 * measured.high:.1f}"
        assert f"{100 * measured.share:.1f}\N{NO-BREAK SPACE}% ({ends}) when trained on {ARMS[arm]} images" in answer
    assert "Accuracy with 95 % intervals" in page.unfolded
    assert "train_cgn.batch_size" in page.words
    assert "train_cgn.batch_size" not in page.unfolded


def test_every_picture_inside_is_whole(full: tuple[Path, Page]) -> None:
    shown = [image["src"] for image in full[1].all("img")] + [source["srcset"] for source in full[1].all("source")]
    sizes = set()
    for uri in shown:
        with Image.open(
            io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True))
        ) as image:
            image.load()
            sizes.add(image.size)
    assert {(31, 11), (33, 13), (34, 14), (16, 16)} <= sizes
    assert (32, 12) not in sizes, "only the last sheet of the training is shown"


def test_accuracies_on_the_page_are_those_of_the_decisions(full: tuple[Path, Page]) -> None:
    root, page = full
    decisions = make_decisions(variant="double_colored")
    summary = (root / "page" / "summary.md").read_text(encoding="utf-8")
    for arm, title in ARMS.items():
        (line,) = (line for line in summary.splitlines() if line.startswith(f"| {title} |"))
        for condition in ("test_iid", "test_random"):
            measured = accuracy(decisions.of(classifier=arm, condition=condition))
            number = f"{100 * measured.share:.1f}\N{NO-BREAK SPACE}%"
            ends = f"{100 * measured.low:.1f} to {100 * measured.high:.1f}"
            assert f"{number} ({ends})" in line
            assert number in page.words
            assert ends in page.words
        assert "12.3\N{NO-BREAK SPACE}%" in line


def test_published_numbers_stand_beside_with_their_source(full: tuple[Path, Page]) -> None:
    words = " ".join(full[1].words.split())
    for stated in ("97.4 / 89.0", "94.8 / 86.5", "96.9 / 85.5", "100.0 / 10.8", "published: original + GAN samples"):
        assert stated in words
    links = {link["href"] for link in full[1].all("a")}
    assert links == {"https://arxiv.org/abs/2101.06046", "https://zenodo.org/record/6574635"}


def test_departures_from_the_published_settings_are_listed(full: tuple[Path, Page]) -> None:
    words = " ".join(full[1].words.split())
    assert "train_cgn.batch_size 16 images 999 images" in words
    assert "train_cgn.updates 46,875 updates 46,875" not in words


def test_the_look_that_hides_digits_is_told(full: tuple[Path, Page]) -> None:
    rows = make_decisions().of(classifier="gan", condition="test_random")
    hidden = int((rows["background"] == (rows["texture"] - 6) % 10).sum())
    assert f"In {hidden} of the {IMAGES} random looks" in full[1].words


def test_digits_say_why_nothing_is_published_and_no_sheet_is_needed(tmp_path: Path) -> None:
    page = render(tmp_path, make_run(tmp_path / "run"))
    assert "Nothing is published for mnist/digits" in page.words
    assert "The folders of this run hold no sheets" in page.words
    assert page.all("a") == []
    assert "Paper" not in (tmp_path / "page" / "summary.md").read_text(encoding="utf-8")


def test_the_gates_verdict_is_a_line_of_the_page_and_the_summary(tmp_path: Path, full: tuple[Path, Page]) -> None:
    folders = make_run(tmp_path)
    for least, words in ((0.5, "passed every check"), (0.99, "refused; accuracy: the lower end of its interval, ")):
        verdict = judged(folders, least=least)
        page = render(tmp_path, folders | {"verdict": verdict})
        assert f"Gate: original_counterfactual {words}" in " ".join(page.unfolded.split())
        assert f"Gate: original_counterfactual {words}" in (tmp_path / "page" / "summary.md").read_text()
    assert "Gate:" not in full[1].words


def test_a_verdict_on_other_decisions_or_of_another_variant_is_refused(tmp_path: Path) -> None:
    folders = make_run(tmp_path)
    verdict = judged(folders, least=0.5)
    write_json(folders["decisions"] / "accuracy.json", {})
    with pytest.raises(ArtifactError, match=r"is a verdict on other decisions than .*run gate again"):
        render(tmp_path, folders | {"verdict": verdict})
    define(verdict, "gate", {}, variant="wildlife")
    with pytest.raises(ArtifactError, match="gate is of variant 'wildlife', expected 'digits'"):
        render(tmp_path, folders | {"verdict": verdict})


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    folders = make_run(tmp_path / "run")
    for name in ("one", "other"):
        render(tmp_path / name, folders)
    for file in ("index.html", "summary.md"):
        assert (tmp_path / "one" / "page" / file).read_bytes() == (tmp_path / "other" / "page" / file).read_bytes()


def test_missing_decisions_are_an_error(tmp_path: Path) -> None:
    folders = make_run(tmp_path / "run")
    (folders["decisions"] / "decisions.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is missing"):
        render(tmp_path, folders)


def test_decisions_and_folders_of_another_variant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is of variant 'colored', expected 'digits'"):
        render(tmp_path, make_run(tmp_path / "run", variant="colored"))
    folders = make_run(tmp_path / "digits")
    define(folders["images"], "generate", {}, variant="wildlife")
    with pytest.raises(ArtifactError, match="images is of variant 'wildlife', expected 'digits'"):
        render(tmp_path, folders)


def test_a_broken_sheet_is_named(tmp_path: Path) -> None:
    folders = make_run(tmp_path / "run")
    (folders["data"] / "examples.png").write_bytes(b"<html>")
    with pytest.raises(ArtifactError, match=r"data/examples\.png is no PNG picture"):
        render(tmp_path, folders)


def test_markup_in_values_is_shown_not_obeyed() -> None:
    hostile = '<b>&"'
    rows: list[Row] = [{hostile: hostile, "b": Cell(value="v", detail=hostile, note=hostile)}]
    hostile_table = Table(caption=hostile, lines=rows, heads={hostile: hostile})
    content: dict[str, Any] = {"target": hostile, "seed": 1, "variant": hostile, "chance": hostile, "leading": hostile}
    content |= {"accuracies": hostile_table, "cues": hostile_table, "decisions": hostile_table, "departures": hostile}
    content |= {"settings": [hostile_table, hostile_table], "hidden": None, "expected": [hostile], "sources": []}
    content |= {"verdict": hostile, "examples": [], "cue_bars": [], "confusions": {}, "sheets": []}
    html = render_template("mnist.jinja", kind="html", **content)
    assert "<b>&" not in html
    assert html.count("&lt;b&gt;&amp;&#34;") >= 40
    assert hostile in render_template("mnist.jinja", kind="md", **content)


def test_published_numbers_are_complete_and_named_for_real_arms() -> None:
    for variant in VARIANTS:
        rows = published_accuracies(variant)
        assert {row.arm for row in rows} == set(ARMS)
        assert len(rows) == 5
        assert all(0 < row.test <= row.train <= 100 for row in rows)
    assert published_accuracies("digits") == ()
    tests = {
        (row.variant, row.source[:5]): row.test for v in VARIANTS for row in published_accuracies(v) if "_" in row.arm
    }
    assert [tests[variant, "Sauer"] for variant in VARIANTS] == [95.1, 89.0, 85.7]


@pytest.mark.parametrize("stated", [["gan"], None, {"gan": 3}])
def test_classifiers_of_another_form_are_an_error(tmp_path: Path, stated: object) -> None:
    folders = make_run(tmp_path / "run")
    write_json(folders["decisions"] / "classifiers.json", stated)
    with pytest.raises(ArtifactError, match=r"classifiers\.json is not what evaluate writes .*: run evaluate again"):
        render(tmp_path, folders)


def test_the_two_train_accuracies_are_named_and_kept_apart(full: tuple[Path, Page]) -> None:
    """What training counted on its own images (here 12.3 %), and the accuracy on the original training set."""
    root, page = full
    summary = (root / "page" / "summary.md").read_text(encoding="utf-8").splitlines()
    head = next(line for line in summary if line.startswith("| Trained on"))
    names = [name.strip() for name in head.strip("|").split("|")]
    running, original = names.index("Running accuracy in training"), names.index("Original training set")
    assert "Train" not in names
    decisions = make_decisions(variant="double_colored")
    for arm, title in ARMS.items():
        cells = next(line for line in summary if line.startswith(f"| {title} |")).strip("|").split("|")
        share = accuracy(decisions.of(classifier=arm, condition="train")).share
        assert cells[running].strip() == "12.3\N{NO-BREAK SPACE}%"
        assert cells[original].strip().startswith(f"{100 * share:.1f}\N{NO-BREAK SPACE}% (")
    assert "it is what stands beside the published train accuracy" in page.words


def test_a_published_accuracy_says_whether_it_was_reached_by_the_interval_alone(full: tuple[Path, Page]) -> None:
    root, _ = full
    summary = (root / "page" / "summary.md").read_text(encoding="utf-8").splitlines()
    decisions = make_decisions(variant="double_colored")
    for row in published_accuracies("double_colored"):
        line = next(line for line in summary if line.startswith(f"| {ARMS[row.arm]} |"))
        measured = accuracy(decisions.of(classifier=row.arm, condition="test_random"))
        verdict = "equal within the interval"
        if measured.low > row.test / 100 + 0.0005:
            verdict = "better"
        if measured.high < row.test / 100 - 0.0005:
            verdict = "worse"
        said = f"{row.train:.1f} / {row.test:.1f}; here {verdict} "
        assert (said in line) is (row.remark is None), "the published GAN arm has other training images"


def test_settings_say_what_auto_became_and_units(tmp_path: Path) -> None:
    folders = make_run(tmp_path / "run")
    define(folders["model"], "train_cgn", {"accelerator": "auto", "updates": 1800}, variant="digits")
    define(folders["data"], "prepare", {"jitter": {"rotation_degrees": 10.0}, "image_size": 16}, variant="digits")
    write_json(folders["model"].with_name("model.log") / "run.json", {"machine": {"cpu": "Abacus", "gpus": ["card"]}})
    trained = {"params": {"accelerator": "auto", "epochs": 4}, "seed": 4}
    write_json(folders["decisions"] / "classifiers.json", {"gan": trained})
    words = " ".join(render(tmp_path, folders).words.split())
    for said in (
        "train_cgn.accelerator auto: cuda",
        "train_classifier.accelerator auto (what it became was not recorded)",
        "Updates of the generative network 1,800 updates",
        "Image size 16 pixels",
        "prepare.jitter.rotation_degrees 10.0 degrees",
        "train_classifier.epochs 4 epochs",
    ):
        assert said in words, said
