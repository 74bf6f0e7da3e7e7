"""From the graph of a result to the graph of its gradient: the walk of ``tape/engine.py``, on nodes."""

from __future__ import annotations

from typing import Collection, Sequence

from tape import ops
from tape.cotangents import Cotangents
from tape.lazy.node import Node, as_nodes, topological_sort
from tape.ops import reductions


def gradients(output_node: Node, nodes: Sequence[Node]) -> list[Node]:
    """Extend the graph by d(sum of output_node)/d(node) for each of `nodes`.

    Parameters
    ----------
    output_node : Node
        What to differentiate. Where it has many elements, the gradient is that of their sum.
    nodes : sequence of Node
        Variables or inner nodes.

    Returns
    -------
    list of Node
        Each has the shape of the node it belongs to and, where that is of floats, its dtype. They are
        nodes like any other, so gradients of gradients work to any order. A node on which the output
        does not depend gets zeros.

    Raises
    ------
    TypeError
        Something given is no Node.
    """
    wanted = as_nodes(nodes, "gradients")
    if not isinstance(output_node, Node):
        raise TypeError(f"gradients: the output must be one Node, got {type(output_node).__name__}; "
                        f"for several differentiate their sum")
    found = graph_vjp(output_node, ops.ones_like(output_node), wanted)
    return [found[node] if node in found else ops.zeros_like(node) for node in wanted]


def graph_vjp(output: Node, cotangent: Node, targets: Sequence[Node], *, stop: Collection[Node] = (),
              stands_for: Node | None = None) -> dict[Node, Node]:
    """The gradients of `targets`, given that of `output`, for those that it depends on.

    Nodes in `stop` count as given: what they were made from is not looked at. `stands_for`, if given,
    is what rules get that ask for the value of `output`; see `Op._vjp`.
    """
    order = topological_sort(output, stop)
    useful = set(targets)        # the nodes that lead to a target
    for node in order:
        if node not in stop and not useful.isdisjoint(node.inputs):
            useful.add(node)
    cotangents = Cotangents({output: cotangent}, in_place=False)
    complete: dict[Node, Node] = {}
    # In this order all users of a node have contributed to its gradient before it is passed on; see
    # `tape.engine.walk`, which adds up the same numbers in the same order.
    for node in reversed(order):
        g = cotangents.sums.pop(node, None)
        if g is None:
            continue
        complete[node] = g = g if node is output else reductions.rounded_like(g, node)
        wanted = [] if node in stop else [i for i, x in enumerate(node.inputs) if x in useful]
        if wanted:
            out = stands_for if node is output else None
            for i, contribution in sorted(node.op._vjp(node, g, wanted, out).items()):
                cotangents.add(node.inputs[i], contribution)
    return {node: complete[node] for node in targets if node in complete}
