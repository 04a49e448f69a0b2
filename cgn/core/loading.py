"""Items of a dataset, read ahead by worker processes and yielded in order; a worker that fails never blocks the reader.

Items are sent through a pipe, with tensors as plain arrays. torch would put each tensor into shared
memory instead; where /dev/shm is full (a container has 64 MB by default), its worker prints an error, delivers nothing,
and the reader waits forever. There are never more workers than cores that this process may use.
"""

import io
import pickle
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from cgn.core.devices import usable_cores
from cgn.core.errors import ArtifactError

PATIENCE_SECONDS = 600.0
"""For one item of one worker; a disk that needs longer for a batch of images has failed."""
_LOST = re.compile(r"DataLoader (worker \(pid|timed out)")


def read_ahead(
    dataset: Any, *, order: Sequence[int], workers: int, batch_size: int | None = None, device: str = "cpu"
) -> Iterator[Any]:
    """`dataset[index]` for each index of `order`, or lists of `batch_size` of them (the last one may be shorter).

    `workers`: the most processes that read; 0 reads in this one. `device`: where the items go next; for "cuda" they are
    put into page-locked memory, from which a GPU copies while it computes. Raises ArtifactError where a worker was
    killed or gives nothing for PATIENCE_SECONDS; what the dataset raises is raised here.
    """
    from torch.utils.data import DataLoader

    count = min(workers, usable_cores())
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        num_workers=count,
        collate_fn=_Parcel if count else _as_it_is,
        pin_memory=device == "cuda",
        timeout=PATIENCE_SECONDS if count else 0,
        generator=torch.Generator(),  # else it would draw from the one that all share
    )
    items = iter(loader)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if not _LOST.match(str(error)):
                raise
            raise ArtifactError(
                f"a process that reads ahead was lost ({str(error).splitlines()[0].rstrip(' .')}): free memory, or set "
                "workers lower (0 reads in the main process), and run the same command again"
            ) from None
        yield item


class _Parcel:
    """Content that is pickled into plain bytes in the worker and unpacked where it arrives."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=5).dump(self.content)
        return pickle.loads, (buffer.getvalue(),)


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays; torch's own reduction would send a handle to shared memory."""

    def reducer_override(self, obj: Any) -> Any:
        return (torch.from_numpy, (obj.numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented


def _as_it_is(content: Any) -> Any:
    return content
