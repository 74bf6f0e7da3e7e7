"""The one search through a graph: of records on the tape, and of nodes of a static graph."""

from __future__ import annotations

from typing import Any, Callable, Iterable, TypeVar

T = TypeVar("T")


def topological_order(last: Iterable[T], inputs_of: Callable[[T], Iterable[T]],
                      position: Callable[[T], Any], kind: type = object) -> list[T]:
    """All that `last` depend on, and they themselves, each once and inputs before users.

    Of the inputs those count that are of this `kind`. Whatever is made later has the larger
    `position`, so sorting by it is a topological sort. Without recursion: a chain of 100,000 operations
    is no deeper for this loop than a chain of two.
    """
    order = list(dict.fromkeys(last))        # grows while it is gone through, and is nearly sorted
    found = set(order)
    for item in order:
        for x in inputs_of(item):
            if isinstance(x, kind) and x not in found:
                found.add(x)
                order.append(x)
    order.sort(key=position)
    return order
