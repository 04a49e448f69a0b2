"""compose.yaml as plain values."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")


def read_compose(name: str = "compose.yaml", *, replaced: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file with the default of each variable; `replaced`: other text for pieces of it, such as addresses."""
    text = VARIABLE.sub(r"\1", (ROOT / name).read_text(encoding="utf-8"))
    for old, new in (replaced or {}).items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree
