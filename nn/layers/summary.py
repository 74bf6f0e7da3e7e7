"""A model as a table: its modules, their shapes and parameters, and what running them costs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import numpy as np

from nn.layers.module import Module
from nn.layers.traversal import name_of, walk
from tape import Tensor, measure


@dataclass
class Row:
    """A module, with all that is inside it.

    Attributes
    ----------
    name : its path, as in the names of parameters; "" of the model itself.
    kind : its class.
    shape : of its latest result, or of the first Tensor in it; None where it was not called.
    parameters : elements, without those that a module above has too.
    tied : elements that were left out.
    flops : of its forward; see `summary`.
    activation_bytes : that the tape keeps of it for the backward pass.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None = None
    parameters: int = 0
    tied: int = 0
    flops: int = 0
    activation_bytes: int = 0

    def figures(self) -> tuple:
        """All but the name."""
        return (self.kind, self.shape, self.parameters, self.tied, self.flops, self.activation_bytes)


@dataclass
class Summary:
    """What `summary` found; printed, it is the table.

    Attributes
    ----------
    rows : of the model and of each module in it, in the order of definition.
    parameters, parameter_bytes : of all, tied ones counted once.
    flops : of the forward.
    training_flops : of forward and backward.
    activation_bytes : that the tape keeps between forward and backward.
    """

    rows: list[Row]
    parameters: int
    parameter_bytes: int
    flops: int
    training_flops: int
    activation_bytes: int

    def __str__(self) -> str:
        cells = [("module", "kind", "output shape", "parameters", "FLOPs", "kept, bytes")]
        for label, row in _collapsed(self.rows):
            cells.append((label, row.kind, "-" if row.shape is None else str(row.shape),
                          f"{row.parameters:,}{'*' if row.tied else ''}",
                          f"{row.flops:,}", f"{row.activation_bytes:,}"))
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["  ".join([cell.rjust(width) if i > 2 else cell.ljust(width)
                            for i, (cell, width) in enumerate(zip(line, widths))]) for line in cells]
        if any(row.tied for row in self.rows):
            lines.append("* and others that are tied: they are counted in a module above")
        return "\n".join([*lines, self.totals()])

    def totals(self) -> str:
        """The sums, with their units."""
        return (f"{self.parameters:,} parameters, {_scaled(self.parameter_bytes)}B\n"
                f"{_scaled(self.flops)}FLOP forward, {_scaled(self.training_flops)}FLOP forward and "
                f"backward\n{_scaled(self.activation_bytes)}B of activations kept for backward")


def summary(model: Module, *inputs: Any) -> Summary:
    """Describe a model and what a run of it costs, module by module.

    The model is called once, ``model(*inputs)``, in the mode that it is in, and what its operators do
    is counted (`tape.measure`); generators in its modules, as of dropout, are put back. Of a model
    that was made `without_memory` one head of each attention is computed; through the rest go shapes
    alone, with the same figures.

    Parameters
    ----------
    model : Module
    *inputs
        As the model takes them; with targets the loss is counted too.

    Returns
    -------
    Summary
        Its text is a table with a row for each module, each including what is inside it. Equal
        neighbours, as the blocks of a stack, have one row, with the figures of each.

        parameters      elements; those that several modules share (tied) count in the first alone
        FLOPs           of matrix products, 2 n m k each; elementwise work is left out. The backward
                        takes as many again for each operand of a product that wants a gradient.
        kept            bytes of the arrays that the tape keeps for the backward pass, each counted at
                        the first operation that keeps it, as in `tape.show`. Not the parameters, nor
                        their gradients, nor what an optimiser remembers.

    Examples
    --------
    >>> import nn, numpy as np
    >>> with nn.without_memory():
    ...     model = nn.GPT(nn.GPTConfig(50257, 1024, n_layer=12, n_head=12, n_embd=768))
    >>> print(nn.summary(model, np.zeros((1, 1024), int)).totals())
    124,439,808 parameters, 497.8 MB
    291.6 GFLOP forward, 874.9 GFLOP forward and backward
    800.4 MB of activations kept for backward
    """
    rows = _rows(model)
    with _generators_put_back(model), measure() as cost, _counted(rows, cost):
        model(*inputs)
    parameters = model.parameters()
    return Summary([row for _, row in rows], sum(p.size for p in parameters),
                   sum(p.size * p.dtype.itemsize for p in parameters), cost.flops,
                   cost.flops + cost.backward_flops, cost.bytes_kept)


