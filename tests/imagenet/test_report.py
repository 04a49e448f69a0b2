"""imagenet report: numbers that can be computed by hand, published ones beside them, pictures and times."""

import base64
import io
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from cgn.config.imagenet import Gate, TopThreshold
from cgn.config.load import load
from cgn.core.files import read_json, write_json
from cgn.core.metrics import Silent
from cgn.core.run_record import input_digests
from cgn.evaluation.corruption_error import ALEXNET, ALEXNET_CLEAN
from cgn.evaluation.predictions import Predictions
from cgn.imagenet.gate import gate
from cgn.imagenet.report_parts import corruptions
from cgn.imagenet.report_parts.heads import TITLES
from tests.support import sample_predictions as made
from tests.support.rendered import DASH, MINUS, SPACE, Rendered, check_page, percent, render, stated, wilson

PARAMS = load(Path(__file__).parents[2] / "params.yaml").variant("imagenet/miniature").model_dump()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """A run with every optional file."""
    root = tmp_path_factory.mktemp("full")
    examination = made.predictions(unreadable=["clean/clean/<i>torn</i>.png cannot be read"], remarks=["in9: a <b>"])
    folders = made.make_run(root / "run", examination)
    made.benchmarks(folders["data"], examination)
    params = PARAMS
    for role, verb in (("data", "prepare"), ("model", "train_cgn"), ("images", "generate"), ("decisions", "evaluate")):
        made.define(folders[role], verb, params[verb])
    made.model(
        folders["model"],
        **{"iou/own": 0.71, "iou/nearest": 0.63, "start/iou/own": 0.41, "loss/binary": 15.0, "mask/mean": 0.27},
    )
    made.picture(folders["model"] / "sheets" / "000400.png", size=(31, 11))
    made.picture(folders["images"] / "examples.png", size=(32, 12))
    made.picture(folders["images"] / "parts.png", size=(33, 13))
    made.picture(folders["images"] / "interpolations" / "shape-0-4.png", size=(34, 14))
    made.film(folders["images"] / "interpolations" / "shape-0-4.gif")
    made.note(folders["data"], seconds=10.0, metrics={"images": {"train": 1800, "val": 450}})
    made.note(folders["model"], seconds=7300.0, starts=3)
    made.note(folders["images"], seconds=36.0, metrics={"images": {"counterfactual": 3600}})
    training = {"images": {"real": 7, "counterfactual": 5}, "updates": 99}
    one = {"params": params["train_classifier"], "training": training}
    classifiers = dict.fromkeys(("baseline", "ensemble"), one)
    write_json(folders["decisions"] / "classifiers.json", classifiers)
    made.note(folders["decisions"], seconds=5.0, metrics={"training": {"baseline": {"seconds": 61.5}}})
    return render(root, folders)


def test_shape_bias_and_accuracies_are_those_told_by_hand(full: Rendered) -> None:
    table = full.table("Shape bias, top-1 and top-5")
    for key in made.HEADS:
        row, (shape, texture) = table[TITLES[key]], made.CUES[key]
        decided = shape + texture
        quoted = stated(shape, decided) if key not in made.UNDECIDED else f"undecided ({wilson(shape, decided)})"
        right = f"shape accuracy {stated(shape, 10)}, chance {percent(1 / 9)}"
        assert row["Shape bias: here"].startswith(f"{quoted}; {decided} of 10 decided; {right}")
        assert row["Shape bias: here"].endswith("holds the 50 % that guessing gives") == (key in made.UNDECIDED)
        assert row["Top-1: here"] == stated(made.RIGHT[key], 20)
        assert row["Top-5: here"] == stated(min(made.RIGHT[key] + 1, 20), 20)
    assert table["shape head"]["Shape bias: here"].startswith(f"87.5{SPACE}% (52.9 to 97.8); 8 of 10 decided")


def test_accuracies_on_variations_and_gaps_are_those_told_by_hand(full: Rendered) -> None:
    every, gaps = (
        full.table("ImageNet-9: accuracy on every variation"),
        full.table("ImageNet-9: accuracy and background"),
    )
    for place, key in enumerate(made.HEADS):
        for name, right in made.VARIATIONS.items():
            assert every[TITLES[key]][name] == stated(right[place], 10)
        same, random = (made.VARIATIONS[name][place] for name in ("mixed_same", "mixed_rand"))
        assert gaps[TITLES[key]]["mixed_rand: here"] == stated(random, 10)
        assert gaps[TITLES[key]]["BG-gap: here"].startswith(f"{10.0 * (same - random):.1f}{SPACE}pt (")
    # Newcombe, from Wilson's 59.6 to 98.2 for 9 of 10 and 23.7 to 76.3 for 5 of 10.
    low, high = 40 - math.hypot(90 - 59.585, 76.341 - 50), 40 + math.hypot(98.213 - 90, 50 - 23.659)
    ends = f"{low:.1f} to {high:.1f}".replace("-", MINUS)
    assert gaps["baseline"]["BG-gap: here"] == f"40.0{SPACE}pt ({ends})"


