"""What keeps a GPU busy: copies that nobody waits for, ``torch.compile``, and kernels that are started all at once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pnp_ovss.errors import ConfigError, one_line

MOST_GRAPHS = 8
"""Of a function: each keeps its memory."""


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device. To CUDA it is copied from pinned memory, and the program goes on meanwhile.

    What reads it comes after the copy on the same stream, and torch keeps the pinned memory until the copy is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def moved_together(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return tensors of one shape as one, on the device, as ``moved`` does; one alone is not copied on a CPU."""
    first = tensors[0]
    if device.type == "cuda" and first.device.type == "cpu":
        pinned = torch.empty((len(tensors), *first.shape), dtype=first.dtype, pin_memory=True)
        return torch.stack([*tensors], out=pinned).to(device, non_blocking=True)
    return (torch.stack([*tensors]) if len(tensors) > 1 else first[None]).to(device)


def beside(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context whose work on a GPU does not queue up behind that of other threads.

    What it uses of theirs must be there, and what it makes is for others once somebody has waited for it.
    """
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(_side_stream(device))


@cache
def _side_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Compiled:
    """A function of a batch of images, through ``torch.compile`` for the largest batch it has met of each shape.

    Smaller batches go through the function as it is: to compile for the last batch of a folder takes longer than to
    run it, and to fill it up would cost a server's single photos a whole batch. So only batches that grow are
    compiled anew, until torch's own limit (``torch._dynamo.config.recompile_limit``), beyond which it runs them as they
    are. No gradient is taken.

    Raises when it is called: ConfigError if it cannot be compiled here.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        self._compiled = torch.compile(plain, dynamic=False)
        self._largest: dict[tuple[int, ...], int] = {}

    @torch.no_grad()  # always alike: torch compiles for each mode
    def __call__(self, batch: Tensor, *numbers: int) -> Any:
        """Return what the function returns: a tensor or a list of them."""
        shape = (*batch.shape[1:], *numbers)
        if len(batch) < self._largest.get(shape, 0):
            return self.plain(batch, *numbers)
        if shape not in self._largest:
            self.plain(batch[:1], *numbers)  # what is kept for a size, such as its positions, is there from now on
        self._largest[shape] = len(batch)
        try:
            return self._compiled(batch, *numbers)
        except torch._dynamo.exc.TorchDynamoException as error:
            needs = "a C++ compiler such as g++ and Python's headers"
            reason = one_line(str(error).partition("\n")[0])
            raise ConfigError(f"torch.compile failed ({reason}); install {needs}, or leave compile out") from error


class Graphed:
    """A function of tensors on CUDA, as a CUDA graph: its hundreds of small kernels start at once, not one by one.

    They are the same kernels, and give the same numbers. What is recorded is good for one shape of the tensors, and one
    value of anything else, so only what is called with the same ones again is, ``MOST_GRAPHS`` at most. The function
    must not ask the device for a value.
    """

    def __init__(self, plain: Callable[..., Sequence[Tensor] | Tensor]) -> None:
        self.plain = plain
        self._met = set[Any]()
        self._graphs = dict[Any, Callable[..., Any]]()

    def __call__(self, *args: Any) -> Any:
        """Return what the function returns: a tensor or several."""
        key = tuple((arg.shape, arg.dtype) if isinstance(arg, Tensor) else arg for arg in args)
        graph = self._graphs.get(key)
        if graph is None:
            if key not in self._met or len(self._graphs) == MOST_GRAPHS:
                self._met.add(key)
                return self.plain(*args)
            graph = self._graphs[key] = recorded(self.plain, args)
        return graph(*args)


def recorded(function: Callable[..., Any], args: Sequence[Any]) -> Callable[..., Any]:
    """Return the function for arguments such as these, as a CUDA graph."""
    own = [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is loaded at the first call is no part of the graph
        function(*own)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
        found = function(*own)

    def run(*args: Any) -> Any:
        for mine, given in zip(own, args, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(given)
        graph.replay()
        return found.clone() if isinstance(found, Tensor) else [part.clone() for part in found]

    return run
