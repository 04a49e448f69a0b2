"""Dockerfile and compose files, as far as they can be checked without a container runtime."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from packaging.specifiers import SpecifierSet

from tests.support.compose import read_compose

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = read_compose()
SERVICES = COMPOSE["services"]
OURS = {"buckets", "prefect", "mlflow", "worker", "deploy"}


def schema_errors(text: str) -> str:
    """The errors that the Compose specification finds in a file."""
    compose_spec = pytest.importorskip("compose_spec", reason="its reader is in the dependency group services")
    try:
        compose_spec.PyCompose.from_yaml(text).validate()
    except ValueError as error:
        return str(error)
    return ""


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is in the dependency group services")
    done = subprocess.run([hadolint, "-"], input=DOCKERFILE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    bad = DOCKERFILE.replace("WORKDIR /cgn", "RUN cd /cgn")
    assert subprocess.run([hadolint, "-"], input=bad, capture_output=True, text=True, check=False).returncode


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_the_compose_files_keep_to_the_specification(name: str) -> None:
    text = yaml.safe_dump(read_compose(name))
    assert schema_errors(text) == ""
    broken = text.replace("healthcheck:", "healthchek:").replace("driver:", "drver:")
    assert "does not start with" in schema_errors(broken)


def test_the_python_is_one_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    image = re.search(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, flags=re.MULTILINE)
    assert image is not None
    assert SpecifierSet(project["project"]["requires-python"]).contains(image[1])
    groups = set(re.findall(r"--group (\w+)", DOCKERFILE))
    assert groups == {"platform", "cluster", "servers"}
    assert groups <= set(project["dependency-groups"])


def test_the_cuda_of_the_comments_is_the_one_of_torch() -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch was built without CUDA")
    wanted = "cu" + torch.version.cuda.replace(".", "")
    for name in ("Dockerfile", "compose.gpu.yaml"):
        assert set(re.findall(r"\bcu\d+\b", (ROOT / name).read_text(encoding="utf-8"))) == {wanted}


def test_the_image_does_not_run_as_root_and_names_no_registry() -> None:
    assert re.findall(r"^USER (\w+)", DOCKERFILE, flags=re.MULTILINE) == ["1000"]
    for name in ("Dockerfile", "compose.yaml", "compose.gpu.yaml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"index-url|extra-index|https://", text), name


def test_ports_are_published_on_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_page_of_another_site_can_use_prefects_server() -> None:
    """By default any may, and who can create a deployment can run commands."""
    origins = SERVICES["prefect"]["environment"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert set(origins) == {"http://127.0.0.1:4200", "http://localhost:4200"}


def test_what_services_wait_for_exists_and_can_be_waited_for() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert SERVICES[name]["restart"] == "no"
    assert {name for name, service in SERVICES.items() if service["image"].startswith("cgn:")} == OURS
    assert all(":" in service["image"] for service in SERVICES.values()), "a tag each"


def test_addresses_are_those_of_services_and_their_ports() -> None:
    environments = [service.get("environment", {}) for service in SERVICES.values()]
    text = " ".join(str(value) for one in environments for value in one.values())
    text += " ".join(word for service in SERVICES.values() for word in service.get("command", []))
    hosts = set(re.findall(r"(?:@|//|,|\b)([a-z]+):(\d{4})\b", text)) - {("localhost", "4200"), ("localhost", "5000")}
    assert hosts == {("database", "5432"), ("store", "9000"), ("prefect", "4200"), ("mlflow", "5000")}


def test_the_worker_serves_the_pool_of_the_deployments_in_the_checkout() -> None:
    deployments = yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {entry["work_pool"]["name"] for entry in deployments} == {"cgn"}
    worker, deploy = SERVICES["worker"], SERVICES["deploy"]
    assert worker["command"][worker["command"].index("--pool") + 1] == "cgn"
    assert worker["volumes"] == deploy["volumes"] == [".:/cgn"]
    assert "WORKDIR /cgn" in DOCKERFILE


def test_an_image_gets_no_history_no_outputs_and_no_secrets() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".git", ".venv", ".env", "runs", ".dvc/cache", ".dvc/config.local", "mlartifacts"} <= set(ignored)
    assert not {"cgn", "flows", "params.yaml", "dvc.yaml", "pipelines.yaml", "pyproject.toml", "README.md"} & set(
        ignored
    )
