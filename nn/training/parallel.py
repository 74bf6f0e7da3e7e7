"""`DataParallel`: the parts of a batch on several cores."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import Any, Iterator, Sequence

import numpy as np

import tape
from nn.layers.batch_part import BatchPart, Draws, in_part
from nn.layers.module import Module
from nn.training.parts import even_parts, shares
from tape import Tensor, limit_blas_threads

_TARGETS = "targets", "labels"           # what they are called where they are given by name


def available_cores() -> int:
    """On how many processors this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_processors(model: Module, workers: int) -> Module:
    """The model, or its `DataParallel`, so that calls of it compute on so many processors.

    Where compiled kernels have as many threads (`tape.use_kernels`), these do. Else batches are
    computed in parts, in processes where the system allows it, which do not wait for Python's lock.
    """
    if workers == 1 or tape.kernel_threads() >= workers:
        return model
    return DataParallel(model, workers, processes=tape.WorkerProcesses.available())


class DataParallel(Module):
    """A model that computes the parts of each batch side by side, forward and backward.

    Called like the model, it cuts the rows of the batch, the first axis of all arrays that it is given,
    into parts. Each is run by a thread, or a process, on the same parameters, and ``loss.backward()``
    walks their tapes there too. The numbers are those of the model itself, to rounding, and the same
    bits at each run:

    - A loss, that is a result without axes, is taken to be a mean over the targets that count (all but
      -1), and weighted by their number; see `nn.training.parts.shares`. The targets are the argument of
      that name (or `labels`), or the last array.
    - Results with a row for each row of the batch are joined. They may stand in tuples, lists and
      dicts.
    - Dropout drops the elements that it would without parts, where the rows of the batch are on the
      first axis of what it is given.

    What depends on other rows in another way, as the mean of a batch does, would differ. A model that
    changes its own attributes when it runs is run by several threads at once and must allow for that;
    of what a process changes in it, the program sees nothing.

    The first call limits matrix products to one thread each, for the whole process; see
    `limit_blas_threads`. A batch of one row is left to the model.

    Parameters
    ----------
    model : Module
    workers : int, optional
        How many parts. By default as many as there are processors for this process, but one where the
        threads of the matrix products cannot be limited: they would be in each other's way.
    processes : bool
        Compute the parts, but the first, in processes rather than in threads. Threads wait for each
        other's use of Python, some 200 times in a step of a small model; processes do not. The bits are
        the same. Linux only, and the model must be one that can be sent to another process; see
        `tape.WorkerProcesses`. Gradients that processes found cannot be differentiated again.

    Attributes
    ----------
    model : the model itself, for checkpoints and `generate`. Parameters and buffers have its names.

    Examples
    --------
    >>> import numpy as np, nn
    >>> model = nn.GPT(nn.GPTConfig(vocab_size=7, block_size=4, n_layer=1, n_head=1, n_embd=8), rng=0)
    >>> parallel = nn.DataParallel(model, workers=2)
    >>> idx = np.arange(12).reshape(3, 4) % 7
    >>> logits, loss = parallel(idx, targets=idx)
    >>> loss.backward()
    >>> logits.shape, bool(abs(loss.item() - model(idx, idx)[1].item()) < 1e-6)
    ((3, 4, 7), True)
    """

    def __init__(self, model: Module, workers: int | None = None, processes: bool = False):
        if not isinstance(model, Module):
            raise TypeError(f"DataParallel: model must be a Module, got {type(model).__name__}")
        if workers is not None and not (isinstance(workers, (int, np.integer)) and workers >= 1
                                        and not isinstance(workers, bool)):
            raise ValueError(f"DataParallel: workers must be a positive integer or None, got "
                             f"{workers!r}")
        self.model = model
        self.workers = None if workers is None else int(workers)
        self._pool = tape.WorkerProcesses(partial(_run, model)) if processes else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        names = [*range(len(args)), *kwargs]
        values = dict(zip(names, map(_as_array, (*args, *kwargs.values()))))
        arrays = {name: value for name, value in values.items() if _has_rows(value)}
        rows = _row_count(arrays)
        parts = even_parts(rows, self._workers() if rows > 1 else 1)
        if len(parts) == 1:
            return self.model(*args, **kwargs)
        last = next((name for name in _TARGETS if name in arrays), [*arrays][-1])
        weights = (shares(_plain(arrays[last]), parts) if len(arrays) > 1 else
                   [(part.stop - part.start) / rows for part in parts])
        draws, counts = Draws(len(parts)), any(weights)
        calls = [(BatchPart(part, rows, counts, draws),
                  {name: value[part] if name in arrays else value for name, value in values.items()})
                 for part in parts]
        function, parameters = partial(_run, self.model), self.model.parameters()
        if self._pool is None:
            found = tape.parallel_map(function, calls, parameters)
        else:
            self._pool.function = function            # the model may be another by now
            found = self._pool.map(calls, parameters)
        if len(arrays) > 1 and not calls[0][0].classified:         # the first part is computed here
            _warn_of_signs(_plain(arrays[last]))
        return _joined(found, weights, parts)

    def _workers(self) -> int:
        limited = limit_blas_threads(1).works
        return self.workers or (available_cores() if limited else 1)

    # --- the names are those of the model ---

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        return self.model.named_parameters()

    def named_buffers(self, saved: bool | None = None) -> Iterator[tuple[str, Tensor]]:
        return self.model.named_buffers(saved)


