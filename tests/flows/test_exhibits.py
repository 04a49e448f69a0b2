"""What of a stage's output is shown in Prefect's UI."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import exhibits
from flows.graph import Stage

Made = list[dict[str, Any]]


def write(path: Path, *, size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def generated(out: Path) -> list[Path]:
    """What train_cgn, generate and evaluate draw on both tracks, each series' newest state; older states beside it."""
    write(out / "sheets" / "000500.png")
    write(out / "sheets" / "9999.png")
    kept = [
        "examples.png",
        "interpolations/shape-0-4.gif",
        "interpolations/shape-0-4.png",
        "interpolations/texture-2-7.gif",
        "shape_bias-baseline.png",
        "sheets/010000.png",
    ]
    return [write(out / name) for name in kept]


def test_the_newest_sheet_and_every_film_are_shown(tmp_path: Path) -> None:
    shown = generated(tmp_path)
    assert exhibits.last_pictures(tmp_path) == shown


def test_data_sets_shards_and_large_pictures_are_not_shown(tmp_path: Path) -> None:
    shown = generated(tmp_path)
    for name in ("train/00_dog/n02084071_00000.png", "imagenet9/original/val/00_dog/a.png", "factual-000000.tar"):
        write(tmp_path / name)
    write(tmp_path / "interpolations" / "all-0-1.gif", size=exhibits.PICTURE_BYTES + 1)
    write(tmp_path / "interpolations" / "all-0-1.mp4")
    assert exhibits.last_pictures(tmp_path) == shown
    assert exhibits.last_pictures(tmp_path / "nothing") == []


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Made]:
    """What would be sent to the server, by kind."""
    made: dict[str, Made] = {}

    def recording(kind: str) -> Callable[..., None]:
        def record(*words: str, **values: Any) -> None:
            made.setdefault(kind, []).append({"text": words, **values})

        return record

    for kind in ("image", "markdown", "table"):
        monkeypatch.setattr(exhibits, f"create_{kind}_artifact", recording(kind))
    return made


def test_a_stage_of_imagenet_is_shown(tmp_path: Path, artifacts: dict[str, Made]) -> None:
    out, values = tmp_path / "out", tmp_path / "out.log" / "details.json"
    values.parent.mkdir()
    generated(out)
    (out / "summary.md").write_text("# all of it", encoding="utf-8")
    values.write_text('{"ensemble": {"shape": {"in9": {"bg_gap": 0.1}}}, "seconds": 3}', encoding="utf-8")
    nothing: tuple[Path, ...] = ()
    exhibits.show(
        Stage(
            name="imagenet_generate@miniature",
            cmd="",
            needs=(),
            deps=nothing,
            outs=(out,),
            metrics=(tmp_path / "out.log" / "metrics.json",),
            plots=nothing,
        )
    )
    keys = [image["key"] for image in artifacts["image"]]
    assert keys == [
        "imagenet-generate-miniature-examples",
        "imagenet-generate-miniature-interpolations-shape-0-4-film",
        "imagenet-generate-miniature-interpolations-shape-0-4",
        "imagenet-generate-miniature-interpolations-texture-2-7-film",
        "imagenet-generate-miniature-shape-bias-baseline",
        "imagenet-generate-miniature-sheets",
    ]
    data = base64.b64encode(b"xxx").decode()
    assert [image["image_url"] for image in artifacts["image"]][:2] == [
        f"data:image/png;base64,{data}",
        f"data:image/gif;base64,{data}",
    ]
    assert artifacts["markdown"] == [{"text": ("# all of it",), "key": "imagenet-generate-miniature-summary"}]
    (table,) = artifacts["table"]
    assert table["table"] == [
        {"": "ensemble/shape/in9", "bg_gap": 0.1, "seconds": ""},
        {"": "", "bg_gap": "", "seconds": 3},
    ]
