"""Programs whose numbers are changed between forward and backward, by every way there is.

What must hold: the gradient is that of the program as it ran, to the last bit, or there is a
RuntimeError with the words "in place". And no value that was computed earlier changes.

A `Scenario` is run twice: without its change, which says what is right, and with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

import tape.lazy as ad
from tape import Tensor, grad
from tests.differential.answers import Answer, Mismatch, directions, identical
from tests.differential.changes import ALIASES, CHANGES, HANDLES, change_list
from tests.differential.eager import filled
from tests.differential.engine import engine
from tests.differential.freeze import freeze_run
from tests.differential.program import Program
from tests.differential.static import other_numbers

SCENARIOS_A_PROGRAM = 4
REFUSALS = ("in place", "given a new array")          # of backward() and the like
CLOSED = ("read-only", "turning a tensor into a plain array",
          "data: the result of a recorded operation")


@dataclass
class Run:
    """One recorded run, before anything is changed."""

    leaves: dict[str, Tensor]
    constants: dict[str, Any]
    values: dict[str, Any]
    out: Any = None
    handle: Any = None             # an array that was got hold of before the forward


@dataclass
class Scenario:
    """What is done to a run: `before` the forward, and `after` it (the change itself)."""

    words: str
    before: Callable[[Run], None]
    after: Callable[[Run], None]
    leaf: str = ""                 # that is changed


def drawn(program: Program, rng: np.random.Generator) -> Scenario:
    kinds: list[Callable] = [a_leaf, a_leaf, an_alias, a_result, one_array_for_two]
    if program.constants:
        kinds += [a_constant, a_constant]
    return kinds[rng.integers(len(kinds))](program, rng)


def _some(rng: np.random.Generator, choices: Any) -> Any:
    choices = list(choices)
    return choices[rng.integers(len(choices))]


def nothing(run: Run) -> None:
    pass


def _way(rng: np.random.Generator) -> tuple[str, Callable, Callable]:
    """How a tensor's array is changed: in words, what to do before the forward, and after it."""
    change_name, change = _some(rng, CHANGES.items())
    kind = rng.integers(8)
    if kind == 0:
        return "t.data -= 1", lambda t: None, lambda t, a: setattr(t, "data", t.data.__isub__(1))
    if kind == 1:
        return "t.data = t.data + 1", lambda t: None, lambda t, a: setattr(t, "data", t.data + 1)
    if kind == 2:
        return f"a = t.data.copy(), t.data = a before, {change_name} after", _given, \
            lambda t, a: _if_held(change, a)
    handle_name, handle = _some(rng, HANDLES.items())
    if kind < 6:
        return f"a = {handle_name} before, {change_name} after", handle, \
            lambda t, a: _if_held(change, a)
    return f"a = {handle_name} after, {change_name}", lambda t: None, \
        lambda t, a: change(handle(t))


def _if_held(change: Callable, array: Any) -> None:
    if array is not None:
        change(array)


def _given(t: Tensor) -> np.ndarray:
    array = np.array(t.data)
    t.data = array
    return array


def a_leaf(program: Program, rng: np.random.Generator) -> Scenario:
    """A leaf, by an array got hold of before the forward or after it."""
    name = _some(rng, program.leaves)
    words, take, change = _way(rng)

    def before(run: Run) -> None:
        run.handle = take(run.leaves[name])
    return Scenario(f"leaf {name}: {words}", before,
                    lambda run: change(run.leaves[name], run.handle), name)


def an_alias(program: Program, rng: np.random.Generator) -> Scenario:
    """A leaf's place is taken by a tensor made from another, which is then changed."""
    name = _some(rng, program.leaves)
    alias_name, alias = _some(rng, ALIASES.items())
    words, take, change = _way(rng)
    wanted = bool(rng.integers(2))
    other: dict[int, Tensor] = {}

    def before(run: Run) -> None:
        array = run.leaves[name].data.copy()
        p = Tensor(array[None] if "squeeze" in alias_name else array)
        q = p.squeeze(0) if "squeeze" in alias_name else alias(p)
        q.requires_grad = wanted
        run.leaves[name], other[id(run)] = q, p
        run.handle = take(p)
    words = f"alias {name}: q = {alias_name}, requires_grad={wanted}; t is p; {words}"
    return Scenario(words, before, lambda run: change(other[id(run)], run.handle), name)


