"""A static graph as a table and as a Mermaid flowchart."""

from __future__ import annotations

from typing import Any, Iterable

import numpy as np

from tape.show import table
from tape.lazy.node import Node, Variable, topological_sort
from tape.lazy.primitives import Constant


def show(nodes: Node | Iterable[Node], style: str = "text", limit: int = 200) -> str:
    """The graph behind one or several nodes, inputs first.

    Parameters
    ----------
    nodes : Node or list of Node
    style : "text" or "mermaid"
        A table, or the text of a flowchart that GitHub and many editors draw from a block marked
        ``mermaid``.
    limit : int
        At most so many nodes, the last ones; the rest is counted.

    Examples
    --------
    >>> import tape.lazy as ad
    >>> x, W = ad.Variable("x"), ad.Variable("W")
    >>> print(ad.show(ad.mean(ad.relu(x @ W), dim=(0, 1))))
    node  operator     inputs  attributes                 name
       0  placeholder                                     x
       1  placeholder                                     W
       2  matmul       0, 1                               (x@W)
       3  relu         2                                  relu((x@W))
       4  mean         3       dim=(0, 1), keepdim=False  mean(relu((x@W)))
    5 nodes
    """
    if style not in ("text", "mermaid"):
        raise ValueError(f"show: style must be 'text' or 'mermaid', got {style!r}")
    order = topological_sort(nodes)
    number = {node: i for i, node in enumerate(order)}
    shown = order[max(len(order) - limit, 0):]
    left_out = len(order) - len(shown)
    if style == "mermaid":
        return _mermaid(shown, number, left_out)
    rows = [(str(number[node]), node.op.name, _abbreviated([str(number[x]) for x in node.inputs]),
             _shortened(_attributes(node), 60), _shortened(node.name, 40)) for node in shown]
    text = table(("node", "operator", "inputs", "attributes", "name"), rows, numeric=(0,))
    more = f", the first {left_out} not shown" if left_out else ""
    return f"{text}\n{len(order)} nodes{more}"


def _abbreviated(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", ... {len(names)} in all" if len(names) > 4 else "")


def _attributes(node: Node) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in node.attrs.items())


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most - 3] + "..."


def _value(value: Any) -> str:
    return f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)


def _mermaid(shown: list[Node], number: dict[Node, int], left_out: int) -> str:
    lines = ["flowchart TD"]
    if left_out:
        lines.append(f'    more["{left_out} earlier nodes"]')
    for node in shown:
        left, right = ("([", "])") if isinstance(node, Variable) else ("[", "]")
        text = node.name if isinstance(node.op, Constant) or isinstance(node, Variable) else (
            f"{node.op.name} {_shortened(_attributes(node), 60)}".rstrip())
        lines.append(f'    n{number[node]}{left}"{_escaped(text)}"{right}')
    drawn = set(shown)
    for node in shown:
        for parent in node.inputs:
            source = f"n{number[parent]}" if parent in drawn else "more"
            lines.append(f"    {source} --> n{number[node]}")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Quotes and brackets as Mermaid takes them inside a quoted label."""
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
