"""`mlflow models serve` answers with the class that the library gives, and refuses what is no image. All is real."""

import base64
import io
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from PIL import Image

import cgn
from cgn.core.checkpoints import save_model
from cgn.nets.classifiers import MECHANISMS, Ensemble, network
from flows.models.__main__ import main
from tests.flows.conftest import answers, end_group, until

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # MLflow's own
NAMES = ["dog", "bird", "wheel"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ensemble on random weights: its answers are as good as any to compare."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("train_classifier") / "ensemble"
    folder.mkdir()
    net = Ensemble(network("shufflenet_v2_x0_5", classes=1), classes=len(NAMES), batch_norm="trained")
    facts = {"track": "imagenet", "variant": "toy", "arm": "ensemble", "classes": len(NAMES), "class_names": NAMES}
    facts |= {"backbone": "shufflenet_v2_x0_5", "heads": list(MECHANISMS), "image_size": 64, "batch_norm": "trained"}
    save_model(folder / "model.safetensors", net.state_dict(), facts=facts)
    return folder


@pytest.fixture(scope="module")
def address(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this classifier that may unpickle nothing."""
    folder = tmp_path_factory.mktemp("served") / "model"
    port = random.randrange(20_000, 30_000)  # the system gives none of these to others, however long the start takes
    assert main(["save", str(classifier), str(folder)]) == 0
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONWARNINGS": "ignore"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])  # it calls uvicorn
    with (folder.parent / "log").open("wb") as log:
        words += ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            until(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/ping"), what="the server")
            assert process.poll() is None, (folder.parent / "log").read_text()
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            end_group(process)


def image(seed: int, *, kind: str = "PNG", size: tuple[int, int] = (80, 70)) -> bytes:
    """A file of random colours."""
    torch.manual_seed(seed)
    file = io.BytesIO()
    pixels = torch.randint(256, (size[1], size[0], 3), dtype=torch.uint8).numpy()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def ask(address: str, *images: Any, form: str = "dataframe_records", **params: Any) -> requests.Response:
    """The answer to image files, or to whatever stands in their place."""
    given = [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in images]
    data: Any = {"image": given} if form == "inputs" else [{"image": one} for one in given]
    return requests.post(address, json={form: data, "params": params}, timeout=60)


def bomb(side: int) -> bytes:
    """A PNG whose header promises a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("form", ["dataframe_records", "inputs", "instances"])
def test_a_batch_is_answered_as_by_the_library(address: str, classifier: Path, form: str) -> None:
    files = [image(0), image(1, kind="JPEG"), image(2, size=(300, 64))]
    reply = ask(address, *files, form=form, top=2)
    assert reply.status_code == 200, reply.text
    said = cgn.load_classifier(classifier).classify(files)
    answers = reply.json()["predictions"]
    assert [answer["class"] for answer in answers] == [one.name for one in said]
    assert [answer["probability"] for answer in answers] == pytest.approx([one.probability for one in said], abs=1e-5)
    assert set(answers[0]["heads"]) == {"avg", *MECHANISMS, "shape_texture"}
    assert {len(classes) for classes in answers[0]["heads"].values()} == {2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"no image", "image 1 cannot be read: it is not an image of a known format"),
        (image(0)[:2000], "image 1 cannot be read: "),
        (bomb(20000), "image 1 cannot be read: it has 400,000,000 pixels, allowed: 67,108,864"),
        ("%%% no base64 %%%", "image 1 cannot be read"),
        (5, "image"),
        (None, "image"),
    ],
    ids=["no image", "cut short", "huge", "no base64", "a number", "nothing"],
)
def test_what_is_no_image_is_refused_in_plain_words(address: str, given: Any, message: str) -> None:
    reply = ask(address, image(0), given)
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["message"]
    assert "Traceback" not in reply.text


def test_a_column_of_another_name_and_an_empty_request_are_refused(address: str) -> None:
    wrong: list[dict[str, Any]] = [{"dataframe_records": [{"picture": "aaaa"}]}, {"dataframe_records": []}]
    for data in wrong:
        reply = requests.post(address, json=data, timeout=60)
        assert reply.status_code == 400
        assert "Model is missing inputs ['image']" in reply.json()["message"]
