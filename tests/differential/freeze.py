"""How a run becomes a static graph: the one place that knows the interface for it."""

from __future__ import annotations

from typing import Any, Callable, Mapping

import tape.lazy as ad
from tape import Tensor


def freeze(function: Callable, leaves: Mapping[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """(node, variables by name) of ``function(*leaves)``."""
    return ad.trace(lambda **given: function(*given.values()), dict(leaves), allow_unused=True)


def freeze_run(out: Tensor, leaves: Mapping[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """The same of a run that has happened under `tracing`."""
    return ad.from_tape(out, dict(leaves), allow_unused=True)
