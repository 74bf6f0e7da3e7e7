"""The nodes of a graph in an order in which each comes after its inputs. No recursion."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Collection, Iterable, Iterator

if TYPE_CHECKING:
    from tape.lazy.node import Node


def sort_from(nodes: Iterable[Node], stop: Collection[Node] = ()) -> list[Node]:
    """All nodes that `nodes` depend on, and they themselves, each once and inputs before users.

    What is behind the nodes in `stop` is not looked at.
    """
    found = set(nodes)
    stack = list(found)
    while stack:
        node = stack.pop()
        if node in stop:
            continue
        for parent in node.inputs:
            if parent._position >= node._position:
                raise ValueError(f"{node.name}: its input {parent.name} is itself or was made after "
                                 f"it. The inputs of a node cannot be exchanged; make a new node.")
            if parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=lambda node: node._position)


_pickling = threading.local()


class Behind:
    """What is behind a node, for pickle: a list that it goes through before the node itself.

    Pickle saves what it has not met yet by recursion, and a graph may be deeper than that can go. In
    this list inputs come before their users, so that each node's inputs are known already.
    """

    def __init__(self, node: Node):
        self.node = node

    def __reduce__(self) -> tuple:
        return list, (), None, self._nodes()

    def _nodes(self) -> Iterator[Node]:
        if not getattr(_pickling, "busy", False):      # the nodes of the list have none of their own
            _pickling.busy = True
            try:
                yield from sort_from([self.node])[:-1]
            finally:
                _pickling.busy = False
