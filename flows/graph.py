"""The stage graph, asked of DVC: dvc.yaml is the only statement of what depends on what.

DVC's own index is read (after interpolation and matrix expansion), never the YAML. Stages come in an
order in which every stage follows the ones it needs.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

WITHOUT_GIT = "run `uv run dvc config --local core.no_scm true` once, then DVC needs no Git (its experiments do)"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One DVC stage: its name, its command, the stages it needs, its paths and parameters as dvc.yaml gives them.

    `plots`: what plots are drawn from, beside the output: files in its log folder that are no metrics.
    """

    name: str
    cmd: str
    needs: tuple[str, ...]
    deps: tuple[Path, ...]
    outs: tuple[Path, ...]
    metrics: tuple[Path, ...]
    plots: tuple[Path, ...]
    params: tuple[str, ...] = ()


def read_graph() -> dict[str, Stage]:
    """All stages of the project in the current folder (DVC names them from there), in an order that runs.

    Raises DvcException for a wrong dvc.yaml, RuntimeError with the remedy for a checkout without Git.
    """
    import networkx  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc.scm import SCMError  # type: ignore[import-untyped]

    try:
        opened = Repo()
    except SCMError as error:
        raise RuntimeError(f"{error}: {WITHOUT_GIT}") from None
    with opened as repo:
        graph = repo.index.graph
        order = networkx.lexicographical_topological_sort(graph.reverse(), key=lambda stage: stage.addressing)
        found = {}
        for stage in order:
            if not stage.cmd:  # a tracked file: nothing to run
                continue
            outs = [(Path(out.def_path), bool(out.metric)) for out in stage.outs]
            beside = {path for path, metric in outs if metric or path.parent.suffix == ".log"}
            found[stage.addressing] = Stage(
                name=stage.addressing,
                cmd=" ".join(stage.cmd.split()) if isinstance(stage.cmd, str) else " && ".join(stage.cmd),
                needs=tuple(sorted(needed.addressing for needed in graph.successors(stage) if needed.cmd)),
                deps=tuple(Path(dep.def_path) for dep in stage.deps if not hasattr(dep, "params")),
                outs=tuple(path for path, _ in outs if path not in beside),
                metrics=tuple(path for path, metric in outs if metric),
                plots=tuple(path for path, metric in outs if path in beside and not metric),
                params=tuple(key for dep in stage.deps for key in getattr(dep, "params", ())),
            )
    return found


def wanted(stages: Mapping[str, Stage], *, targets: Sequence[str]) -> dict[str, Stage]:
    """The stages whose names match a pattern of `targets` (`mnist_*`, `*@digits`), and all that they need."""
    chosen = {name for pattern in targets for name in matching(stages, pattern)}
    for name in reversed(list(stages)):  # a stage stands after those it needs
        if name in chosen:
            chosen.update(stages[name].needs)
    return {name: stage for name, stage in stages.items() if name in chosen}


def matching(stages: Mapping[str, Stage], pattern: str) -> list[str]:
    """The names that match a pattern. Raises ValueError with all names where none does."""
    names = [name for name in stages if fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(f"no stage matches {pattern!r}; stages: {', '.join(stages) or 'none'}")
    return names


def onward(stages: Mapping[str, Stage], pattern: str) -> set[str]:
    """The stages whose names match a pattern, and all that need one of them."""
    first = set(matching(stages, pattern))
    return {name for name in stages if name in first or all_needs(stages, name) & first}


def variants(stages: Mapping[str, Stage]) -> list[tuple[str, str]]:
    """The track and name of each variant that the stages read parameters of, in the stages' order."""
    keys = [key.split(".") for stage in stages.values() for key in stage.params]
    return list(dict.fromkeys((key[0], key[1]) for key in keys if len(key) > 2))


def ready(stages: Mapping[str, Stage], *, begun: Set[str], done: Set[str]) -> list[Stage]:
    """The stages that did not begin yet and whose needs are all done, in order."""
    return [stage for name, stage in stages.items() if name not in begun and done >= set(stage.needs)]


def all_needs(stages: Mapping[str, Stage], name: str) -> set[str]:
    """What a stage needs, directly or through others."""
    found: set[str] = set()
    for other in reversed(list(stages)):
        if other == name or other in found:
            found.update(stages[other].needs)
    return found


def share(stages: Mapping[str, Stage], name: str, *, ended: Set[str], cores: int, at_once: int) -> int:
    """How many of `cores` a stage that begins may use, so that those that work at the same time never want more.

    It is divided among as many stages as may still work beside it: `at_once`, or fewer where the graph has no more.
    """
    needs = all_needs(stages, name)
    others = set(stages) - ended - needs - {name}
    beside = sum(name not in all_needs(stages, other) for other in others)
    return max(1, cores // min(at_once, 1 + beside))
