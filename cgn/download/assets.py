"""What a fetch leaves in its folder: every file that a variant needs, verified, and sources.json, which describes them.

sources.json says what the files are (name, SHA-256, bytes, licence), never where this run found them, so a mirror and
the network make the same folder. Files that ship with the project are copied like any other and have no URL. Data
embedded in an installed package are listed too.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from cgn.core.files import replacing, sha256, write_json
from cgn.core.outputs import partial_folder
from cgn.download.fetching import MIRROR, fetch_assets, locate_assets
from cgn.download.sources import Asset, Embedded

SOURCES = "sources.json"
WHERE = {
    "present": "there: ",
    "mirror": "from the mirror: ",
    "download": "from ",
    "unavailable": f"NOT AVAILABLE: it has no public URL; set {MIRROR} to a folder that holds it",
}


class ShippedAsset(Protocol):
    """A file of this project's own, known by its SHA-256."""

    @property
    def name(self) -> str: ...
    @property
    def licence(self) -> str: ...
    def verified(self) -> Path:
        """Its path in the installed package. Raises ArtifactError when it is missing or has other bytes."""
        ...


def fetch_all(
    assets: Sequence[Asset], folder: Path, *, shipped: Sequence[ShippedAsset] = (), embedded: Sequence[Embedded] = ()
) -> dict[str, int]:
    """Put every file into `folder` and write its sources.json. Returns how many files and bytes there are.

    Raises ArtifactError naming each file that cannot be had.
    """
    fetch_assets(assets, folder)
    for file in shipped:
        with replacing(folder / file.name) as temporary:
            shutil.copyfile(file.verified(), temporary)
    named: list[Asset | ShippedAsset] = [*assets, *shipped]
    files = [_entry(file, folder / file.name) for file in sorted(named, key=lambda file: file.name)]
    listed = [asdict(data) for data in sorted(embedded, key=lambda data: data.name)]
    write_json(folder / SOURCES, {"files": files, "embedded": listed})
    return {"files": len(files), "bytes": sum(file["bytes"] for file in files)}


def list_all(
    assets: Sequence[Asset], folder: Path, *, shipped: Sequence[ShippedAsset] = (), embedded: Sequence[Embedded] = ()
) -> list[str]:
    """A line for each file: its size, where it is or would come from, its licence; then the sum. Writes nothing.

    Looks into `folder`, or into what an unfinished run left of it. A file that is there has been verified.
    """
    found = locate_assets(assets, folder if folder.is_dir() else partial_folder(folder))
    rows = [(file.asset.name, file.bytes, WHERE[file.state] + file.source, file.asset.licence) for file in found]
    rows += [(file.name, file.verified().stat().st_size, "in the package", file.licence) for file in shipped]
    rows += [(data.name, None, f"in the package {data.package}", data.licence) for data in embedded]
    size = max((len(_bytes(count)) for _, count, _, _ in rows), default=0)
    name = max((len(row[0]) for row in rows), default=0)
    lines = [f"{row[0]:{name}}  {_bytes(row[1]):>{size}}  {row[2]}  [{row[3]}]" for row in rows]
    absent = [file for file in found if file.state != "present"]
    known = sum(file.bytes or 0 for file in absent)
    unknown = sum(file.bytes is None for file in absent)
    tail = f" and {unknown} of unknown size" if unknown else ""
    return [*lines, f"{len(rows)} files; {len(absent)} to get: {known:,} bytes{tail}"]


def _bytes(count: int | None) -> str:
    return "size unknown" if count is None else f"{count:,} bytes"


def _entry(asset: Asset | ShippedAsset, path: Path) -> dict[str, Any]:
    return {
        "name": asset.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "licence": asset.licence,
        "urls": list(asset.urls) if isinstance(asset, Asset) else [],
    }