def one_array_for_two(program: Program, rng: np.random.Generator) -> Scenario:
    """Two leaves that were given the array of one of them."""
    name = _some(rng, program.leaves)
    same = [n for n, a in program.leaves.items() if n != name
            and a.shape == program.leaves[name].shape and a.dtype == program.leaves[name].dtype]
    if not same:
        return a_leaf(program, rng)
    second = _some(rng, same)
    words, take, change = _way(rng)

    def before(run: Run) -> None:
        run.leaves[second].data = run.leaves[name].data
        run.handle = take(run.leaves[name])
    return Scenario(f"leaf {second}.data = {name}.data; {name}: {words}", before,
                    lambda run: change(run.leaves[name], run.handle), name)


def a_constant(program: Program, rng: np.random.Generator) -> Scenario:
    """A constant tensor, array, mask, index, width or list."""
    name = _some(rng, program.constants)
    value = program.constants[name]
    if isinstance(value, list):
        return Scenario(f"constant {name}: the list is changed", nothing,
                        lambda run: change_list(run.constants[name]))
    if name.startswith("t"):
        words, take, change = _way(rng)

        def before(run: Run) -> None:
            run.handle = take(run.constants[name])
        return Scenario(f"constant tensor {name}: {words}", before,
                        lambda run: change(run.constants[name], run.handle))
    words, change = _some(rng, CHANGES.items())
    return Scenario(f"constant {name}: {words}", nothing,
                    lambda run: change(run.constants[name]) if run.constants[name].ndim else None)


def a_result(program: Program, rng: np.random.Generator) -> Scenario:
    """What was computed on the way: nobody may write to it, or nobody else sees it."""
    step = _some(rng, program.instructions) if program.instructions else None
    name = step.result if step else "out"
    handle_name, handle = _some(rng, HANDLES.items())
    words, change = _some(rng, CHANGES.items())

    def after(run: Run) -> None:
        value = _results(run).get(name)
        if value is not None:
            change(handle(value))
    return Scenario(f"result {name}: a = {handle_name}, {words}", nothing, after)


# --- running them ---


def started(program: Program, scenario: Scenario) -> Run:
    leaves = {name: Tensor(a.copy(), requires_grad=True) for name, a in program.leaves.items()}
    run = Run(leaves, {}, {})
    function = program.function(engine, "spelled", Tensor, run.constants, run.values)
    unless_closed(scenario.before, run)
    with ad.tracing():
        run.out = function(*run.leaves.values())
    return run


def by_backward(run: Run, program: Program) -> list[np.ndarray]:
    run.out.backward()
    leaves = list(run.leaves.values())
    return filled([x.grad if x.is_leaf else None for x in leaves], leaves)


def by_grad(run: Run, program: Program) -> list[np.ndarray]:
    """First and second order."""
    leaves = [x for x in run.leaves.values() if x.requires_grad]
    first = grad(run.out, leaves, create_graph=True, allow_unused=True)
    names = [name for name, x in run.leaves.items() if x.requires_grad]
    weights = dict(zip(program.leaves, directions(program)[0]))
    terms = [engine.sum(engine.mul(g, weights[name]))
             for g, name in zip(first, names) if g is not None and g.requires_grad]
    second: Any = []
    if terms:
        second = grad(sum(terms[1:], terms[0]), leaves, allow_unused=True)
    return [*filled(first, leaves), *filled(second, leaves)]


def by_freezing(run: Run, program: Program, without: str = "") -> list[np.ndarray]:
    """A graph of the run, on other numbers; one leaf may be a constant of it."""
    leaves = {n: x for n, x in run.leaves.items() if x.requires_grad and x.is_leaf and n != without}
    node, variables = freeze_run(run.out, leaves)
    feed = {v: other_numbers(program.leaves[name]) for name, v in variables.items()}
    return ad.Evaluator([node, *ad.gradients(node, list(variables.values()))]).run(feed)


