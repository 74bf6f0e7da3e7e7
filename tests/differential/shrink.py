"""From a program that fails to a short one that fails alike, by leaving instructions out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Iterator

import numpy as np

from tests.differential.builder import Builder, Name, Rejected
from tests.differential.program import NAMES, Instruction, Program


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Take the first smaller program that still fails, until there is none."""
    while True:
        for candidate in _smaller(program):
            if fails(candidate):
                program = candidate
                break
        else:
            return program


def _smaller(program: Program) -> Iterator[Program]:
    """Candidates, those that leave out most first."""
    steps, terms = program.instructions, program.terms
    for i in range(len(terms)):
        yield from _rebuilt(program, steps, terms[:i] + terms[i + 1:])
    for i, step in enumerate(steps):
        yield from _rebuilt(program, *_without(steps, terms, step.result))
    shapes = _shapes(program)
    for i, step in reversed(list(enumerate(steps))):
        earlier = [*program.leaves, *(s.result for s in steps[:i])]
        for name in reversed(earlier):
            if shapes.get(name) == shapes[step.result]:
                rest = steps[:i] + tuple(_renamed(s, step.result, name) for s in steps[i + 1:])
                pairs = tuple((name if x == step.result else x, name if y == step.result else y)
                              for x, y in terms)
                yield from _rebuilt(program, rest, pairs)
    for i, step in enumerate(steps):
        if step.spelling != "function":
            plain = replace(step, spelling="function")
            yield from _rebuilt(program, (*steps[:i], plain, *steps[i + 1:]), terms)


def _without(steps: tuple, terms: tuple, name: str) -> tuple[list, tuple]:
    """What is left without a result, and without all that was made from it."""
    gone, rest = {name}, []
    for step in steps:
        if step.result in gone or step.needs() & gone:
            gone.add(step.result)
        else:
            rest.append(step)
    return rest, tuple(pair for pair in terms if not gone.intersection(pair))


def _renamed(step: Instruction, old: str, new: str) -> Instruction:
    args = tuple(_replaced(x, old, new) for x in step.args)
    nodes = step.for_nodes and _renamed(step.for_nodes, old, new)
    return replace(step, args=args, for_nodes=nodes)


def _replaced(x: Any, old: str, new: str) -> Any:
    if isinstance(x, Name):
        return Name(NAMES.sub(lambda found: new if found.group() == old else found.group(), x))
    return type(x)(_replaced(y, old, new) for y in x) if isinstance(x, (list, tuple)) else x


def _rebuilt(program: Program, steps: Any, terms: tuple) -> Iterator[Program]:
    """The program with other instructions, if it is one: run through a `Builder` again."""
    if terms:
        try:
            yield replayed(program, steps).program(terms, program.seed)
        except Rejected:
            pass


def replayed(program: Program, steps: Any) -> Builder:
    """A Builder with the leaves and constants of a program, and these instructions."""
    b = Builder(np.random.default_rng(0), [np.float64])
    b.compares = program.compares
    b.leaves.update(program.leaves)
    for name, array in program.leaves.items():
        b.known(name, array)
    for name, value in program.constants.items():
        b.constants[name] = value
        if isinstance(value, np.ndarray) and name.startswith("t") and value.dtype.kind == "f":
            b.known(name, value)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            b.dtypes[name] = value.dtype
    for step in steps:
        b.take(step, show=False)
    return b


def _shapes(program: Program) -> dict[str, tuple]:
    values = replayed(program, program.instructions).values
    return {name: value.shape for name, value in values.items()}
