"""fetch: the files a variant needs in one folder, verified, and `sources.json`, which says what they are.

Decided here: sources.json tells what the files are (name, SHA-256, bytes, licence), never where this run found them,
so a mirror and the network make the same folder. Files that ship with the project are brought like any other, and have
no URL. Data embedded in an installed package are listed too.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from cgn.core.arguments import Output
from cgn.core.files import replacing, sha256, write_json
from cgn.core.metrics import MetricSink
from cgn.core.outputs import partial_folder
from cgn.data.download import MIRROR, fetch_assets, locate_assets
from cgn.data.sources import Asset, Embedded

SOURCES = "sources.json"


class Shipped(Protocol):
    """A file of this project's own, known by its SHA-256."""

    @property
    def name(self) -> str: ...
    @property
    def licence(self) -> str: ...
    def verified(self) -> Path:
        """Where it lies. Raises ArtifactError when it is missing or other than it should be."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What to download, what ships with the project, and what needs neither."""

    assets: tuple[Asset, ...]
    shipped: Sequence[Shipped] = ()
    embedded: tuple[Embedded, ...]


def fetch(parts: Parts, *, assets: Output, sink: MetricSink) -> None:
    """Bring every asset into the folder `assets` and write its sources.json."""
    fetch_assets(parts.assets, assets)
    for file in parts.shipped:
        with replacing(assets / file.name) as temporary:
            shutil.copyfile(file.verified(), temporary)
    named: list[Asset | Shipped] = [*parts.assets, *parts.shipped]
    files = [_entry(file, assets / file.name) for file in sorted(named, key=lambda file: file.name)]
    embedded = [asdict(data) for data in sorted(parts.embedded, key=lambda data: data.name)]
    write_json(assets / SOURCES, {"files": files, "embedded": embedded})
    sink.summary({"files": len(files), "bytes": sum(file["bytes"] for file in files)})


def listing(parts: Parts, *, assets: Path) -> list[str]:
    """A line for each file: its size, where it is or would come from, its licence; then the sum. Writes nothing.

    Looks into `assets`, or into what an unfinished run left of it. A file that is there has been verified.
    """
    found = locate_assets(parts.assets, assets if assets.is_dir() else partial_folder(assets))
    rows = [(file.asset.name, file.bytes, WHERE[file.state] + file.source, file.asset.licence) for file in found]
    rows += [(file.name, file.verified().stat().st_size, "in the package", file.licence) for file in parts.shipped]
    rows += [(data.name, None, f"in the package {data.package}", data.licence) for data in parts.embedded]
    size = max((len(_bytes(count)) for _, count, _, _ in rows), default=0)
    name = max((len(row[0]) for row in rows), default=0)
    lines = [f"{row[0]:{name}}  {_bytes(row[1]):>{size}}  {row[2]}  [{row[3]}]" for row in rows]
    absent = [file for file in found if file.state != "present"]
    known = sum(file.bytes or 0 for file in absent)
    unknown = sum(file.bytes is None for file in absent)
    tail = f" and {unknown} of unknown size" if unknown else ""
    return [*lines, f"{len(rows)} files; {len(absent)} to get: {known:,} bytes{tail}"]


WHERE = {
    "present": "there: ",
    "mirror": "from the mirror: ",
    "download": "from ",
    "unavailable": f"NOT AVAILABLE: it has no public URL; set {MIRROR} to a folder that holds it",
}


def _bytes(count: int | None) -> str:
    return "size unknown" if count is None else f"{count:,} bytes"


def _entry(asset: Asset | Shipped, path: Path) -> dict[str, Any]:
    return {
        "name": asset.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "licence": asset.licence,
        "urls": list(asset.urls) if isinstance(asset, Asset) else [],
    }
