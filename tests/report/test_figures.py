"""Figures: they show the numbers they are given, follow the page's colours, and are the same bytes each time."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cgn.core.errors import ConfigError
from cgn.evaluation.corruption_error import SEVERITIES, CorruptionErrors
from cgn.evaluation.intervals import Estimate, Proportion
from cgn.evaluation.metrics import ShapeBias
from cgn.report import figures
from cgn.report.figures import (
    COLOURS,
    CURVES,
    bars,
    confusion_panel,
    curve_panels,
    curves,
    headings,
    shape_bias_figure,
    shape_bias_panel,
)
from cgn.report.tables import SPACE, Measure

BIASES = {"cat": ShapeBias(shape=3, texture=1, conflicts=9), "dog": ShapeBias(shape=0, texture=0, conflicts=2)}


def share(value: float, low: float, high: float, *, undecided: str = "") -> Measure:
    return Measure(of=Estimate(value=value, low=low, high=high), undecided=undecided)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def boxes(svg: str, colour: str) -> list[tuple[float, float]]:
    """(left, right) of every filled shape of a colour, in order."""
    found = []
    for path in re.findall(rf'<path d="([^"]*)" style="fill: var\(--{colour}\)[^"]*"', svg):
        across = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)]
        found.append((min(across), max(across)))
    return found


def errors(number: int, *, clean: bool = True) -> list[CorruptionErrors]:
    return [
        CorruptionErrors(
            classifier=f"arm{arm}",
            head="label",
            errors={name: tuple(Proportion(hits=arm + 1, images=9) for _ in SEVERITIES) for name in ("fog", "jpeg_x")},
            clean=Proportion(hits=0, images=9) if clean else None,
        )
        for arm in range(number)
    ]


@pytest.fixture(scope="module")
def every() -> list[str]:
    """An SVG of each kind."""
    matrix = np.array([[4, 0], [1, 1]])
    return [
        panel.svg
        for panel in (
            bars("t", {"a": share(0.5, 0.4, 0.6)}, chance=0.1),
            shape_bias_panel("t", BIASES, quoted=True),
            *curve_panels(errors(2)).values(),
            confusion_panel(matrix, title="t", cue="shape"),
        )
    ]


def test_an_svg_is_xml_of_shapes_and_texts_with_the_pages_colours(every: list[str]) -> None:
    style = (Path(figures.__file__).parent / "style.css").read_text(encoding="utf-8")
    for svg in every:
        root = ElementTree.fromstring(svg)
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "path", "text"}
        assert (root.attrib["role"], bool(root.attrib["aria-label"])) == ("img", True)
        assert not re.findall(r"#[0-9a-f]{3,}|url\(|href|id=", svg)
        assert "svg" in svg
        for name in re.findall(r"var\(--(\w+)\)", svg):
            assert len(re.findall(rf"--{name}:", style)) == 2, "once for light, once for dark"
    for name, colour in COLOURS.items():
        assert f"--{name}: {colour};" in style


def test_an_alternative_text_is_escaped() -> None:
    svg = bars('"<b>', {"&": share(0.5, 0.4, 0.6)}, chance=0.1).svg
    assert ElementTree.fromstring(svg).attrib["aria-label"] == f'"<b>. &: 50.0{SPACE}% (40.0 to 60.0)'
    assert {'"<b>', "&"} <= set(texts(svg))


def test_bars_are_as_long_as_their_numbers_and_an_undecided_one_has_none() -> None:
    rows = {
        "half": share(0.5, 0.4, 0.6),
        "whole": share(1.0, 0.9, 1.0),
        "unknown": share(0.7, 0.2, 0.9, undecided="at chance"),
    }
    svg = bars("t", rows, chance=0.1).svg
    half, whole = (right - left for left, right in boxes(svg, "shape"))
    assert whole == pytest.approx(2 * half, rel=0.01)
    assert {f"50.0{SPACE}%", f"100.0{SPACE}%", "undecided"} <= set(texts(svg))
    assert "unknown: undecided (20.0 to 90.0; at chance)" in ElementTree.fromstring(svg).attrib["aria-label"]


def test_shape_bias_bars_are_split_at_the_bias() -> None:
    svg = shape_bias_panel("shape", BIASES, quoted=True).svg
    (left, split), (_, split_of_all) = boxes(svg, "shape")[:2]
    (again, right), *_ = boxes(svg, "texture")
    assert again == pytest.approx(split, abs=0.1)
    assert (split - left) / (right - left) == pytest.approx(0.75, abs=0.01)
    assert split_of_all == pytest.approx(split, abs=0.1), "the sum has the same four decisions"
    assert len(boxes(svg, "shape")) == 2, "no decision, no bar"
    assert texts(svg).count("4") == 2
    assert "0" in texts(svg)


def test_the_panel_of_an_undecided_head_quotes_no_bias() -> None:
    whole = ShapeBias(shape=19, texture=18, conflicts=144)
    stated = (
        "shape: undecided",
        "35.9 to 66.6 %; 37 of 144 decided",
        f"shape accuracy 13.2{SPACE}%, chance 11.1{SPACE}%",
    )
    assert headings("shape", whole, quoted=False, categories=9) == stated
    assert headings("shape", whole, quoted=True, categories=9)[0] == f"shape: 51.4{SPACE}% shape"
    assert "one: undecided" in texts(shape_bias_panel("one", {"cat": whole}, quoted=False).svg)
    heads = {"one": {"cat": whole}}
    assert shape_bias_figure(heads).tobytes() != shape_bias_figure(heads, undecided=["one"]).tobytes()


def test_cells_show_each_share_by_its_opacity_and_number() -> None:
    svg = confusion_panel(np.array([[4, 0], [1, 1]]), title="t", cue="shape").svg
    shades = re.findall(r'style="fill: var\(--cell\)(?:; opacity: ([\d.]+))?"', svg)
    assert shades == ["", "0.5", "0.5"], "opaque where it is the whole row; nothing where it is none of it"
    assert sorted(words for words in texts(svg) if words in ("100", "50")) == ["100", "50", "50"]
    assert {"t", "shape label", "decision"} <= set(texts(svg))


def test_curves_differ_in_line_style_and_the_legend_names_them() -> None:
    *panels, legend = (panel.svg for panel in curve_panels(errors(3)).values())
    assert ["fog" in texts(panels[0]), "jpeg x" in texts(panels[1])] == [True, True]
    assert {"arm0, label", "arm1, label", "arm2, label"} <= set(texts(legend))
    assert len(set(CURVES)) == len(CURVES)
    for (colour, _), drawn in zip(CURVES[:4], (True, True, True, False), strict=True):
        name = next(name for name, value in COLOURS.items() if value == colour)
        assert (f"stroke: var(--{name})" in legend) is drawn
    assert panels[0] != curve_panels(errors(3, clean=False))["fog"].svg


def test_more_classifiers_than_line_styles_are_refused() -> None:
    with pytest.raises(ConfigError, match="7 classifiers in one picture of curves: allowed are 1 to 6"):
        curves(errors(7))
    with pytest.raises(ConfigError, match="7 classifiers in one picture of curves"):
        curve_panels(errors(7))


def test_equal_numbers_give_equal_bytes(every: list[str]) -> None:
    matrix = np.array([[4, 0], [1, 1]])
    assert confusion_panel(matrix, title="t", cue="shape").svg == every[-1]
    assert curves(errors(2)).tobytes() == curves(errors(2)).tobytes() != curves(errors(2, clean=False)).tobytes()
    single, two = shape_bias_figure({"a": BIASES}), shape_bias_figure({"a": BIASES, "b": BIASES})
    assert (two.width, two.height) == (2 * single.width, single.height)
    assert two.tobytes() == shape_bias_figure({"a": BIASES, "b": BIASES}).tobytes()
    assert (single.mode, single.getpixel((0, 0))) == ("RGB", (255, 255, 255))
