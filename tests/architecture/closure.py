"""What code a stage runs: the import closure of its verb, by grimp, and how dvc.yaml lists it.

    python -m tests.architecture.closure                 every verb's list
    python -m tests.architecture.closure mnist train_cgn one of them, and how many files it stands for
    python -m tests.architecture.closure --write         write them into dvc.yaml, which stays as it is otherwise

`--write` also resolves a merge conflict in dvc.yaml where both sides hold nothing but code paths.

An import inside a function counts, and so does the data file that bears a module's name. A package's `__init__.py` runs
with its modules and counts where it holds more than words. `cgn/__init__.py` does not: it loads the API by name, which
no verb does. How the closure is listed:

- `cgn/core` as a folder: every stage uses it.
- The packages in BY_FILE, and what is in no package, file by file: a stage must not run again for another stage's net,
  verb or parameters.
- Any other package as a folder where the stage reaches all of its modules. A stage that takes no hours (it is not in
  EXPENSIVE) lists the folder where it reaches half of them: what uses most of the evaluation depends on the evaluation.
"""

import ast
import re
import sys
import textwrap
from functools import cache
from pathlib import Path

import grimp

from cgn.__main__ import TRACKS, VERBS

ROOT = Path(__file__).parents[2]
ROOM = Path("cgn")
ALWAYS = ROOM / "core"
BY_FILE = {ROOM / name for name in ("config", "nets", "mnist", "imagenet", "miniature")}
EXPENSIVE = {"train_cgn", "train_classifier", "generate"}
CODE = "      cgn/"
WIDTH = 120
CONFLICT = re.compile(rf"^<<<<<<< .*\n(?:{CODE}.*\n|\|{{7}} .*\n|=======\n)*>>>>>>> .*\n", re.MULTILINE)


@cache
def graph() -> grimp.ImportGraph:
    """The imports of the library."""
    return grimp.build_graph("cgn", cache_dir=None)


def closure(cell: str) -> set[Path]:
    """The files (relative to the root) that importing `cell` and running its functions may load."""
    modules = {cell, *graph().find_upstream_modules(cell)} - {"cgn"}
    files = {_file(module) for module in modules}
    files |= {folder / "__init__.py" for file in files for folder in file.parents[:-2]}
    data = {file.with_suffix(".json") for file in files}
    return {file for file in files if not _is_empty(file)} | {file for file in data if (ROOT / file).is_file()}


def listed(files: set[Path], *, verb: str) -> list[Path]:
    """The closure of a verb as dvc.yaml lists it."""
    return sorted({file.parent if is_whole(file.parent, files, verb=verb) else file for file in files})


def is_whole(folder: Path, files: set[Path], *, verb: str) -> bool:
    """Whether a package stands in a list as its folder."""
    if folder in {ROOM, *BY_FILE}:
        return False
    modules = {path for path in modules_of(folder) if not _is_empty(path)}
    needed = len(modules) if verb in EXPENSIVE else len(modules) / 2
    return folder == ALWAYS or len(modules & files) >= needed


def modules_of(folder: Path) -> set[Path]:
    """The Python files of a package and of those inside it."""
    return {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py")}


def cells() -> list[tuple[str, str]]:
    """Every (track, verb) that has a cell."""
    return sorted((track, verb) for track in TRACKS for verb in VERBS if (ROOT / f"cgn/{track}/{verb}.py").is_file())


def code(track: str, verb: str) -> list[Path]:
    """The list of a cell."""
    return listed(closure(f"cgn.{track}.{verb}"), verb=verb)


def rewritten(text: str) -> str:
    """The text of dvc.yaml with the lines of code paths in every stage's `deps` replaced by the closure of its cell.

    A stage whose command has no cell stays as it is. Raises ValueError naming a stage without `deps`.
    """
    stages = re.split(r"^(?=  \w+:$)", CONFLICT.sub("", text), flags=re.MULTILINE)
    return "".join([stages[0], *map(_with_code, stages[1:])])


def _with_code(stage: str) -> str:
    name = stage.partition(":")[0].strip()
    cell = re.search(r"flows\.stage (\w+) (\w+)/", stage)
    deps = re.search(r"^    deps: \[\n((?:      .*\n)*)    \]\n", stage, flags=re.MULTILINE)
    if cell is None:
        return stage
    if deps is None:
        raise ValueError(f"dvc.yaml: {name} needs `deps: [` and `]` on lines of their own, even if it is empty")
    others = [line for line in deps[1].splitlines(keepends=True) if not line.startswith(CODE)]
    words = ", ".join(map(str, code(cell[2], cell[1]))) + ","
    indent = " " * 6
    lines = textwrap.fill(words, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return stage[: deps.start(1)] + "".join(others) + lines + "\n" + stage[deps.end(1) :]


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
    asked = [(sys.argv[1], sys.argv[2])] if len(sys.argv) == 3 else cells()
    for track, verb in asked:
        print(f"# {track}_{verb}: {len(closure(f'cgn.{track}.{verb}'))} files")
        print("\n".join(map(str, code(track, verb))))
