"""fetch: the files a variant needs in one folder, verified, and `sources.json`, which says what they are.

Decided here: sources.json tells what the files are (name, SHA-256, bytes, licence), never where this run found them,
so a mirror and the network make the same folder. Data embedded in an installed package are listed too.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cgn.core.files import sha256, write_json
from cgn.core.metrics import MetricSink
from cgn.core.roles import Output
from cgn.data.download import bring
from cgn.data.sources import Asset, Embedded

SOURCES = "sources.json"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What to download, and what needs no download."""

    assets: tuple[Asset, ...]
    embedded: tuple[Embedded, ...]


def fetch(parts: Parts, *, assets: Output, sink: MetricSink) -> None:
    """Bring every asset into the folder `assets` and write its sources.json."""
    bring(parts.assets, assets)
    files = [_entry(asset, assets / asset.name) for asset in sorted(parts.assets, key=lambda asset: asset.name)]
    embedded = [asdict(data) for data in sorted(parts.embedded, key=lambda data: data.name)]
    write_json(assets / SOURCES, {"files": files, "embedded": embedded})
    sink.summary({"files": len(files), "bytes": sum(file["bytes"] for file in files)})


def _entry(asset: Asset, path: Path) -> dict[str, Any]:
    return {
        "name": asset.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "licence": asset.licence,
        "urls": list(asset.urls),
    }
