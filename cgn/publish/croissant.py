"""Croissant metadata of generated shards (mlcommons.org/croissant): every tar with its SHA-256, what a sample holds.

One record is one image: its key, the picture, and the labels of shape, texture and background.
"""

from typing import Any

from cgn.data.shards import LABELS, read_manifest
from cgn.publish.cards import PAPER, Run

PNG, JSON, RECORDS = "png-files", "json-files", "images"
KEY = r"(?:.*/)?(\d+)\.(?:png|json)$"
"""A member's name in a tar."""


def croissant(run: Run) -> dict[str, Any]:
    """JSON-LD as Croissant has it; paths start at the folder of the shards. Raises ArtifactError for broken shards."""
    import mlcroissant as mlc

    def key(file_set: str) -> Any:
        name = mlc.Extract(file_property=mlc.FileProperty.filename)
        return mlc.Source(file_set=file_set, extract=name, transforms=[mlc.Transform(regex=KEY)])

    manifest = read_manifest(run.root / "generate")
    tars = [
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
    sets = [
        mlc.FileSet(
            id=name,
            name=name,
            contained_in=[tar.id for tar in tars],
            encoding_formats=[encoding],
            includes=[f"*.{ending}"],
        )
        for name, encoding, ending in ((PNG, "image/png", "png"), (JSON, "application/json", "json"))
    ]
    content = mlc.Source(file_set=PNG, extract=mlc.Extract(file_property=mlc.FileProperty.content))
    fields = [
        mlc.Field(
            id=f"{RECORDS}/key",
            name="key",
            description="The number of the image in its split.",
            data_types=[mlc.DataType.TEXT],
            source=key(PNG),
            references=key(JSON),
        ),
        mlc.Field(
            id=f"{RECORDS}/image",
            name="image",
            description="The generated image.",
            data_types=[mlc.DataType.IMAGE_OBJECT],
            source=content,
        ),
        *(
            mlc.Field(
                id=f"{RECORDS}/{label}",
                name=label,
                description=f"The class number that was asked for as {label}.",
                data_types=[mlc.DataType.INTEGER],
                source=mlc.Source(file_set=JSON, extract=mlc.Extract(json_path=f"$.{label}")),
            )
            for label in LABELS
        ),
    ]
    name = f"cgn-{run.track}-{run.variant}-images".replace("_", "-")
    metadata = mlc.Metadata(
        name=name,
        description=f"Images that a counterfactual generative network drew. {run.origin.words}",
        cite_as=PAPER,
        license=[run.origin.terms],
        url="https://arxiv.org/abs/2101.06046",
        version="1.0.0",
        distribution=[*tars, *sets],
        record_sets=[mlc.RecordSet(id=RECORDS, name=RECORDS, description="One image each.", fields=fields)],
    )
    found: dict[str, Any] = metadata.to_json()
    return found
