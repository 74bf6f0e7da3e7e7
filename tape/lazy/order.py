"""The nodes of a graph in an order in which each comes after its inputs. No recursion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Collection, Iterable

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
