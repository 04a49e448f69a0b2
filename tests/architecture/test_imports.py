"""What a line of code may import: import-linter's contracts in pyproject.toml, and which packages each part may use."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import grimp
import pytest

from cgn.__main__ import TRACKS
from tests.architecture.closure import ROOT, cells

TENSORS = {"numpy", "torch"}
ALLOWED = {
    "cgn.core": {*TENSORS, "PIL", "lightning_fabric", "pydantic", "ray", "safetensors", "tqdm"},
    "cgn.config": {"pydantic", "ruamel"},
    "cgn.nets": {"torch", "torchvision"},
    "cgn.mechanisms": {"torch"},
    "cgn.losses": {"torch"},
    "cgn.data": {*TENSORS, "PIL", "fsspec", "webdataset"},
    "cgn.download": {"PIL", "requests", "safetensors", "tqdm", "urllib3"},
    "cgn.training": {"lightning_fabric", "torch"},
    "cgn.optimization": {"lightning_fabric", "torch"},
    "cgn.evaluation": {*TENSORS, "pandas", "pyarrow"},
    "cgn.rendering": {"PIL", "av", "torch"},
    "cgn.corruptions": {*TENSORS, "PIL"},
    "cgn.miniature": {*TENSORS, "PIL", "ruamel"},
    "cgn.report": {"PIL", "jinja2", "matplotlib", "pandas", "pydantic"},
    "cgn.mnist": {*TENSORS, "PIL", "pandas", "tqdm"},
    "cgn.imagenet": {*TENSORS, "PIL", "lightning_fabric", "pandas", "torchvision"},
    "cgn.clean": set(),
    "cgn.compare": set(),
    "cgn.doctor": {"requests", "torch"},
    "cgn.dry_run": set(),
    "cgn.api": {*TENSORS},
    "cgn.publish": {*TENSORS, "PIL", "httpx", "huggingface_hub", "mlcroissant", "onnx", "onnxruntime", "onnxscript"},
    "cgn.classify": {*TENSORS, "PIL"},
    "cgn.__main__": set(),
    "flows": {"PIL", "dvc", "dvc_data", "mlflow", "networkx", "optuna", "pandas", "prefect", "psutil", "ruamel"},
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("cgn", "flows", include_external_packages=True, cache_dir=None)


def test_contracts_are_kept() -> None:
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


def test_each_part_uses_the_packages_it_may(graph: grimp.ImportGraph) -> None:
    for part, allowed in ALLOWED.items():
        assert _packages(graph, part) <= allowed, part
    assert {".".join(module.split(".")[:2]) for module in graph.modules if module.startswith("cgn.")} <= set(ALLOWED)


def test_what_the_library_imports_is_declared(graph: grimp.ImportGraph) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    library = {_name(text) for text in project["project"]["dependencies"]}
    platform = {_name(text) for text in project["dependency-groups"]["platform"]}
    cluster = {_name(text) for text in project["dependency-groups"]["cluster"]}
    publish = {_name(text) for text in project["dependency-groups"]["publish"]}
    assert _missing(_packages(graph, "cgn"), library | cluster | publish) <= {"httpx"}, "huggingface_hub depends on it"
    of_dvc = {"dvc_data", "networkx", "psutil"}
    assert _missing(_packages(graph, "flows"), library | platform) <= of_dvc, "DVC depends on these"


def test_ray_is_optional(graph: grimp.ImportGraph) -> None:
    """Only what runs on a cluster knows it, and is imported then."""
    assert graph.find_modules_that_directly_import("ray") == {"cgn.core.fan_out_ray", "cgn.core.launch_ray"}
    assert graph.find_modules_that_directly_import("cgn.core.fan_out_ray") == {
        "cgn.core.fan_out",
        "cgn.core.launch_ray",
    }
    assert graph.find_modules_that_directly_import("cgn.core.launch_ray") == {"cgn.core.launch"}
    words = "import sys; sys.modules['ray'] = None; import cgn.core.launch_ray, cgn.imagenet.generate"
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=True)


@pytest.mark.parametrize("package", ["huggingface_hub", "mlcroissant", "onnx", "onnxruntime"])
def test_what_publishes_is_optional(graph: grimp.ImportGraph, package: str) -> None:
    assert all(name.startswith("cgn.publish.") for name in graph.find_modules_that_directly_import(package))
    words = (
        f"import sys; sys.modules['{package}'] = None; import cgn.publish.export, cgn.publish.push, cgn.publish.graphs"
    )
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=True)


def test_a_cell_knows_its_own_verb_only(graph: grimp.ImportGraph) -> None:
    for track, verb in cells():
        below = graph.find_upstream_modules(f"cgn.{track}.{verb}")
        assert below & {f"cgn.config.{other}" for other in TRACKS} == {f"cgn.config.{track}"}
        assert not {f"cgn.{track}.{other}" for _, other in cells() if other != verb} & below


def _packages(graph: grimp.ImportGraph, part: str) -> set[str]:
    """The packages from outside the standard library that a part names in its imports."""
    modules = {module for module in graph.modules if module == part or module.startswith(part + ".")}
    named = {found for module in modules for found in graph.find_modules_directly_imported_by(module)}
    return {name for name in named if "." not in name} - {"cgn", "flows"} - set(sys.stdlib_module_names)


def _missing(packages: set[str], declared: set[str]) -> set[str]:
    known = packages_distributions()
    return {name for name in packages if not {_name(text) for text in known.get(name, [name])} & declared}


def _name(requirement: str) -> str:
    """`Foo_bar[x]>=1` -> foo-bar."""
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()
