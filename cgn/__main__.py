"""python -m cgn VERB TRACK/VARIANT --role PATH ...: the front door.

Decided here: a verb's signature is its command line (`cgn.core.arguments` marks inputs and the output), params.yaml is
checked as a whole before anything runs, and all that defines a run stands in `<output>.log/run.json` before the first
step. A verb is the function of its name in `cgn.<track>.<verb>`, where there is one; else it is the stage that
all tracks share, `cgn.stages.<verb>`, which the track's module gives its `parts`. A verb whose stage has a `listing`
can be asked with `--list` what it would do; then nothing is written. Stages and cells are imported only once they are
asked for: `--help` needs no torch.
"""

import argparse
import hashlib
import importlib
import inspect
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

from cgn.config.load import Params, load
from cgn.config.schema import Variant
from cgn.core.arguments import INPUT, OUTPUT, PACE
from cgn.core.devices import limit_threads, machine
from cgn.core.errors import ArtifactError, CgnError, ConfigError
from cgn.core.files import folder_digest, read_object, sha256, write_json
from cgn.core.metrics import Fanout, Files, MetricSink
from cgn.core.outputs import DEFINITION, building, log_folder, partial_folder
from cgn.core.stale import leftovers, remove

VERBS = {
    "fetch": "bring the assets a variant needs, from a mirror or the network, verified",
    "prepare": "make the training and test shards",
    "train_cgn": "train the counterfactual generative network",
    "generate": "make shards of factual and counterfactual images",
    "train_classifier": "train one classifier on original, generated or mixed images",
    "evaluate": "store every classifier's decision on every image",
    "report": "make the page with tables and sheets",
}
TRACKS = ("imagenet", "mnist")
GIVEN = ("seed", "variant", "sink")
"""Arguments of a verb that are no options."""
CLEAN = "clean"
"""No verb: what it lists and removes is of all of them."""
PACKAGES = ("torch", "torchvision", "lightning-fabric", "webdataset", "numpy", "pillow", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A parsed command line: `options` by the names of the verb's signature."""

    verb: str
    target: str
    options: Mapping[str, Any]
    inputs: Mapping[str, tuple[Path, ...]]
    output_role: str
    out: Path
    paces: frozenset[str]
    params_file: Path
    lists: bool = False
    """Only print what the verb would do (its stage has a `listing`)."""

    @property
    def log(self) -> Path:
        """The folder of run.json, metrics.jsonl, metrics.json, details.json and curves.csv."""
        return log_folder(self.out)

    @property
    def defining(self) -> dict[str, Any]:
        """The options that decide what is made: neither paths nor paces."""
        paths = {*self.inputs, self.output_role, *(name for name, value in self.options.items() if value is None)}
        return {name: value for name, value in self.options.items() if name not in paths | self.paces}


def parse(argv: Sequence[str]) -> Invocation:
    """Read a command line. A wrong one ends in argparse's usage message and SystemExit(2)."""
    front = argparse.ArgumentParser(prog="python -m cgn", formatter_class=argparse.RawDescriptionHelpFormatter)
    front.description = "verbs:\n" + "\n".join(f"  {verb:17} {what}" for verb, what in VERBS.items())
    front.epilog = (
        "python -m cgn VERB --help lists a verb's options\n"
        "python -m cgn clean lists what killed and changed commands left behind; with --yes it removes what is stale"
    )
    front.add_argument("verb", choices=VERBS, metavar="VERB")
    verb: str = front.parse_args(argv[:1]).verb
    track = _track(argv[1:])
    source = _source(track, verb)
    marks = _marks(getattr(source, verb))
    parser = argparse.ArgumentParser(prog=f"python -m cgn {verb}", description=f"{VERBS[verb]} (track {track})")
    parser.add_argument("target", metavar="TRACK/VARIANT", help="for example mnist/digits")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    for name, mark in marks.items():
        parser.add_argument(f"--{name}", **mark.argparse)
    if hasattr(source, "listing"):
        parser.add_argument("--list", action="store_true", help="print what is needed and where it is; get nothing")
    given = vars(parser.parse_args(argv[1:]))
    options: dict[str, Any] = {n: tuple(given[n]) if mark.many else given[n] for n, mark in marks.items()}
    (output,) = (name for name, mark in marks.items() if mark.kind == OUTPUT)
    given_inputs = [(n, m) for n, m in marks.items() if m.kind == INPUT and options[n] is not None]
    inputs = {n: options[n] if m.many else (options[n],) for n, m in given_inputs}
    paces = frozenset(name for name, mark in marks.items() if mark.kind == PACE)
    return Invocation(
        verb=verb,
        target=given["target"],
        options=options,
        inputs=inputs,
        output_role=output,
        out=options[output],
        paces=paces,
        params_file=given["params"],
        lists=given.get("list", False),
    )


def run(argv: Sequence[str], *, sinks: Sequence[MetricSink] = ()) -> Invocation:
    """Run a command line to its end; metrics go to files and to `sinks`. Raises CgnError for what a user can mend."""
    limit_threads()  # before numpy and torch are imported, which start as many as there are cores
    call = parse(argv)
    record = load(call.params_file).variant(call.target)
    track, _, name = call.target.partition("/")
    cell = importlib.import_module(f"cgn.{track}.{call.verb}")
    params = getattr(record, call.verb)
    shared = record.shared(call.verb)
    given = {"seed": record.seed, "variant": name, **shared}
    source = _source(track, call.verb)
    first, given = (params, given) if source is cell else (cell.parts(params, **given), {})
    if call.lists:
        print("\n".join(source.listing(first, **{call.output_role: call.out})), flush=True)
        return call
    _look_ahead(call.verb, record, variant=name)
    definition = _plain(
        {
            "verb": call.verb,
            "track": track,
            "variant": name,
            "seed": record.seed,
            "params": asdict(params) | shared,
            "options": call.defining,
            "inputs": {role: [_digest(path, role=role) for path in paths] for role, paths in call.inputs.items()},
        }
    )
    if (check := getattr(source, "check", None)) is not None:
        options = {name: value for name, value in call.options.items() if name != call.output_role}
        check(first, **given, **options)
    started = time.monotonic()
    with building(call.out, definition=definition, code=_code()) as folder:
        files = Files(call.log, compared=getattr(cell, "COMPARED", ("*",)))
        note = _note(call.log, definition)
        begun = len(note["starts"]) > 1 or any(path.name != DEFINITION for path in folder.iterdir())
        files.rewind(sys.maxsize if begun else -1)  # an old record without half a line, or a new one
        write_json(call.log / "run.json", note)
        work = partial(getattr(source, call.verb), first, **given)
        work(**{**call.options, call.output_role: folder}, sink=Fanout([files, *sinks]))
    seconds = round(time.monotonic() - started, 3)
    write_json(call.log / "run.json", note | {"finished": _now(), "seconds": seconds})
    print(f"{call.verb} {call.target}: {call.out} finished in {seconds:.1f} s", flush=True)
    return call


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 2 for what the user can mend (told in one line)."""
    try:
        if argv[:1] == [CLEAN]:
            clean(argv[1:])
        else:
            run(argv)
    except CgnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def clean(argv: Sequence[str]) -> None:
    """List what is left of runs, with sizes; `--yes` removes what nothing would use again."""
    parser = argparse.ArgumentParser(prog=f"python -m cgn {CLEAN}", description=clean.__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the outputs lie; default: %(default)s")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--yes", action="store_true", help="remove what is stale; without, it is only listed")
    given = parser.parse_args(argv)
    params, code = load(given.params), _code()
    found = leftovers(given.runs, is_current=lambda definition: _is_current(definition, params=params, code=code))
    for left in found:
        word = "kept" if not left.stale else "removed" if given.yes else "stale"
        if left.stale and given.yes:
            remove(left)
        print(f"{word:8}{left.bytes / 1e6:12,.1f} MB  {left.path}: {left.what}", flush=True)
    stale = [left for left in found if left.stale]
    told = f"{len(stale)} stale, {sum(left.bytes for left in stale) / 1e6:,.1f} MB"
    print(told + ("" if given.yes or not stale else f"; python -m cgn {CLEAN} --yes removes them"), flush=True)


def _is_current(definition: Mapping[str, Any], *, params: Params, code: str) -> bool:
    """Whether a stage would continue what was begun with a definition, if its inputs are the same."""
    try:
        verb, record = definition["verb"], params.variant(f"{definition['track']}/{definition['variant']}")
        wanted = _plain({"params": asdict(getattr(record, verb)) | record.shared(verb), "seed": record.seed})
        return definition["code"] == code and all(definition[key] == value for key, value in wanted.items())
    except (AttributeError, ConfigError, KeyError, TypeError):
        return False


@dataclass(frozen=True, kw_only=True)
class _Mark:
    kind: str
    many: bool
    argparse: dict[str, Any]


def _look_ahead(verb: str, record: Variant, *, variant: str) -> None:
    """Refuse before gigabytes are fetched what prepare would refuse afterwards: folders that do not do.

    It is no part of the stage, whose output does not depend on them.
    """
    if verb == "fetch" and (folders := getattr(record.prepare, "folders", None)) is not None:
        from cgn.imagenet.folders import user_sets

        user_sets(folders, variant=variant)


def _track(words: Sequence[str]) -> str:
    """The track that a command line names first, or the first one there is: its options explain themselves, too."""
    named = words[0].partition("/")[0] if words else ""
    return named if named in TRACKS else TRACKS[0]


def _source(track: str, verb: str) -> ModuleType:
    """The module with the function of a verb's name: the track's own, or the stage that all tracks share.

    It may also have a `listing` and a `check`, which refuses command lines before anything is written. All of them take
    what the verb takes: the track's own its parameters, `seed` and `variant`, the stage what `parts` makes of these.
    """
    cell = importlib.import_module(f"cgn.{track}.{verb}")
    return cell if hasattr(cell, verb) else importlib.import_module(f"cgn.stages.{verb}")


def _marks(verb: Callable[..., None]) -> dict[str, _Mark]:
    """Of all arguments but the first one, a record, and those that the front door gives by itself."""
    hints = get_type_hints(verb, include_extras=True)
    marks = {}
    for name, parameter in [*inspect.signature(verb).parameters.items()][1:]:
        if name in GIVEN:
            continue
        base, *extras = get_args(hints[name]) if hasattr(hints[name], "__metadata__") else (hints[name],)
        kind, many = (extras[0] if extras else "option"), get_origin(base) is tuple
        options: dict[str, Any] = {"type": Path if kind in (INPUT, OUTPUT) else base, "metavar": kind.upper()}
        if many:
            options["action"] = "append"
        if parameter.default is inspect.Parameter.empty:
            options["required"] = True
        else:
            shown = "where the track needs it" if parameter.default is None else f"default: {parameter.default}"
            options |= {"default": parameter.default, "help": shown}
        marks[name] = _Mark(kind=kind, many=many, argparse=options)
    return marks


def _digest(path: Path, *, role: str) -> str:
    try:
        if path.is_dir():
            return folder_digest(path)
        if path.is_file():
            return sha256(path)
    except OSError as error:
        raise ArtifactError(f"--{role} {error.filename or path} cannot be read: {error.strerror or error}") from None
    state = "is unfinished: run its stage again" if partial_folder(path).is_dir() else "is missing: run its stage first"
    raise ArtifactError(f"--{role} {path} {state}")


def _note(log: Path, definition: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says before the first step; the starts of a run that continues are kept.

    It is only a record: one that cannot be read is written anew.
    """
    note: dict[str, Any] = {**definition, "starts": []}
    if (log / "run.json").is_file():
        try:
            earlier = read_object(log / "run.json")
        except ArtifactError as error:
            print(f"{error.args[0].rpartition(': ')[0]}: the record of this run begins anew", flush=True)
            earlier = {}
        same = all(earlier.get(key) == value for key, value in definition.items()) and not earlier.get("finished")
        note["starts"] = earlier["starts"] if same and isinstance(earlier.get("starts"), list) else []
    note["starts"] = [*note["starts"], {"time": _now(), "git_revision": _git_revision()}]
    return note | {"finished": None, "seconds": None, "versions": _versions(), "machine": machine()}


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a JSON file: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(definition))
    return plain


def _code() -> str:
    """Digest of the library's source: work begun by other code is not continued."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """The checkout's revision, with `+` when files differ from it; None outside a git checkout."""
    try:
        told = [
            subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return told[0] + ("+" if told[1] else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
