"""How a run becomes a static graph: the one place that knows the interface for it."""

from __future__ import annotations

from typing import Any, Callable, Mapping

import tape.lazy as ad
from tape import Tensor


# Whether operators without a derivative (sign) are frozen too, rather than what they returned.
FREEZES_ALL = hasattr(ad, "trace")


def freeze(function: Callable, leaves: Mapping[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """(node, variables by name) of ``function(*leaves)``; a leaf that takes no part has no variable.

    A leaf that is not used has no place in the graph, so it is left out here: `from_tape` refuses it.
    """
    if hasattr(ad, "trace"):
        return ad.trace(lambda **given: function(*given.values()), dict(leaves))
    return freeze_run(function(*leaves.values()), leaves)


def freeze_run(out: Tensor, leaves: Mapping[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """The same of a run that has happened (under `tracing`, where there is such a thing)."""
    used = {name: x for name, x in leaves.items() if reaches(out, x)}
    return ad.from_tape(out, used)


def tracing() -> Any:
    """The mode in which a run is recorded so that it can be frozen."""
    import contextlib
    return ad.tracing() if hasattr(ad, "tracing") else contextlib.nullcontext()


def reaches(out: Tensor, leaf: Tensor) -> bool:
    """Whether the tape behind `out` leads to `leaf`."""
    stack, seen = [out._record], set()
    while stack:
        record = stack.pop()
        for parent in record.parents:
            if parent is leaf:
                return True
            if parent is not None and parent not in seen and not isinstance(parent, Tensor):
                seen.add(parent)
                stack.append(parent)
    return False
