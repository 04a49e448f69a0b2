"""Croissant metadata of generated shards (mlcommons.org/croissant): every tar with its SHA-256, what a sample holds.

Each split has two record sets: `<split>` with a key and the image, `<split>-labels` with the same key and the JSON text
of the labels. They are two, and the labels are text, because mlcroissant joins by whole file names, and reads no values
from JSON files inside of a tar.
"""

from typing import Any

from cgn.data.shards import LABELS, read_manifest
from cgn.publish.cards import PAPER, RunFolders

KEY = r"(?:.*/)?(\d+)\.(?:png|json)$"
"""The names of a sample's members."""


def croissant(run: RunFolders) -> dict[str, Any]:
    """JSON-LD as Croissant has it; paths start at the folder of the shards. Raises ArtifactError for broken shards."""
    import mlcroissant as mlc

    manifest = read_manifest(run.root / "generate")
    distribution: list[Any] = [
        mlc.FileObject(
            id=shard.name,
            name=shard.name,
            content_url=shard.name,
            content_size=f"{shard.bytes} B",
            encoding_formats=["application/x-tar"],
            sha256=shard.sha256,
        )
        for shard in manifest.shards
    ]
    record_sets = []
    for split in manifest.splits:
        tars = [shard.name for shard in manifest.shards if shard.split == split]
        for ending, encoding in (("png", "image/png"), ("json", "application/json")):
            distribution.append(
                mlc.FileSet(
                    id=f"{split}-{ending}",
                    name=f"{split}-{ending}",
                    contained_in=tars,
                    encoding_formats=[encoding],
                    includes=[f"*.{ending}"],
                )
            )
        record_sets += _record_sets(split)
    metadata = mlc.Metadata(
        name=f"cgn-{run.track}-{run.variant}-images".replace("_", "-"),
        description=f"Images that a counterfactual generative network drew. {run.origin.words}",
        cite_as=PAPER,
        license=[run.origin.terms],
        url="https://arxiv.org/abs/2101.06046",
        version="1.0.0",
        distribution=distribution,
        record_sets=record_sets,
    )
    found: dict[str, Any] = metadata.to_json()
    return found


def _record_sets(split: str) -> list[Any]:
    import mlcroissant as mlc

    def field(records: str, name: str, about: str, kind: Any, source: Any) -> Any:
        return mlc.Field(id=f"{records}/{name}", name=name, description=about, data_types=[kind], source=source)

    def key(records: str, files: str) -> Any:
        extract = mlc.Extract(file_property=mlc.FileProperty.filename)
        source = mlc.Source(file_set=files, extract=extract, transforms=[mlc.Transform(regex=KEY)])
        return field(records, "key", "The number of the image in its split.", mlc.DataType.TEXT, source)

    content = mlc.Extract(file_property=mlc.FileProperty.content)
    pixels = mlc.Source(file_set=f"{split}-png", extract=content)
    image = field(split, "image", "The generated image.", mlc.DataType.IMAGE_OBJECT, pixels)
    names, files = f"{split}-labels", f"{split}-json"
    about = f"JSON whose {', '.join(LABELS)} are the class numbers that were asked for."
    labels = field(names, "json", about, mlc.DataType.TEXT, mlc.Source(file_set=files, extract=content))
    return [
        mlc.RecordSet(id=split, name=split, fields=[key(split, f"{split}-png"), image]),
        mlc.RecordSet(id=names, name=names, fields=[key(names, files), labels]),
    ]
