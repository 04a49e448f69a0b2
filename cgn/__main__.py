"""python -m cgn VERB TRACK/VARIANT --input PATH ... --output PATH: run one stage. The front door of the library.

A verb is the function of its name in `cgn.<track>.<verb>`; its signature is its command line (`cgn.core.parameters`).
params.yaml is checked as a whole before anything runs, and all that defines a run is in `<output>.log/run.json` before
the first step. Beside its function, a verb's module may have

    SECTION    the section of params.yaml that it reads, where that is not called like the verb
    COMPARED   patterns of the final values that go to metrics.json
    HEADLINES  short name -> name of the final values that go to headlines.json
    check      refuses a command line before anything is written; it takes what the verb takes
    listing    lines that say what the verb would do, for `--list`; it takes the verb's parameters and output

Modules are imported only once they are asked for: `--help` needs no torch.
"""

import argparse
import importlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from cgn import dry_run
from cgn.config.load import Variant, load
from cgn.core import command_line
from cgn.core.command_line import Invocation, asked
from cgn.core.devices import importing, limit_threads
from cgn.core.errors import ArtifactError, CgnError, ConfigError
from cgn.core.metrics import Fanout, Files, MetricSink
from cgn.core.outputs import DEFINITION, building
from cgn.core.run_record import RunRecord, as_json, code_digest, input_digests

VERBS = {
    "fetch": "download the files that a variant needs, or copy them from a mirror, verified",
    "prepare": "make the training and test images",
    "train_cgn": "train the counterfactual generative network",
    "generate": "make shards of factual and counterfactual images",
    "train_classifier": "train one classifier on original, generated or mixed images",
    "evaluate": "store every classifier's decision on every image",
    "evaluate_network": "the same for a published network or your own, from its file of weights",
    "gate": "compare a classifier with the thresholds of its variant: passed or refused",
    "report": "make the page with tables and sheets",
}
TRACKS = ("imagenet", "mnist")
COMMANDS = {
    "clean": ("cgn.clean:clean", "list what stopped and changed commands left behind; with --yes remove what is stale"),
    "compare": ("cgn.compare:compare", "one table over the seeds of finished runs: means with intervals"),
    "doctor": ("cgn.doctor:doctor", "check this machine for a run: devices, memory, disk, files, servers; what to do"),
    "export": ("cgn.publish.export:export", "write a classifier or a generator as an ONNX file, compared with torch"),
    "params": ("cgn.config.show:show", "print every resolved value of a variant, its unit and where it comes from"),
    "push": ("cgn.publish.push:push", "write networks or generated images as a repository, in a folder or on the Hub"),
    "survey": ("cgn.imagenet.survey:survey", "note which images the folders of a variant of imagenet hold"),
}
"""Commands that are no verbs: a function that takes the words that follow, and what it does."""