def _rows(model: Module) -> list[tuple[Module, Row]]:
    """A row for each module, with its parameters."""
    inside = [(name_of(path), value) for path, value in walk(model)]
    named = [("", model), *((name, module) for name, module in inside if isinstance(module, Module))]
    own = {id(p): name for name, p in inside if not isinstance(p, Module)}
    found = []
    for name, module in named:
        sizes = {True: 0, False: 0}
        for p in module.parameters():
            sizes[own[id(p)].startswith(f"{name}." if name else "")] += p.size
        found.append((module, Row(name, type(module).__name__, parameters=sizes[True],
                                  tied=sizes[False])))
    return found


@contextmanager
def _counted(rows: list[tuple[Module, Row]], cost: Any) -> Iterator[None]:
    """In the block the forward of each module adds what it costs to the module's row."""
    attributes = [(vars(module), vars(module).get("forward")) for module, _ in rows]
    try:
        for (module, row), (_, forward) in zip(rows, attributes):
            counting = vars(module)["forward"] = _counting(module.forward, row, cost)
            counting.counts_alone = forward is None          # type: ignore[attr-defined]
        yield
    finally:
        for own, forward in attributes:
            own.pop("forward", None)
            if forward is not None:
                own["forward"] = forward


def _counting(forward: Callable, row: Row, cost: Any) -> Callable:
    def run(*args: Any, **kwargs: Any) -> Any:
        flops, kept = cost.flops, cost.bytes_kept
        out = forward(*args, **kwargs)
        row.flops += cost.flops - flops
        row.activation_bytes += cost.bytes_kept - kept
        row.shape = _shape(out)
        return out
    return run


def _shape(out: Any) -> tuple[int, ...] | None:
    """Of a result, or of the first Tensor in a tuple of them."""
    if isinstance(out, (tuple, list)):
        return next((shape for part in out if (shape := _shape(part)) is not None), None)
    return tuple(out.shape) if isinstance(out, (Tensor, np.ndarray)) else None


@contextmanager
def _generators_put_back(model: Module) -> Iterator[None]:
    """Afterwards the generators in the attributes of modules give what they would have given."""
    found = {id(value): value for module in model.modules() for value in vars(module).values()
             if isinstance(value, np.random.Generator)}
    states = [(generator, generator.bit_generator.state) for generator in found.values()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.bit_generator.state = state


def _collapsed(rows: list[Row], parent: str = "", depth: int = 0) -> Iterator[tuple[str, Row]]:
    """The rows with their labels; neighbours that are equal inside too are one."""
    start = 0
    while start < len(rows):
        size = _extent(rows, start)
        tree, alike, after = rows[start:start + size], [rows[start].name], start + size
        while size == _extent(rows, after) and all(
                a.figures() == b.figures() for a, b in zip(tree, rows[after:after + size])):
            alike.append(rows[after].name)
            after += size
        names = [name[len(parent):] or "(model)" for name in alike]
        label = ", ".join(names) if len(names) < 3 else f"{names[0]} ... {names[-1]}"
        yield "  " * depth + label, tree[0]
        prefix = f"{tree[0].name}." if tree[0].name else ""
        yield from _collapsed(tree[1:], prefix, depth + 1)
        start = after


def _extent(rows: list[Row], start: int) -> int:
    """How many rows there are of a module and what is inside it."""
    if start >= len(rows):
        return 0
    prefix = f"{rows[start].name}." if rows[start].name else ""
    inside = 1
    while start + inside < len(rows) and rows[start + inside].name.startswith(prefix):
        inside += 1
    return inside


def _scaled(number: float) -> str:
    """``291.6 G``; below a thousand ``12 ``."""
    for letter in ("", "k", "M", "G", "T"):
        if number < 1000:
            break
        number /= 1000
    return f"{number:.1f} {letter}" if letter else f"{number} "