def _results(run: Run) -> dict[str, Tensor]:
    """The tensors that were computed; dropout with p = 0, say, returns what it was given."""
    given = {id(x) for x in (*run.leaves.values(), *run.constants.values())}
    return {n: v for n, v in run.values.items()
            if n.startswith("v") and isinstance(v, Tensor) and id(v) not in given}


def unless_closed(step: Callable[[Run], None], run: Run) -> None:
    """A way that is closed (the array is read-only, or is not handed out) changes nothing."""
    try:
        step(run)
    except (ValueError, TypeError) as error:
        if not any(words in str(error) for words in CLOSED):
            raise


def compare(name: str, scenario: Scenario, program: Program, finish: Callable) -> None:
    """The scenario with its change against the scenario without."""
    right_run, run = started(program, scenario), started(program, scenario)
    if not getattr(run.out, "requires_grad", False):
        return
    right = finish(right_run, program)
    made = _results(run)
    before = {n: np.array(v.data) for n, v in made.items()}
    unless_closed(scenario.after, run)
    route = f"mutation, {name}"
    for n, array in before.items():
        identical(route, f"{scenario.words}: value of {n}", made[n].data, array)
    try:
        got = finish(run, program)
    except RuntimeError as error:
        if not any(words in str(error) for words in REFUSALS):
            raise Mismatch(f"{route}: {scenario.words}: got {error}") from error
        return
    for g, wanted in zip(got, right, strict=True):
        identical(route, scenario.words, g, wanted)


def gradients(program: Program, wanted: Answer, orders: int) -> None:
    """Upstream gradients, and those that were handed out, are the user's, who may write there."""
    rng = np.random.default_rng(program.seed)
    run = started(program, Scenario("", nothing, nothing))
    made = [v for v in _results(run).values() if v.requires_grad]
    if not made:
        return
    tensor = made[rng.integers(len(made))]
    leaves = list(run.leaves.values())
    given = np.asarray(rng.uniform(0.5, 1.5, tensor.shape)).astype(tensor.dtype)
    before, after = [_first_and_spoil(tensor, leaves, given.copy()) for _ in range(2)]
    for first, second in zip(before, after):
        identical("mutation, x.grad", "after x.grad and the upstream gradient were written to",
                  second, first)
    before, after = [_second(tensor, leaves, given, touched) for touched in (False, True)]
    for first, second in zip(before, after):
        identical("mutation, grad_outputs", "after it was written to", second, first)


def _first_and_spoil(tensor: Tensor, leaves: list[Tensor], upstream: np.ndarray) -> list:
    """Gradients by backward(); then all arrays that had a part in it are overwritten."""
    tensor.backward(upstream, retain_graph=True)
    found = [np.array(g) for g in filled([x.grad for x in leaves], leaves)]
    upstream[...] = 7
    for x in leaves:
        if x.grad is not None:
            x.grad[...] = 5
        x.grad = None
    return found


def _second(tensor: Tensor, leaves: list[Tensor], given: np.ndarray, touched: bool) -> list:
    upstream = given.copy()
    options: dict = dict(allow_unused=True, create_graph=True)
    first = grad(tensor, leaves, upstream, **options)
    if touched:
        upstream[...] = 7
    terms = [(g * g).sum() for g in first if g is not None and g.requires_grad]
    if not terms:
        return filled(first, leaves)
    return filled(grad(sum(terms[1:], terms[0]), leaves, **options), leaves)


def mutated(program: Program, wanted: Answer, orders: int) -> None:
    """A few scenarios of each program, each by one of the ways to the gradient."""
    rng = np.random.default_rng(program.seed)
    for _ in range(SCENARIOS_A_PROGRAM):
        scenario = drawn(program, rng)
        kind, without = rng.integers(4), scenario.leaf if rng.integers(2) else ""
        if kind < 2:
            compare("backward", scenario, program, by_backward)
        elif kind == 2:
            compare("create_graph", scenario, program, by_grad)
        else:
            compare("frozen", scenario, program,
                    lambda run, program, without=without: by_freezing(run, program, without))


ROUTES = {"mutation": mutated, "gradients": gradients}
