"""What a program is: leaves, constants and instructions, which read and run as Python.

The text that a report prints is the text that was run. A program has three spellings of the same
computation: as a user would write it (`spelled`: operators, methods, NumPy's functions), with the
functions of `tape` alone (`plain`; the reference and PyTorch run it in the place of `tape`), and
for the nodes of a static graph, which have no shape (`nodes`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Callable

import numpy as np

NAMES = re.compile(r"\b[xvctm]\d+\b")        # leaf, result, constant, constant tensor, marked leaf
SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "power": "**", "matmul": "@"}
OTHER_NUMPY_NAMES = {"sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative",
                     "abs": "absolute", "norm": "linalg.norm"}


class Name(str):
    """A piece of program text, such as ``v3``, that is not to be quoted."""

    __repr__ = str.__str__


@dataclass(frozen=True)
class Instruction:
    """``result = operator(*args, **options)``, in one of its spellings."""

    result: str
    operator: str
    args: tuple
    options: tuple = ()                  # pairs of a name and a value
    spelling: str = "function"           # or "operator", "method", "numpy"
    suffix: str = ""                     # "[1]" picks one of several results
    for_nodes: "Instruction | None" = None

    def text(self, spelled: bool = False) -> str:
        """The right-hand side."""
        spelling = self.spelling if spelled else "function"
        if spelling == "operator":
            return self._with_symbols()
        rest = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.options)]
        if spelling == "method":
            return f"{rest[0]}.{self.operator}({', '.join(rest[1:])}){self.suffix}"
        function = "tape." + self.operator
        if spelling == "numpy":
            function = "np." + OTHER_NUMPY_NAMES.get(self.operator, self.operator)
        return f"{function}({', '.join(rest)}){self.suffix}"

    def _with_symbols(self) -> str:
        if self.operator == "getitem":
            return f"{self.args[0]}[{_index_text(self.args[1])}]"
        if self.operator == "neg":
            return f"-{self.args[0]}"
        x, y = (repr(x) if isinstance(x, Name) else f"({x!r})" for x in self.args)
        return f"{x} {SYMBOLS[self.operator]} {y}"

    def needs(self) -> set[str]:
        """The names that it reads."""
        other = self.for_nodes.needs() if self.for_nodes else set()
        return {*NAMES.findall(self.text()), *other}


def _index_text(index: Any) -> str:
    if isinstance(index, tuple) and len(index) > 1:
        return ", ".join(repr(x) if isinstance(x, tuple) else _index_text(x) for x in index)
    if isinstance(index, slice):
        parts = (index.start, index.stop, index.step)
        start, stop, step = ("" if x is None else str(x) for x in parts)
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return "..." if index is Ellipsis else repr(index)


@dataclass(frozen=True)
class Program:
    """A scalar function of leaves.

    Attributes
    ----------
    leaves : arrays, by name; every route makes of them what it differentiates.
    constants : arrays and lists (``c0``), and arrays that are to be Tensors (``t0``), by name.
    terms : pairs of names; the result is the sum of the sums of their products.
    compares : whether a comparison of values chooses between results.
    """

    leaves: dict[str, np.ndarray]
    constants: dict[str, Any]
    instructions: tuple[Instruction, ...]
    terms: tuple[tuple[str, str], ...]
    compares: bool = False
    seed: Any = None
    dtype: Any = None                # which the result must have
    _compiled: dict = field(default_factory=dict, compare=False, repr=False)

    def body(self, spelling: str) -> list[str]:
        lines = []
        for step in self.instructions:
            if spelling == "nodes" and step.for_nodes is not None:
                step = step.for_nodes
            lines.append(f"{step.result} = {step.text(spelled=spelling == 'spelled')}")
        sums = [f"tape.sum(tape.mul({a}, {b}))" for a, b in self.terms]
        lines.append("out = " + sums[0])
        lines += [f"out = tape.add(out, {text})" for text in sums[1:]]
        return lines

    def source(self, spelling: str = "spelled") -> str:
        """The program as a function of its leaves."""
        lines = [f"def program({', '.join(self.leaves)}):", *self.body(spelling),
                 "values.update(locals())", "return out"]
        return "\n    ".join(lines) + "\n"

    def uses(self, operator: str) -> bool:
        return any(step.operator.startswith(operator) for step in self.instructions)

    def function(self, tape: Any, spelling: str = "plain", make: Callable | None = None,
                 constants: dict | None = None, values: dict | None = None) -> Callable:
        """The program with `tape` (the engine, or what stands in for it) under that name.

        `make` makes of the array of a constant tensor what the engine takes for one. `constants`,
        if given, is filled with the constants that this function alone uses, so that a caller can
        change them. `values` is filled with all results at every call.
        """
        if spelling not in self._compiled:
            self._compiled[spelling] = compile(self.source(spelling), "<program>", "exec")
        names = {} if constants is None else constants
        for name, value in self.constants.items():
            value = _fresh(value)
            names[name] = make(value) if make is not None and name.startswith("t") else value
        namespace = {"tape": tape, "np": np, "values": {} if values is None else values, **names}
        exec(self._compiled[spelling], namespace)
        return namespace["program"]

    def arrays(self) -> list[np.ndarray]:
        """Fresh copies of the leaves."""
        return [array.copy() for array in self.leaves.values()]

    def listing(self) -> str:
        """All of it, as Python that can be run."""
        engine = "from tests.differential.engine import engine as tape"
        lines = ["import numpy as np", engine if self.uses("user_") else "import tape"]
        lines += [f"{name} = {literal(value, name.startswith('t'))}"
                  for name, value in self.constants.items()]
        lines += [f"{name} = tape.Tensor({literal(array)}, requires_grad=True)"
                  for name, array in self.leaves.items()]
        return "\n".join([*lines, *self.body("spelled")])

    def without_unused(self) -> Program:
        """Only the instructions, constants and leaves that the result depends on."""
        needed = {name for pair in self.terms for name in pair}
        kept = []
        for step in reversed(self.instructions):
            if step.result in needed:
                kept.append(step)
                needed |= step.needs()
        return replace(
            self, instructions=tuple(reversed(kept)), _compiled={},
            leaves={n: a for n, a in self.leaves.items() if n in needed},
            constants={n: c for n, c in self.constants.items() if n in needed})


def _fresh(value: Any) -> Any:
    if isinstance(value, list):
        return [_fresh(x) for x in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def literal(value: Any, tensor: bool = False) -> str:
    """A constant as Python text."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    usual = value.dtype in (np.float64, np.int64, bool) and value.size
    dtype = "" if usual else f", np.{value.dtype}"
    if value.size > 100 and np.ptp(value) == 0:
        return f"np.full({value.shape}, {value.flat[0]!r}, np.{value.dtype})"
    text = f"np.array({value.tolist()}{dtype})"
    text = text if value.size else f"np.zeros({value.shape}{dtype})"
    return f"tape.Tensor({text})" if tensor else text