def test_corruption_errors_are_those_told_by_hand(full: Rendered) -> None:
    means, each = full.table("Errors under corruption"), full.table("Mean error over five severities")
    for key in made.HEADS:
        error = made.WRONG[key] / 4
        # The same pictures are wrong each time: four pictures, however often they are shown.
        assert means[TITLES[key]]["Mean error"] == stated(made.WRONG[key], 4)
        assert means[TITLES[key]]["Clean error"] == stated(0, 4)
        mce = sum(error / alexnet for alexnet in ALEXNET.values()) / 15
        relative = sum(error / (alexnet - ALEXNET_CLEAN) for alexnet in ALEXNET.values()) / 15
        assert means[TITLES[key]]["mCE"].startswith(f"{percent(mce)} (")
        assert means[TITLES[key]]["Relative mCE"].startswith(f"{percent(relative)} (")
    for name, alexnet in ALEXNET.items():
        row = each[name.replace("_", " ")]
        assert row["AlexNet: error"] == percent(alexnet)
        for title, wrong in (("baseline", 3), ("mean of heads", 1), ("shape head", 2)):
            assert row[f"{title}: error"] == stated(wrong, 4)
            assert row[f"{title}: CE"].startswith(f"{percent(wrong / 4 / alexnet)} (")
    assert len(each) == 15


def test_changes_are_differences_with_newcombes_interval(full: Rendered) -> None:
    table = full.table("The ensemble against the baseline")
    assert table["Shape bias, shape head"]["here: difference"].startswith(f"+87.5{SPACE}pt (")
    assert table["Shape bias, mean of heads"]["here: difference"].startswith(f"+10.0{SPACE}pt (")
    assert table["Background gap, shape + texture"]["here: difference"].startswith(f"{MINUS}30.0{SPACE}pt (")
    assert table["Background gap, mean of heads"]["here: difference"].startswith(f"{MINUS}30.0{SPACE}pt (")
    assert table["Background gap, shape head"]["here: difference"].startswith(f"{MINUS}30.0{SPACE}pt (")
    assert table["Top-1, mean of heads"]["here: difference"].startswith(f"{MINUS}5.0{SPACE}pt (")
    assert table["Error under corruption, mean of heads"]["here: difference"].startswith(f"{MINUS}50.0{SPACE}pt (")
    # 19 of 20 (76.4 to 99.1) against 18 of 20 (69.9 to 97.2)
    low, high = -5 - math.hypot(90 - 69.896, 99.111 - 95), -5 + math.hypot(97.213 - 90, 95 - 76.387)
    assert table["Top-1, mean of heads"]["here: difference"].endswith(f"({low:.1f} to {high:.1f})".replace("-", MINUS))
    assert table["Top-1, mean of heads"]["paper: baseline"] == f"76.13{SPACE}%"


def test_stylized_has_the_replications_numbers_beside(full: Rendered) -> None:
    table = full.table("Stylized-ImageNet")
    for key in made.HEADS:
        assert table[TITLES[key]]["Top-1: here"] == stated(made.RIGHT[key], 20)
    assert table["baseline"]["Top-1: replication"] == f"19.2{SPACE}%"
    assert table["mean of heads"]["Top-1: replication"] == f"17.2{SPACE}%"
    assert table["shape head"]["Top-1: replication"] == DASH


def test_every_number_of_the_summary_is_on_the_page(full: Rendered) -> None:
    decimal = re.compile(rf"(?<![\w./])[+{MINUS}]?\d[\d,]*\.\d+")
    tables, _, _ = full.summary.partition("\n- ")
    assert len(numbers := decimal.findall(tables)) > 500
    assert set(numbers) <= set(decimal.findall(full.page.words))


def test_published_numbers_stand_beside_with_their_source(full: Rendered) -> None:
    table = full.table("Shape bias, top-1 and top-5")
    assert table["baseline"]["Shape bias: paper"] == f"21.39{SPACE}%"
    assert table["shape head"]["Shape bias: paper"] == f"54.8{SPACE}%"
    assert table["shape head"]["Shape bias: replication"] == f"49.1{SPACE}%"
    assert table["mean of heads"]["Top-5: replication"] == f"79.1{SPACE}%"
    assert table["ResNet-50 trained on Stylized-ImageNet"]["Shape bias: paper"] == f"81.37{SPACE}%"
    gaps = full.table("ImageNet-9: accuracy and background")
    assert [gaps["shape + texture"][f"BG-gap: {source}"] for source in ("paper", "replication")] == [
        f"3.3{SPACE}pt",
        f"4.9{SPACE}pt",
    ]
    assert gaps["mean of heads"]["BG-gap: replication"] == f"10.7{SPACE}pt"
    assert gaps["trained on mixed_rand"]["mixed_rand: paper"] == f"71.3{SPACE}%"
    ablation = full.table("Which loss does what")
    assert ablation["without the texture loss"]["Inception score: replication"].strip() == "186.5"
    assert ablation["BigGAN itself"]["Inception score: paper"].strip() == "202.9"
    links = {link["href"] for link in full.page.all("a")}
    assert links == {"https://arxiv.org/abs/2101.06046", "https://zenodo.org/record/6574635"}