def parse(argv: Sequence[str]) -> Invocation:
    """Read a verb's command line. A wrong one ends in argparse's usage message and SystemExit(2).

    Raises ConfigError for a verb that the track does not have.
    """
    limit_threads()  # before the verb imports numpy and torch, which start as many threads as there are cores
    front = argparse.ArgumentParser(prog="python -m cgn", formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {name: what for name, (_, what) in COMMANDS.items()}
    tables = {"verbs, each with TRACK/VARIANT and paths": VERBS, "other commands": commands}
    front.description = "\n\n".join(
        f"{title}:\n" + "\n".join(f"  {name:17} {what}" for name, what in table.items())
        for title, table in tables.items()
    )
    front.epilog = "python -m cgn VERB --help lists a verb's options"
    front.add_argument("verb", choices=VERBS, metavar="VERB")
    verb: str = front.parse_args(argv[:1]).verb
    track = _track(argv[1:], verb=verb)
    with importing():
        module = importlib.import_module(f"cgn.{track}.{verb}")
    return command_line.parse(
        argv[1:],
        verb=verb,
        function=getattr(module, verb),
        description=f"{VERBS[verb]} (track {track})",
        lists=hasattr(module, "listing"),
    )


def run(argv: Sequence[str] | Invocation, *, sinks: Sequence[MetricSink] = ()) -> Invocation:
    """Run a verb to its end, its command line parsed or not; metrics go to files and to `sinks`.

    Raises CgnError for what a user can fix.
    """
    call = argv if isinstance(argv, Invocation) else parse(argv)
    record, config = configured(call)
    module = importlib.import_module(f"cgn.{call.track}.{call.verb}")
    shared = record.shared(call.verb)
    given = {"seed": record.seed, "variant": call.variant, **shared}
    if call.lists:
        print("\n".join(module.listing(config, **shared, **{call.output: call.out})), flush=True)
        return call
    if call.dry:
        section = getattr(module, "SECTION", call.verb)
        print("\n".join(dry_run.describe(call, load(call.params_file), section=section, shared=shared)), flush=True)
    _refuse_early(call, record)
    definition = _definition(call, params=config.model_dump() | shared, seed=record.seed)
    if hasattr(module, "check"):
        module.check(config, **asked(module.check, {**given, **call.options}))
    if call.dry:
        print(dry_run.outlook(call, definition=definition, code=code_digest(), config=config), flush=True)
        return call
    started = time.monotonic()
    with building(call.out, definition=definition, code=code_digest()) as folder:
        files = Files(
            call.log, compared=getattr(module, "COMPARED", ("*",)), headlines=getattr(module, "HEADLINES", None)
        )
        sink = Fanout([files, *sinks])
        note = RunRecord(call.log, definition)
        begun = note.continues or any(path.name != DEFINITION for path in folder.iterdir())
        sink.rewind(sys.maxsize if begun else -1)  # an old record without half a line, or a new one
        function = getattr(module, call.verb)
        given = asked(function, {**given, "sink": sink})
        function(config, **given, **{**call.options, call.output: folder})
    seconds = round(time.monotonic() - started, 3)
    note.finish(seconds=seconds)
    print(f"{call.verb} {call.target}: {call.out} finished in {seconds:.1f} s", flush=True)
    return call


def configured(call: Invocation) -> tuple[Variant, Any]:
    """The variant, and the section of it that the verb reads. Raises ConfigError for a params.yaml that is wrong."""
    record = load(call.params_file).variant(call.target)
    module = importlib.import_module(f"cgn.{call.track}.{call.verb}")
    return record, getattr(record, getattr(module, "SECTION", call.verb))


def main(argv: Sequence[str]) -> int:
    """Run a command. Exit status: 0, 2 for what the user can fix (printed in one line), 75 where a download may succeed
    later, 130 after Ctrl-C, or 141 where nobody reads what it prints.
    """
    try:
        with _printing(argv[0] if argv else "the help"):
            if argv and argv[0] in COMMANDS:
                module, _, function = COMMANDS[argv[0]][0].partition(":")
                getattr(importlib.import_module(module), function)(argv[1:])
            elif "TORCHELASTIC_RUN_ID" in os.environ:
                from cgn.core.launch import under_torchrun

                under_torchrun(partial(run, argv))
            else:
                run(argv)
    except CgnError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted: the same command continues what it began", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _printing(name: str) -> Iterator[None]:
    """Raises ArtifactError where what a command prints finds no room, SystemExit where nobody reads it."""
    try:
        yield
        print(end="", flush=True)
    except OSError as error:
        if error.filename is not None or _printable():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails once more as it ends
        if isinstance(error, BrokenPipeError):  # `| head`
            raise SystemExit(128 + signal.SIGPIPE) from None
        raise ArtifactError(
            f"what {name} prints cannot be written: {error.strerror}; give it another place, and run the same command "
            "again"
        ) from None


def _printable() -> bool:
    """Whether an empty line gets out."""
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def tracks_with(verb: str) -> tuple[str, ...]:
    """The tracks that have a verb, the one whose options explain it first."""
    return tuple(track for track in TRACKS if importlib.util.find_spec(f"cgn.{track}.{verb}") is not None)


def _track(words: Sequence[str], *, verb: str) -> str:
    """The track that a command line names, or else the first that has the verb: its options explain it as well."""
    named, known = words[0].partition("/")[0] if words else "", tracks_with(verb)
    if named in TRACKS and named not in known:
        raise ConfigError(
            f"{verb} {words[0]}: the track {named} has no verb {verb}; it is a verb of {', '.join(known)}"
        )
    return named if named in known else known[0]


def _definition(call: Invocation, *, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """All that decides what the run writes. Raises ArtifactError for an input that is missing."""
    return as_json(
        {
            "verb": call.verb,
            "track": call.track,
            "variant": call.variant,
            "seed": seed,
            "params": params,
            "options": call.defining,
            "inputs": input_digests(call.inputs),
        }
    )


def _refuse_early(call: Invocation, record: Variant) -> None:
    """Refuse before gigabytes are fetched what prepare would refuse afterwards: folders without the images.

    It is no part of fetch, whose output does not depend on them.
    """
    folders: Any = getattr(record.prepare, "folders", None)
    if call.verb == "fetch" and folders is not None:
        from cgn.imagenet.folders import user_sets

        user_sets(folders, variant=call.variant)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
