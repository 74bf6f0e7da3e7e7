"""How a run becomes a static graph: the one place that knows the interface for it."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Collection, Mapping

import tape.lazy as ad
from tape import Tensor, grad

# Whether operators without a derivative (sign) are frozen too, rather than what they returned.
FREEZES_ALL = hasattr(ad, "trace")


def freeze(function: Callable, leaves: Mapping[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """(node, variables by name) of ``function(*leaves)``."""
    if hasattr(ad, "trace"):
        return ad.trace(lambda **given: function(*given.values()), dict(leaves))
    return freeze_run(function(*leaves.values()), leaves, reached(function, leaves))


def freeze_run(out: Tensor, leaves: Mapping[str, Tensor],
               names: Collection[str]) -> tuple[Any, dict[str, Any]]:
    """The same of a run that has happened (under `tracing`), with these leaves as variables."""
    return ad.from_tape(out, {name: x for name, x in leaves.items() if name in names})


def reached(function: Callable, leaves: Mapping[str, Tensor]) -> set[str]:
    """The leaves that a result depends on; `from_tape` refuses the others."""
    fresh = [Tensor(x.data, requires_grad=True) for x in leaves.values()]
    found = grad(function(*fresh), fresh, allow_unused=True)
    return {name for name, g in zip(leaves, found) if g is not None}


def tracing() -> Any:
    """The mode in which a run is recorded so that it can be frozen."""
    return ad.tracing() if hasattr(ad, "tracing") else contextlib.nullcontext()
