"""A program under construction: every instruction is tried on the reference before it is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Sequence

import numpy as np

from tests.differential import reference
from tests.differential.jets import Jet
from tests.differential.program import NAMES, Instruction, Name, Program

LARGEST = 1e3          # of a value; beyond it programs test rounding rather than the engine
MOST_ELEMENTS = 60     # of a value
MOST_LEAF_ELEMENTS = 26
METHODS = frozenset(
    "sum mean max min var std norm logsumexp exp log sqrt abs tanh sigmoid relu gelu clip softmax "
    "log_softmax matmul astype swapaxes expand_dims squeeze broadcast_to split reshape transpose"
    .split())
IN_NUMPY = frozenset(
    "add sub mul div neg power square sqrt exp log log1p expm1 sin cos tanh abs maximum minimum "
    "clip where sum mean max min var std matmul dot transpose swapaxes "
    "moveaxis reshape expand_dims squeeze broadcast_to concatenate stack split pad".split())
OPERATORS = frozenset("add sub mul div neg power matmul getitem".split())


class Rejected(Exception):
    """An instruction that cannot be taken here."""


class Builder:
    """Leaves, constants and instructions so far, and the value of each.

    Attributes
    ----------
    values : what the reference computes, as Jets without derivatives.
    dtypes : which dtype each value must have, by NumPy's rules for arrays of floats.
    shown : the names that later instructions may use.
    """

    def __init__(self, rng: np.random.Generator, dtypes: Sequence[Any]):
        self.rng = rng
        self.leaf_dtypes = dtypes
        self.leaves: dict[str, np.ndarray] = {}
        self.constants: dict[str, Any] = {}
        self.instructions: list[Instruction] = []
        self.values: dict[str, Jet] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self.shown: list[str] = []
        self.tensors: set[str] = set()
        self.compares = False

    # --- what instructions are made of ---

    def shape(self, name: str) -> tuple:
        return self.values[name].shape

    def array(self, name: str) -> np.ndarray:
        return self.values[name].value

    def pick(self, allowed: Callable[[str], bool] = lambda name: True) -> Name:
        """Any earlier value for which `allowed` holds, rather a recent one."""
        names = [name for name in self.shown if allowed(name)]
        if not names:
            raise Rejected("no operand")
        if self.rng.random() < 0.5:
            names = names[-4:]
        return Name(names[self.rng.integers(len(names))])

    def some(self, choices: Sequence[Any]) -> Any:
        return choices[self.rng.integers(len(choices))]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def numbers(self, shape: tuple, kind: str | None = None) -> np.ndarray:
        """Random numbers: with many zeros and ties, or none; or positive ones."""
        kind = kind or self.some(["grid", "normal", "normal", "positive", "special"])
        if kind == "grid":
            return self.rng.integers(-8, 9, shape) / 4
        if kind == "special":
            return self.rng.choice([-1.0, 0.0, 0.0, 0.5, 1.0, 1.0], shape)
        if kind == "positive":
            return self.rng.uniform(0.3, 2.0, shape)
        return np.asarray(self.rng.standard_normal(shape))

    def leaf(self, shape: tuple, kind: str | None = None) -> Name:
        used = sum(a.size for a in self.leaves.values())
        if used + int(np.prod(shape)) > MOST_LEAF_ELEMENTS:
            raise Rejected("enough leaves")
        name = f"x{len(self.leaves)}"
        dtype = self.some(self.leaf_dtypes)
        self.leaves[name] = np.array(self.numbers(shape, kind)).astype(dtype)
        return self.known(name, self.leaves[name])

    def constant(self, value: Any, tensor: bool = False) -> Name:
        """A constant of the program: an array, a list, or what will be a Tensor."""
        name = ("t" if tensor else "c") + str(len(self.constants))
        self.constants[name] = value
        if tensor:
            return self.known(name, value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            self.dtypes[name] = value.dtype
        return Name(name)

    def known(self, name: str, array: np.ndarray) -> Name:
        self.values[name] = Jet({0: array.astype(np.float64)})
        self.dtypes[name] = array.dtype
        self.shown.append(name)
        self.tensors.add(name)
        return Name(name)

    def wanted(self, shape: tuple, kind: str | None = None) -> Name:
        """A value of this shape: an earlier one, a new leaf, or a constant."""
        there = [name for name in self.shown if self.shape(name) == shape]
        if there and kind is None and self.chance(0.6):
            return Name(self.some(there))
        if self.chance(0.7):
            try:
                return self.leaf(shape, kind)
            except Rejected:
                pass
        if there and kind is None and self.chance(0.7):
            return Name(self.some(there))
        array = np.asarray(self.numbers(shape, kind)).astype(self.some(self.leaf_dtypes))
        return self.constant(array, tensor=self.chance(0.4))

    # --- instructions ---

    def emit(self, operator: str, *args: Any, show: bool = True, suffix: str = "",
             for_nodes: Any = None, **options: Any) -> Name:
        """Take one more instruction, unless its value is too large, undefined, or on the edge."""
        result = Name(f"v{len(self.instructions)}")
        if for_nodes is not None:
            name, *rest = for_nodes
            for_nodes = Instruction(result, name, tuple(rest))
        step = Instruction(result, operator, args, tuple(options.items()), "function", suffix,
                           for_nodes)
        self.take(replace(step, spelling=self.some(self._spellings(step))), show)
        return result

    def take(self, step: Instruction, show: bool = True) -> None:
        """Run an instruction on the reference, and make its result known."""
        value = self._tried(step)
        if show:
            self._check(value.value)
            self.shown.append(step.result)
        self.instructions.append(step)
        self.values[step.result] = value
        self.dtypes[step.result] = self._dtype(step)
        self.tensors.discard(step.result)
        if any(name in self.tensors for name in NAMES.findall(step.text())):
            self.tensors.add(step.result)

    def _tried(self, step: Instruction) -> Jet:
        names = {**self.constants, **self.values}
        try:
            with np.errstate(all="ignore"):
                value = eval(step.text(), {"tape": reference, "np": np, **names})
        except (ArithmeticError, ValueError, IndexError) as error:    # shapes that do not fit, too
            raise Rejected(str(error)) from error
        if not isinstance(value, Jet):
            raise TypeError(f"{step.text()}: no Jet")
        return value

    def _check(self, array: np.ndarray) -> None:
        if array.size > MOST_ELEMENTS:
            raise Rejected("too many elements")
        if not np.isfinite(array).all() or np.abs(array).max(initial=0) > LARGEST:
            raise Rejected("too large")

    def _dtype(self, step: Instruction) -> np.dtype:
        """The dtype that the result must have: that of the floats that go into it."""
        if step.operator == "astype":
            return np.dtype(step.args[1])
        args = step.args
        if step.operator in ("getitem", "embedding", "cross_entropy"):
            args = args[:1]
        elif step.operator == "where":
            args = args[1:]
        names = NAMES.findall(repr(args) + repr(step.options))
        floats = [self.dtypes[name] for name in names if name in self.dtypes]
        return np.result_type(*floats) if floats else np.dtype(np.float64)

    def _spellings(self, step: Instruction) -> list[str]:
        """How it may be written: only a Tensor has methods, say."""
        first = step.args[0]
        tensor = isinstance(first, Name) and first in self.tensors
        choices = ["function"]
        if tensor and step.operator in METHODS:
            choices.append("method")
        if step.operator in IN_NUMPY:
            choices.append("numpy")
        operands = [x for x in step.args[:2] if isinstance(x, Name) and x in self.tensors]
        if step.operator in OPERATORS and operands and (tensor or step.operator != "getitem"):
            choices.append("operator")
        return choices

    def program(self, terms: Sequence[tuple[str, str]], seed: Any) -> Program:
        """The program so far, whose result is the sum of the products of these pairs."""
        names = {name for pair in terms for name in pair}
        if not names & self.tensors:
            raise Rejected("the result is no Tensor")
        dtype = np.result_type(*(self.dtypes[name] for name in names))
        program = Program(self.leaves, self.constants, tuple(self.instructions), tuple(terms),
                          self.compares, seed, dtype).without_unused()
        if not program.leaves:
            raise Rejected("nothing to differentiate")
        return program
