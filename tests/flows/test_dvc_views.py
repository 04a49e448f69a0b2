"""What DVC shows of this project: tables in a terminal of 120 columns, the page of plots in a browser, artifacts.

By the project's own dvc.yaml and params.yaml, with stages that do nothing but write what the real ones write.
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
WIDTH = 120
EXPERIMENTS = {
    "fewer-epochs": "mnist.digits.train_classifier.epochs=1",
    "less-binary": "++mnist.digits.train_cgn.losses.binary=0.1",
    "weak-shape": "imagenet.miniature.train_cgn.losses.binary=5.0",
    "other-seed": "imagenet.miniature.seed=1",
}
STAND_IN = '''
"""Write an output and what is beside it: as the real stage does, with numbers that follow from params.yaml."""
import hashlib, json, pathlib, sys
from PIL import Image

digest = hashlib.md5(pathlib.Path("params.yaml").read_bytes()).digest()
out, *beside = map(pathlib.Path, sys.argv[1:])
out.mkdir(parents=True)
(out / "data.txt").write_bytes(digest)
if out.name == "train_cgn":
    (out / "sheets").mkdir()
    Image.new("RGB", (64, 32), (digest[0], 0, 0)).save(out / "sheets" / "000600.png")
if out.name == "generate":
    Image.new("RGB", (64, 32), (0, digest[0], 0)).save(out / "examples.png")
if out.name == "report":
    rows = [f"Top-1,{name},0.5,0.4,0.6" for name in ("original", "gan")]
    (out / "bars.csv").write_text("\\n".join(["measure,classifier,share,low,high", *rows]) + "\\n")
    (out / "confusion.csv").write_text("classifier,actual,predicted,images\\noriginal,0,1,5\\noriginal,1,1,7\\n")
for file in beside:
    file.parent.mkdir(parents=True, exist_ok=True)
    names = ("accuracy", "baseline") if "mnist" in file.parts else ("shape_bias", "bg_gap", "top_1")
    values = {name: round((digest[number] + 1) / 257, 4) for number, name in enumerate(names)}
    curve = f"step,name,value\\n1,loss/a,2\\n2,loss/a,{digest[0]}\\n1,loss/b,3\\n2,loss/b,1\\n"
    file.write_text(curve if file.suffix == ".csv" else json.dumps(values))
'''


def checkout(folder: Path) -> Path:
    """This project's dvc.yaml in a new Git repository; a stage depends on stages and parameters, not on code."""
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    for name in ("params.yaml", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in declared["stages"].values():
        stage["deps"] = ["code", *(dep for dep in stage.get("deps", ()) if dep.startswith("runs/"))]
        outs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
        stage["outs"], stage["always_changed"] = outs, False
        stage["cmd"] = f"{sys.executable} stand_in.py {' '.join([*outs, *stage.get('metrics', ())])}"
    (folder / "dvc.yaml").write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
    (folder / "code").touch()
    (folder / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    return folder


def run(folder: Path, *words: str) -> str:
    """What a command prints, which must succeed."""
    names = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = [sys.executable, "-m", *words] if words[0] == "dvc" else list(words)
    done = subprocess.run(command, cwd=folder, env=os.environ | names, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def commit(folder: Path) -> None:
    """Everything, with the lock of what was made."""
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "--message", "state")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which everything was made, and some experiments."""
    folder = checkout(tmp_path_factory.mktemp("views") / "project")
    run(folder, "dvc", "repro", "--quiet")
    commit(folder)
    for name, change in EXPERIMENTS.items():
        run(folder, "dvc", "exp", "run", "--quiet", "--name", name, "--set-param", change)
        run(folder, "git", "reset", "--quiet", "--hard")
        run(folder, "dvc", "checkout", "--quiet")
    return folder


def on_terminal(folder: Path, *words: str) -> list[str]:
    """The lines that DVC writes on a terminal of 120 columns, without colors."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        # pytest-xdist sets the first two, and they win over the terminal's size
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        os.execvpe(sys.executable, [sys.executable, "-m", "dvc", *words], kept | {"TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
    written = b""
    try:
        while part := os.read(terminal, 65536):
            written += part
    except OSError:  # the other end is closed
        pass
    _, status = os.waitpid(process, 0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert status == 0, text
    return [line.rstrip() for line in text.replace("\r", "").splitlines() if line.strip()]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("fewer-epochs", ["accuracy", "baseline"]),
        ("less-binary", ["accuracy", "baseline"]),
        ("weak-shape", ["shape_bias", "bg_gap", "top_1"]),
        ("other-seed", ["shape_bias", "bg_gap", "top_1"]),
    ],
)
def test_a_table_of_experiments_fits_a_terminal(compared: Path, name: str, metrics: list[str]) -> None:
    """One experiment a row: its name, its headlines, what it changed; the hashes of what followed are cut off."""
    others = {other for other in EXPERIMENTS if other != name}
    folder = compared.with_name(name)
    shutil.copytree(compared, folder, symlinks=True)
    run(folder, "dvc", "exp", "remove", *others)
    rule, header, second, *rows, last = on_terminal(folder, "exp", "show", "--only-changed", "--no-pager")
    assert all(len(line) <= WIDTH for line in (rule, header, *rows))
    key = EXPERIMENTS[name].partition("=")[0].removeprefix("++")
    assert header.split() == ["Experiment", "Created", *metrics, key, "…"]
    assert set(rule.strip()) == set(second.strip()) == set(last.strip()) == {"─"}
    assert [row.split()[0] for row in rows] == ["workspace", "main", "└──"], "a row is one line"
    assert name in rows[2]
    value = EXPERIMENTS[name].partition("=")[2]
    assert float(rows[2].split()[-2]) == float(value)


@pytest.mark.long
def test_differences_name_the_file_the_metric_and_the_change(compared: Path) -> None:
    lines = run(compared, "dvc", "metrics", "diff", "main", "fewer-epochs").splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["runs/mnist/digits/evaluate.log/headlines.json", name] for name in ("accuracy", "baseline")
    ]
    assert max(map(len, lines)) <= WIDTH
    (line,) = run(compared, "dvc", "params", "diff", "main", "fewer-epochs").splitlines()[1:]
    assert line.split() == ["params.yaml", "mnist.digits.train_classifier.epochs", "4", "1"]
    (_, *rows) = run(compared, "dvc", "metrics", "show").splitlines()
    assert len(rows) == 2, "a row for each variant"


@pytest.mark.long
@pytest.mark.parametrize("words", [("show",), ("diff", "main", "fewer-epochs")])
def test_plots_are_drawn_without_a_network(compared: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser; install the group `services`")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs the browser {CHROMIUM}")
    run(compared, "dvc", "plots", *words, "--out", str(tmp_path / "page"))
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    titles = [of["title"] for plot in declared if isinstance(plot, dict) for of in plot.values()]
    shown = {"${shown.mnist}": "digits", "${shown.imagenet}": "miniature"}
    said, asked = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{tmp_path}/page/index.html")
        page.wait_for_function(f"document.querySelectorAll('.vega-embed .marks').length == {len(titles)}")
        drawn = page.evaluate("[...document.querySelectorAll('.vega-embed .marks')].map(m => m.clientWidth > 100)")
        images = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        source = page.content()
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert drawn == [True] * len(titles)
    assert images == [64] * 4 * len(words[1:] or "-")
    for name, variant in shown.items():
        titles = [title.replace(name, variant) for title in titles]
    assert [title for title in titles if title not in source] == []


@pytest.mark.long
def test_a_variant_that_has_not_run_has_no_plots_and_breaks_nothing(tmp_path: Path) -> None:
    """Neither before anything ran nor when others were chosen."""
    folder = checkout(tmp_path / "project")
    (folder / "dvc.yaml").write_text(
        (folder / "dvc.yaml").read_text(encoding="utf-8").replace("mnist: digits", "mnist: wildlife"), encoding="utf-8"
    )
    assert "mnist: wildlife" in (folder / "dvc.yaml").read_text(encoding="utf-8")
    run(folder, "dvc", "plots", "show")
    run(folder, "dvc", "repro", "--quiet", "mnist_report@digits")
    run(folder, "dvc", "plots", "show")
    run(folder, "dvc", "status")
    assert "accuracy" in run(folder, "dvc", "metrics", "show")
