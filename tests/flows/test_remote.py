"""DVC remotes: another clone pulls and runs nothing, and what a remote lacks is named object by object."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flows import remote
from tests.flows.conftest import Project, answers, free_port, make_project, until

STAGES = {"runs/data", "runs/side/left", "runs/side/right", "runs/join"}
NOBODY = "http://127.0.0.1:9"  # these tests do not track
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A project whose outputs are in a remote, and the remote's objects."""

    project: Project
    folder: Path | None
    bucket: Any

    def clone(self, name: str) -> Project:
        """Another clone of it, which has nothing but what Git has."""
        folder = self.project.folder.with_name(name)
        self.project.run("git", "clone", "-q", str(self.project.folder), str(folder))
        return replace(self.project, folder=folder)

    def oid(self, path: str) -> str:
        """The MD5 of an output, or of the file in it."""
        file = self.project.folder / path
        (line,) = self.project.run("md5sum", str(file)).splitlines()
        return line.split()[0]

    def lose(self, oid: str) -> None:
        """Remove an object."""
        if self.folder:
            self._file(oid).unlink()
        else:
            self.bucket.Object(f"dvc/files/md5/{oid[:2]}/{oid[2:]}").delete()

    def cut(self, oid: str) -> None:
        """Leave the first three bytes of an object."""
        if self.folder:
            content = self._file(oid).read_bytes()
            self._file(oid).unlink()
            self._file(oid).write_bytes(content[:3])
        else:
            there = self.bucket.Object(f"dvc/files/md5/{oid[:2]}/{oid[2:]}")
            there.put(Body=there.get()["Body"].read()[:3])

    def _file(self, oid: str) -> Path:
        assert self.folder is not None
        return self.folder / "files" / "md5" / oid[:2] / oid[2:]


def test_a_remote_that_cannot_be_asked_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each store's library has errors of its own: botocore's are no OSError."""

    def repo() -> None:
        raise RuntimeError("Unable to\nlocate credentials")

    monkeypatch.setattr("dvc.repo.Repo", repo)
    assert remote.main([]) == 2
    assert capsys.readouterr().err == "error: the remote cannot be asked: Unable to locate credentials\n"


@pytest.fixture(params=["folder", "S3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    plain = make_project(tmp_path / "project")
    project = replace(plain, environment=plain.environment | KEYS | {"MLFLOW_TRACKING_URI": NOBODY})
    with ExitStack() as stack:
        folder, bucket = tmp_path / "remote", None
        url = str(folder)
        if request.param == "S3":
            pytest.importorskip("dvc_s3", reason="DVC remotes in S3 need the group cluster")
            pytest.importorskip("moto.server", reason="the S3 server of the tests is in the group services")
            boto3 = pytest.importorskip("boto3")
            port = free_port()
            url, endpoint = "s3://cgn/dvc", f"http://127.0.0.1:{port}"
            stack.enter_context(project.running("moto_server", "-H", "127.0.0.1", "-p", str(port)))
            until(lambda: answers(f"{endpoint}/moto-api/"), seconds=60, what="the S3 server")
            keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
            bucket = boto3.resource("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="cgn")
        project.run("dvc", "remote", "add", "--default", "store", url)
        project.run("dvc", "remote", "modify", "store", "verify", "true")
        if bucket is not None:
            project.run("dvc", "remote", "modify", "store", "endpointurl", endpoint)
        project.run("dvc", "repro")
        assert set(project.ran()) == STAGES
        project.run("dvc", "push")
        project.run("git", "add", "dvc.lock", ".dvc/config")
        project.run("git", "commit", "-qm", "made")
        yield Shared(project=project, folder=None if bucket else folder, bucket=bucket)


@pytest.mark.long
def test_another_clone_pulls_and_runs_nothing(shared: Shared) -> None:
    second = shared.clone("second")
    second.run("dvc", "pull")
    assert "Data and pipelines are up to date." in second.run("dvc", "repro")
    assert second.ran() == []
    assert second.run("git", "status", "--porcelain") == ""
    texts = [(one.folder / "runs/join/text.txt").read_text(encoding="utf-8") for one in (shared.project, second)]
    assert texts[0] == texts[1]
    assert "0 of them not there" in second.run("python", "-m", "flows.remote")


@pytest.mark.long
def test_what_a_half_filled_remote_lacks_is_named_and_sent_again(shared: Shared) -> None:
    lost, cut = shared.oid("runs/join/text.txt"), shared.oid("runs/side/left.log/metrics.json")
    shared.lose(lost)
    shared.cut(cut)
    first = shared.project
    said = first.run("python", "-m", "flows.remote", status=1)
    assert f"runs/join/text.txt: missing; this cache has it ({lost})" in said
    assert f"bytes; this cache has it ({cut})" in said
    assert "3 of " in said
    second = shared.clone("second")
    said = second.run("python", "-m", "flows.remote", status=1)
    assert f"runs/join/text.txt: missing; this cache lacks it, too ({lost})" in said
    assert "ERROR: failed to pull data from the cloud" in second.run("dvc", "pull", status=1)
    assert not (second.folder / "runs/side/left.log/metrics.json").exists(), "three bytes were taken for a whole object"
    second.run("dvc", "repro")
    assert "runs/join" in second.ran()
    assert "runs/data" not in second.ran()
    said = first.run("python", "-m", "flows.remote", "--push")
    assert "missing; sent" in said
    third = shared.clone("third")
    third.run("dvc", "pull")
    third.run("dvc", "repro")
    assert third.ran() == []


@pytest.mark.long
def test_a_committed_lock_alone_stops_nothing_and_is_a_baseline(project: Project) -> None:
    """dvc.lock and the few bytes of the metrics are in Git, nothing else of what it names."""
    first = replace(project, environment=project.environment | {"MLFLOW_TRACKING_URI": NOBODY})
    first.run("dvc", "repro")
    metrics = [f"runs/side/{side}.log/metrics.json" for side in ("left", "right")]
    first.run("dvc", "push", "--remote", "baseline", *metrics)
    first.run("git", "add", "--force", "dvc.lock", "results/baseline")
    first.run("git", "commit", "-qm", "made")
    folder = first.folder.with_name("second")
    first.run("git", "clone", "-q", str(first.folder), str(folder))
    second = replace(first, folder=folder)
    second.run("dvc", "fetch", "--remote", "baseline", *metrics)
    shown = json.loads(second.run("dvc", "exp", "show", "--json"))
    committed = next(one for one in shown if one["rev"] != "workspace")["data"]["metrics"]
    assert set(committed) == set(metrics)
    assert all(entry["data"] == {"accuracy": {"toy": {"test": 0.5}}} for entry in committed.values())
    second.run("dvc", "repro")
    assert set(second.ran()) >= STAGES - {"runs/side/right"}  # which makes the bytes of left
    assert second.run("dvc", "metrics", "diff", "HEAD") == ""