def _run(model: Module, part: BatchPart, arguments: dict[int | str, Any]) -> Any:
    """Call the model with the arguments of a part, by their places, which come first, and names."""
    with in_part(part):
        return model(*(value for name, value in arguments.items() if isinstance(name, int)),
                     **{name: value for name, value in arguments.items() if isinstance(name, str)})


def _warn_of_signs(targets: Any) -> None:
    """Warn of targets that are -1 and 1 throughout, where no `nn.cross_entropy` ignores the -1."""
    targets = np.asarray(targets)
    if targets.dtype.kind == "i" and np.all(np.abs(targets) == 1) and np.ptp(targets):
        warnings.warn("DataParallel: targets of -1 are taken for ones that do not count in a loss, as "
                      "in nn.cross_entropy, which the model did not call; so the loss may be wrong. "
                      "Give labels that are numbers as floats: y.astype(np.float32)", stacklevel=4)


def _as_array(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return np.asarray(value)
    if value is None or isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float, str)):
        return value
    raise TypeError(f"DataParallel: arguments must be arrays, whose rows are split, or numbers, texts "
                    f"and None, which all parts are given; got a {type(value).__name__}. Call the "
                    f"model itself: parallel.model(...)")


def _has_rows(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0


def _plain(value: Any) -> Any:
    return value.numpy() if isinstance(value, Tensor) else value


def _row_count(arrays: dict) -> int:
    """The common length of the first axes; 0 where there are no arrays."""
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        raise ValueError(f"DataParallel: all arrays must have one row for each example of the batch, "
                         f"got shapes {', '.join(str(array.shape) for array in arrays.values())}")
    return lengths.pop() if lengths else 0


def _joined(results: Sequence, weights: Sequence[float], parts: Sequence[slice]) -> Any:
    """What the model would return for the whole batch, from what it returned for the parts."""
    first = results[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: _joined([result[key] for result in results], weights, parts) for key in first}
    if isinstance(first, (list, tuple)):
        items = [_joined(item, weights, parts) for item in zip(*results)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    if not isinstance(first, (Tensor, np.ndarray, np.generic)):
        raise TypeError(f"DataParallel: results must be Tensors, arrays, None, or tuples, lists and "
                        f"dicts of them, got a {type(first).__name__}. Call the model itself: "
                        f"parallel.model(...)")
    if not first.ndim:
        # A part in which no target counts has no mean: it adds nothing, and not 0 times NaN.
        counted = [result * weight for result, weight in zip(results, weights) if weight]
        return sum(counted[1:], counted[0]) if counted else first
    if any(len(result) != part.stop - part.start for result, part in zip(results, parts)):
        raise ValueError(f"DataParallel: results must have a row for each row of the batch, or no "
                         f"axes; of {parts[0].stop} rows came shape {first.shape}")
    return tape.concatenate(results, axis=0)
