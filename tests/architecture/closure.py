"""What code a stage runs: the import closure of its cell, by grimp.

    python -m tests.architecture.closure                 every verb's list, to paste into dvc.yaml
    python -m tests.architecture.closure mnist train_cgn one of them

Decided here: an import inside a function counts, and so does the data file that bears a module's name. A package's
`__init__.py` runs with its modules and counts where it holds more than words. A package all of whose modules are in the
closure is listed as its folder.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]


@cache
def graph() -> grimp.ImportGraph:
    """The imports of the library."""
    return grimp.build_graph("cgn", cache_dir=None)


def closure(cell: str) -> set[Path]:
    """The files (relative to the root) that importing `cell` and running its functions may load."""
    modules = {cell, *graph().find_upstream_modules(cell)}
    files = {_file(module) for module in modules}
    for file in set(files):
        files |= {folder / "__init__.py" for folder in file.parents[:-1] if not _is_empty(folder / "__init__.py")}
    data = {file.with_suffix(".json") for file in files}
    return {file for file in files if not _is_empty(file)} | {file for file in data if (ROOT / file).is_file()}


def listed(files: set[Path]) -> list[Path]:
    """The same, a folder standing for all its Python files where it holds nothing else."""
    whole = {
        folder
        for folder in {parent for file in files for parent in file.parents[:-1]}
        if _code(folder) and _code(folder) <= files
    }
    return sorted({next((folder for folder in [*file.parents][::-1] if folder in whole), file) for file in files})


def expanded(paths: set[Path]) -> set[Path]:
    """Listed paths as files."""
    return {file for path in paths for file in (_code(path) if (ROOT / path).is_dir() else {path})}


def cells() -> list[tuple[str, str]]:
    """Every (track, verb) that has a cell."""
    verbs = {path.stem for path in (ROOT / "cgn/stages").glob("*.py")} - {"__init__"}
    files = (ROOT / "cgn/tracks").glob("*/*.py")
    return sorted((path.parent.name, path.stem) for path in files if path.stem in verbs)


def _code(folder: Path) -> set[Path]:
    """The files under a folder that say something; none where not all of them are Python."""
    files = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
    files = {path for path in files if path.suffix != ".pyc"}
    if any(path.suffix != ".py" for path in files):
        return set()
    return {path for path in files if not _is_empty(path)}


def _file(module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


def _is_empty(file: Path) -> bool:
    """Whether a package's file holds nothing but words."""
    if file.name != "__init__.py" or not (ROOT / file).exists():
        return False
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


if __name__ == "__main__":
    asked = [tuple(sys.argv[1:3])] if len(sys.argv) == 3 else cells()
    for track, verb in asked:
        print(f"# {track}_{verb}")
        for path in listed(closure(f"cgn.tracks.{track}.{verb}")):
            print(f"      - {path}")
