"""`GradientTape`: gradients as a ``with`` block, in the manner of TensorFlow."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np

from tape.grad_mode import enable_grad
from tape.transforms.gradients import gradients
from tape.tensor import Tensor
from tape.transforms.trees import leaves, like_tree

_open: ContextVar[int] = ContextVar("open", default=0)      # blocks entered and not left


class GradientTape:
    """A block whose operations are recorded, and that is then asked for gradients.

    Recording needs no block here; this one is for programs written this way. A Tensor with
    ``requires_grad=True`` is watched by every block.

    Parameters
    ----------
    persistent : bool
        Whether `gradient` may be called several times.

    Examples
    --------
    >>> from tape import GradientTape, Tensor
    >>> x = Tensor(3.0)
    >>> with GradientTape() as outer:
    ...     outer.watch(x)
    ...     with GradientTape() as inner:
    ...         y = x ** 3
    ...     slope = inner.gradient(y, x)          # recorded, since outer is open
    >>> slope.item(), outer.gradient(slope, x).item()
    (27.0, 18.0)
    """

    def __init__(self, persistent: bool = False):
        self.persistent = persistent

    def __enter__(self) -> GradientTape:
        self._recording = enable_grad()
        self._recording.__enter__()
        _open.set(_open.get() + 1)
        return self

    def __exit__(self, *exception: Any) -> None:
        _open.set(_open.get() - 1)
        self._recording.__exit__(*exception)

    def watch(self, tensors: Any) -> None:
        """Have gradients by these Tensors: sets their ``requires_grad``, which stays set."""
        for tensor in _tensors(tensors, "watch"):
            if not tensor.requires_grad:
                tensor.requires_grad = True

    def gradient(self, target: Any, sources: Any, output_gradients: Any = None) -> Any:
        """d(sum of the targets)/d(source), built like `sources`; None for one that plays no part.

        Parameters
        ----------
        target : Tensor, or a list of them
            Of several elements: their sum is differentiated.
        sources : Tensor, or a list, tuple or dict of them
        output_gradients : array_like, or a list of them, optional
            Of the shape of each target; default: ones.
        """
        targets, by = _tensors(target, "gradient"), _tensors(sources, "gradient")
        if output_gradients is None:
            seeds = [np.ones(t.shape, t.dtype) for t in targets]
        else:
            seeds = list(output_gradients) if isinstance(target, (list, tuple)) else [output_gradients]
        reached = [(t, seed) for t, seed in zip(targets, seeds, strict=True) if t.requires_grad]
        wanted = [source for source in by if source.requires_grad]
        found: dict = {}
        if reached and wanted:
            recorded = _open.get() > 0
            found = dict(zip(map(id, wanted), gradients(
                [t for t, _ in reached], wanted, [seed for _, seed in reached], allow_unused=True,
                create_graph=recorded, retain_graph=self.persistent or recorded)))
        return like_tree(sources, [found.get(id(source)) for source in by])


def _tensors(tree: Any, caller: str) -> list[Tensor]:
    """The leaves of a container, which must be Tensors."""
    found = list(leaves(tree))
    for tensor in found:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{caller}: takes Tensors, got {type(tensor).__name__}. Make one before it "
                            f"is used: x = Tensor(array)")
    return found
