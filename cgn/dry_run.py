"""--dry-run of a verb: its resolved parameters, its paths, and what it would begin with. Nothing is written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cgn.config.load import Params
from cgn.config.show import leaves, table
from cgn.core.command_line import Invocation
from cgn.core.outputs import DEFINITION, found
from cgn.core.parameters import settings

STATE, NOTES = "state.pt", "notes"
"""In an unfinished folder: the checkpoint of a training (`cgn.training`), what is known of shards (`cgn.rendering`)."""


def describe(call: Invocation, params: Params, *, section: str, shared: Mapping[str, Any]) -> Iterator[str]:
    """The values that a verb would read, where each comes from, and its paths."""
    record = params.variant(call.target)
    chosen = [one for one in settings(record) if one.key == "seed" or one.key.startswith(f"{section}.")]
    yield from table(chosen, stated=leaves(params.file[call.track][call.variant]))
    yield from (f"{name} = {value}" for name, value in shared.items())
    yield ""
    for option, paths in call.inputs.items():
        yield from (f"--{option} {path}: {'present' if path.exists() else 'MISSING'}" for path in paths)
    yield f"--{call.output} {call.out}; its record goes to {call.log}"


def outlook(call: Invocation, *, definition: Mapping[str, Any], code: str, config: Any) -> str:
    """What the verb would begin with, and how far an earlier run came. Raises ArtifactError where it would refuse."""
    folder, what = found(call.out, definition=definition, code=code)
    return f"{call.verb} {call.target} {what}" + (
        f": {_progress(folder, config)}" if folder not in (None, call.out) else ""
    )


def _progress(folder: Path, config: Any) -> str:
    if (folder / STATE).is_file():
        from cgn.core.checkpoints import load_state

        total = f" of {config.updates:,}" if hasattr(config, "updates") else ""
        return f"from the checkpoint of update {load_state(folder / STATE)['update']:,}{total}"
    if (folder / NOTES).is_dir():
        from cgn.rendering import plan_shards

        splits = {"factual": config.factual_images, "counterfactual": config.counterfactual_images}
        planned = len(plan_shards(splits, images_per_shard=config.images_per_shard))
        done = sum(1 for _ in (folder / NOTES).glob("*.json"))
        return f"{planned - done:,} of {planned:,} shards are missing"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != DEFINITION]
    return f"{len(files):,} files are there, {sum(path.stat().st_size for path in files):,} bytes"
