"""What of a stage's output is shown in Prefect's UI."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.artifacts import Artifact

from flows import artifacts
from flows.graph import Stage


def write(path: Path, *, size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def generated(out: Path) -> list[Path]:
    """What train_cgn and generate draw on both tracks, each series' newest state; older states beside it."""
    write(out / "sheets" / "000500.png")
    write(out / "sheets" / "9999.png")
    kept = [
        "examples.png",
        "interpolations/shape-0-4.gif",
        "interpolations/shape-0-4.png",
        "interpolations/texture-2-7.gif",
        "sheets/010000.png",
    ]
    return [write(out / name) for name in kept]


def test_the_newest_sheet_and_every_film_are_shown(tmp_path: Path) -> None:
    shown = generated(tmp_path)
    assert artifacts.last_images(tmp_path) == shown


def test_data_sets_shards_and_large_images_are_not_shown(tmp_path: Path) -> None:
    shown = generated(tmp_path)
    for name in ("train/00_dog/n02084071_00000.png", "imagenet9/original/val/00_dog/a.png", "factual-000000.tar"):
        write(tmp_path / name)
    write(tmp_path / "interpolations" / "all-0-1.gif", size=artifacts.IMAGE_BYTES + 1)
    write(tmp_path / "interpolations" / "all-0-1.mp4")
    assert artifacts.last_images(tmp_path) == shown
    assert artifacts.last_images(tmp_path / "nothing") == []


@dataclass
class Server:
    """What a Prefect server was sent, and what it says it has."""

    made: list[Artifact] = field(default_factory=list)
    has: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def read_latest_artifacts(self, artifact_filter: Any) -> list[Any]:
        return [SimpleNamespace(key=key, data=self.has[key]) for key in artifact_filter.key.any_ if key in self.has]

    def kinds(self, kind: str) -> list[Any]:
        return [artifact for artifact in self.made if artifact.type == kind]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()

    def record(artifact: Artifact) -> None:
        server.made.append(artifact)

    monkeypatch.setattr(Artifact, "create", record)
    monkeypatch.setattr(artifacts, "get_client", lambda **_: server)
    return server


def stage_of(out: Path) -> Stage:
    nothing: tuple[Path, ...] = ()
    return Stage(
        name="imagenet_generate@miniature",
        cmd="",
        needs=(),
        deps=nothing,
        outs=(out,),
        metrics=(out.with_name("out.log") / "metrics.json",),
        plots=nothing,
    )


def test_a_stage_of_imagenet_is_shown(tmp_path: Path, server: Server) -> None:
    out, values = tmp_path / "out", tmp_path / "out.log" / "details.json"
    values.parent.mkdir()
    generated(out)
    (out / "summary.md").write_text("# all of it", encoding="utf-8")
    values.write_text('{"ensemble": {"shape": {"in9": {"bg_gap": 0.1}}}, "seconds": 3}', encoding="utf-8")
    artifacts.show(stage_of(out))
    images = server.kinds("image")
    assert [image.key for image in images] == [
        "imagenet-generate-miniature-examples",
        "imagenet-generate-miniature-interpolations-shape-0-4-film",
        "imagenet-generate-miniature-interpolations-shape-0-4",
        "imagenet-generate-miniature-interpolations-texture-2-7-film",
        "imagenet-generate-miniature-sheets",
    ]
    data = base64.b64encode(b"xxx").decode()
    assert [image.image_url for image in images][:2] == [
        f"data:image/png;base64,{data}",
        f"data:image/gif;base64,{data}",
    ]
    (summary,) = server.kinds("markdown")
    assert (summary.markdown, summary.key) == ("# all of it", "imagenet-generate-miniature-summary")
    (table,) = server.kinds("table")
    assert table.table == [
        {"name": "ensemble/shape/in9", "bg_gap": 0.1, "seconds": ""},
        {"name": "(all)", "bg_gap": "", "seconds": 3},
    ]


def test_every_artifact_has_a_description(tmp_path: Path, server: Server) -> None:
    out, values = tmp_path / "out", tmp_path / "out.log" / "details.json"
    values.parent.mkdir()
    generated(out)
    (out / "summary.md").write_text("# all of it", encoding="utf-8")
    values.write_text('{"seconds": 3}', encoding="utf-8")
    artifacts.show(stage_of(out))
    said = {artifact.type: artifact.description for artifact in server.made}
    assert said["markdown"] == f"imagenet_generate@miniature: {out}/summary.md"
    assert all(artifact.description for artifact in server.made)


@pytest.mark.parametrize(
    "values",
    [
        {"accuracy": {"test": 0.5}, "seconds": 3},
        {"a": {"name": {"name": 1}}},  # a value that is called like the column
        {"only": 1},
    ],
)
def test_no_column_of_a_table_is_without_a_name(values: dict[str, Any]) -> None:
    rows = artifacts.table(values)
    assert all(all(column.strip() for column in row) for row in rows)
    assert all(next(iter(row.values())) for row in rows)
    assert len({tuple(row) for row in rows}) == 1


def test_what_the_server_has_is_not_stored_again(tmp_path: Path, server: Server) -> None:
    out, values = tmp_path / "out", tmp_path / "out.log" / "details.json"
    values.parent.mkdir()
    generated(out)
    values.write_text('{"seconds": 3}', encoding="utf-8")
    stage = stage_of(out)
    server.has = {str(artifact.key): artifact.format() for artifact in artifacts.artifacts(stage)}
    artifacts.show_new(stage)
    assert not server.made


def test_what_the_server_lacks_or_has_otherwise_is_stored(tmp_path: Path, server: Server) -> None:
    """An empty server, and one whose latest values are of another run."""
    out, values = tmp_path / "out", tmp_path / "out.log" / "details.json"
    values.parent.mkdir()
    generated(out)
    values.write_text('{"seconds": 3}', encoding="utf-8")
    stage = stage_of(out)
    everything = {str(artifact.key): artifact.format() for artifact in artifacts.artifacts(stage)}
    artifacts.show_new(stage)
    assert {artifact.key for artifact in server.made} == set(everything)
    server.made.clear()
    server.has = everything
    values.write_text('{"seconds": 4}', encoding="utf-8")
    artifacts.show_new(stage)
    assert [artifact.key for artifact in server.made] == ["imagenet-generate-miniature-values"]