def test_what_is_not_comparable_says_so(full: Rendered) -> None:
    assert full.said("Not comparable in size: this run tells 9 classes apart, the published ones 1,000")
    assert full.said("Not comparable with any published mCE: the corrupted images were made here from 4 images")
    assert full.said("ImageNet-9: 10 images here, 4,050 published")
    assert "Not comparable with any published mCE" in full.summary


def test_what_could_not_be_read_is_counted_and_named_without_markup(full: Rendered) -> None:
    assert full.said("1 image could not be read and is in no number")
    assert "clean/clean/&lt;i&gt;torn&lt;/i&gt;.png cannot be read" in full.html
    assert "in9: a &lt;b&gt;" in full.html
    assert "Not read: 1 image" in full.summary


def test_the_gates_verdict_is_a_line_after_the_answer(tmp_path: Path) -> None:
    folders = made.make_run(tmp_path / "run", made.predictions())
    decisions, folder = folders["decisions"], tmp_path / "run" / "gate"
    strict = Gate(top_1=TopThreshold(least=1.0))
    gate(strict, variant="miniature", sink=Silent(), decisions=decisions, verdict=folder)
    facts = {"verb": "gate", "track": "imagenet", "variant": "miniature"}
    write_json(folder / "definition.json", facts | {"inputs": input_digests({"decisions": [decisions]})})
    refused = [check for check in read_json(folder / "gate.json")["checks"] if not check["passed"]]
    found = render(tmp_path, folders | {"verdict": folder})
    line = found.summary.split("\n\n")[2]
    assert line.startswith("Gate: ensemble refused; ")
    assert all(f"{check['name']}: {check['reason']}" in line for check in refused)
    assert line in " ".join(found.page.unfolded.split())
    check_page(found.html)
    assert not render(tmp_path, folders).said("Gate:")


def test_masks_and_the_ablations_row_of_this_run(full: Rendered) -> None:
    table = full.table("Masks against true silhouettes")
    assert table["Best IoU with the labelled class"] == {"before training": "0.41", "after training": "0.71"}
    assert table["Best IoU with another class"]["after training"] == DASH
    ablation = full.table("Which loss does what")
    assert ablation["all losses"]["Mean mask: here"] == "0.27"
    assert ablation["without the shape losses"]["Mean mask: here"] == DASH
    binary = PARAMS["train_cgn"]["losses"]["binary"]
    assert full.said(f"a mean entropy of {15.0 / binary:.3f} bit a pixel")


def test_times_are_those_of_the_logs(full: Rendered) -> None:
    table = full.table("Time and cost of each stage")
    assert table["prepare"]["Seconds"] == "10.0"
    assert table["prepare"]["Images/s"] == "225.0"
    assert table["train_cgn"]["Seconds"] == "7,300.0 (2.0 h); the last of 3 starts"
    assert table["train_cgn"]["Updates"] == str(PARAMS["train_cgn"]["updates"])
    assert table["train_cgn"]["Images/s"] == DASH, "what was drawn in earlier starts is not in these seconds"
    assert table["generate"]["Images/s"] == "100.0"
    assert table["generate"]["Device"] == "Abacus 9000, 3 cores"
    assert table["train_classifier: baseline"]["Seconds"] == "61.5"
    assert table["train_classifier: baseline"]["Updates"] == "99"
    assert table["train_classifier: ensemble"]["Seconds"] == DASH
    assert table["train_classifier: ensemble"]["Images"] == "12"


def test_the_page_stands_alone_and_can_be_read_aloud(full: Rendered) -> None:
    check_page(full.html)
    assert len(full.page.all("table")) >= 8


def test_every_picture_inside_is_whole(full: Rendered) -> None:
    sizes = set()
    for uri in [image["src"] for image in full.page.all("img")] + [one["srcset"] for one in full.page.all("source")]:
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2], validate=True))) as image:
            image.load()
            sizes.add((image.format, *image.size))
    assert {("PNG", 31, 11), ("PNG", 32, 12), ("PNG", 33, 13), ("PNG", 34, 14), ("PNG", 9, 9), ("PNG", 7, 7)} <= sizes
    assert {("GIF", 12, 10), ("PNG", 12, 10)} <= sizes, "a film, and its still for who wants no motion"
    media = [source["media"] for source in full.page.all("source")]
    assert media.count("(prefers-reduced-motion: reduce)") == 1


