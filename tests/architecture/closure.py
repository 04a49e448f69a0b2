"""What code a stage runs: the import closure of its cell, by grimp.

    python -m tests.architecture.closure                 every verb's list
    python -m tests.architecture.closure mnist train_cgn one of them
    python -m tests.architecture.closure --write         put them into dvc.yaml, which stays as it is otherwise

`--write` also resolves a merge conflict in dvc.yaml, where both sides hold nothing but code paths.

Decided here: an import inside a function counts, and so does the data file that bears a module's name. A package's
`__init__.py` runs with its modules and counts where it holds more than words. A package all of whose modules are in the
closure is listed as its folder.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import grimp

from cgn.__main__ import TRACKS, VERBS

ROOT = Path(__file__).parents[2]
CODE = "      - cgn/"
CONFLICT = re.compile(rf"^<<<<<<< .*\n(?:{CODE}.*\n|\|{{7}} .*\n|=======\n)*>>>>>>> .*\n", re.MULTILINE)


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
    return sorted((track, verb) for track in TRACKS for verb in VERBS if (ROOT / f"cgn/{track}/{verb}.py").is_file())


def rewritten(text: str) -> str:
    """The text of dvc.yaml with the code paths in every stage's `deps` replaced by the closure of its cell.

    A stage whose command has no cell stays as it is. Raises ValueError naming a stage without `deps`.
    """
    stages = re.split(r"^(?=  \w+:$)", CONFLICT.sub("", text), flags=re.MULTILINE)
    return "".join([stages[0], *map(_with_code, stages[1:])])


def _with_code(stage: str) -> str:
    name = stage.partition(":")[0].strip()
    cell = re.search(r"flows\.stage (\w+) (\w+)/", stage)
    deps = re.search(r"^    deps:\n((?:      .*\n)*)", stage, flags=re.MULTILINE)
    if cell is None:
        return stage
    if deps is None:
        raise ValueError(f"dvc.yaml: {name} needs `deps:`, even if it is empty")
    lines = deps[1].splitlines(keepends=True)
    place = next((number for number, line in enumerate(lines) if line.startswith(CODE)), len(lines))
    code = [f"      - {path}\n" for path in listed(closure(f"cgn.{cell[2]}.{cell[1]}"))]
    lines[place:] = [*code, *(line for line in lines[place:] if not line.startswith(CODE))]
    return stage[: deps.start(1)] + "".join(lines) + stage[deps.end(1) :]


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
    if sys.argv[1:] == ["--write"]:
        file = ROOT / "dvc.yaml"
        file.write_bytes(rewritten(file.read_bytes().decode()).encode())
        raise SystemExit
    asked = [tuple(sys.argv[1:3])] if len(sys.argv) == 3 else cells()
    for track, verb in asked:
        print(f"# {track}_{verb}")
        for path in listed(closure(f"cgn.{track}.{verb}")):
            print(f"      - {path}")