def test_single_stimuli_show_what_each_head_said(full: Rendered) -> None:
    _, _, section = full.html.partition('aria-labelledby="examples"')
    section = section.partition("</section>")[0]
    assert section.count("<img") == 4
    assert section.count('class="shape"') == section.count("<small>shape</small>")
    assert section.count('class="shape"') + section.count('class="other"') == 4 * len(made.HEADS)


def thinned(whole: Predictions, *, suite: str, condition: str) -> Predictions:
    """Without one picture of one condition."""
    dropped = (
        (whole.rows["suite"] == suite) & (whole.rows["condition"] == condition) & (whole.rows["image"] == "00.png")
    )
    assert dropped.any()
    return Predictions(rows=whole.rows[~dropped], facts=whole.facts)


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("fetch", "These are ImageNet-C's own images, so mCE can be compared with published ones."),
        ("user", "These are ImageNet-C's own images, so mCE can be compared with published ones."),
        ("here", "Not comparable with any published mCE: the corrupted images were made here from 4 images"),
    ],
)
def test_fetched_corruptions_are_the_benchmarks_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    monkeypatch.setattr(corruptions, "IMAGENET_C_IMAGES", made.CORRUPTED_IMAGES)
    examination = made.predictions(suites=["imagenet_c"], shown={"corrupted_by": source})
    folders = made.make_run(tmp_path / "run", examination)
    made.define(folders["data"], "prepare", {"folders": {"train": "t", "val": "v", "imagenet_c": None}})
    found = render(tmp_path, folders)
    assert found.said(words)
    assert words in found.summary


@pytest.mark.long
def test_corruptions_of_which_pictures_are_missing_are_not_comparable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruptions, "IMAGENET_C_IMAGES", made.CORRUPTED_IMAGES)
    whole = made.predictions(suites=["imagenet_c"], shown={"corrupted_by": "fetch"})
    few = thinned(whole, suite="imagenet_c", condition="contrast/5")
    found = render(tmp_path, made.make_run(tmp_path / "run", few))
    assert found.said("the corrupted images are ImageNet-C's own, but only of 3 to 4 images, while AlexNet's errors")


@pytest.mark.long
def test_pictures_are_counted_in_every_condition(full: Rendered, tmp_path: Path) -> None:
    def facts(rendered: Rendered) -> str:
        _, _, below = " ".join(rendered.page.words.split()).partition("What was run")
        return below

    assert "ImageNet-9 40 images in 4 conditions, 10 each" in facts(full)
    assert f"Corruptions (ImageNet-C) {4 * 76} images in 76 conditions, 4 each" in facts(full)
    assert "Cue conflict 12 images " in facts(full)
    few = thinned(made.predictions(), suite="in9", condition="no_fg")
    found = render(tmp_path, made.make_run(tmp_path / "run", few))
    assert "ImageNet-9 39 images in 4 conditions, 9 to 10 each" in facts(found)
    assert found.said("ImageNet-9: 9 to 10 images here, 4,050 published")


def test_a_published_networks_file_and_preparation_are_on_its_page(tmp_path: Path) -> None:
    preparation = {
        "resize": 232, "crop": 224, "interpolation": "bilinear", "scale": 255.0, "mean": [0.485, 0.456, 0.406],
        "deviation": [0.229, 0.224, 0.225], "transform_input": True,
    }  # fmt: skip
    network = {
        "network": "resnet50", "recipe": "IMAGENET1K_V2", "recipe_from": "the file", "preparation": preparation,
        "file": "renamed.pth", "sha256": "11ad3fa6" + 56 * "0",
    }  # fmt: skip
    ours = {"network": "resnet18", "preparation": {**preparation, "resize": 73, "crop": 64, "transform_input": False}}
    shown = {"classifiers": {"renamed": network, "baseline": ours}, "suites": {"clean": "photographs: whole"}}
    found = render(tmp_path, made.make_run(tmp_path / "run", made.predictions(suites=["clean"], shown=shown)))
    table = found.table("What each classifier was shown")
    assert table["renamed"] == {
        "Network": "resnet50",
        "Prepared by": "IMAGENET1K_V2, says the file",
        "Photographs": "232/224/bilinear",
        "Colours": "0 to 1, minus 0.485, 0.456, 0.406, over 0.229, 0.224, 0.225; then transform_input",
        "File": "renamed.pth",
        "SHA-256": "11ad3fa6" + 56 * "0",
    }
    assert (table["baseline"]["Prepared by"], table["baseline"]["File"]) == ("as it was trained here", DASH)
    assert found.said("232/224/bilinear")
    assert found.said("11ad3fa6" + 56 * "0")
    assert found.said("Clean validation images: photographs: whole")
