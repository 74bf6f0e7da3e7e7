"""`Module`: something with parameters. Also the containers `ModuleList` and `Sequential`."""

from __future__ import annotations

import bisect
import difflib
from collections import UserString
from collections.abc import ItemsView, KeysView, Mapping, Sequence, Set, ValuesView
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, Iterable, Iterator, Optional

import numpy as np

from tape import Tensor

_CLOSED = (Tensor, str, bytes, bytearray, memoryview, range, UserString)    # nothing is in these
_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})      # known at a glance


class Parameter(Tensor):
    """A Tensor that an optimiser changes; with ``requires_grad = False`` it is saved but frozen."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None):
        super().__init__(data, requires_grad=True, dtype=dtype)


class Module:
    """Base of all layers and models: assign parameters and modules in ``__init__``, write ``forward``.

    Whatever is assigned to an attribute is found again, in the order of definition: parameters,
    modules, and what is in sequences (list, tuple, deque, ...), mappings, views of mappings, arrays
    of objects and dataclasses, to any depth. Nothing need be registered. A parameter that is
    reached twice (tied weights) counts once, under its first name.

    Refused with words are parameters and modules in a set or as the keys of a mapping, which have
    no name that lasts, in the body of a class, which all instances would share, and two parameters
    of one name. Objects of other classes, generators and closures are not looked into: derive the
    class from Module, or keep what it uses in an attribute as well.

    Examples
    --------
    >>> class Double(Module):
    ...     def __init__(self):
    ...         self.weight = Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> model = Double()
    >>> [name for name, _ in model.named_parameters()], model(Tensor([3.0])).item()
    (['weight'], 6.0)
    """

    training: bool = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if vars(cls).get("__slots__"):
            raise TypeError(f"{cls.__name__}: what is in __slots__ would not be found among the "
                            f"attributes of a module. Leave __slots__ out.")
        for path, value in _walk(vars(cls)):
            if isinstance(value, Tensor):
                raise TypeError(f"{cls.__name__}.{_name(path)}: a parameter in the body of a class "
                                f"would be shared by all instances and not be found. Assign it in "
                                f"__init__.")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; call the module itself."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # --- parameters ---

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter) in the order of definition; names are paths like ``blocks.0.weight``."""
        paths: dict[str, _Path] = {}
        for path, value in _walk(self):
            if not isinstance(value, Tensor):
                continue
            name = _name(path)
            if name in paths:
                raise ValueError(
                    f"{type(self).__name__}: each parameter needs a name of its own, but two "
                    f"parameters are named {name!r}: {_place(paths[name])} and {_place(path)}. "
                    f"Rename one of them.")
            paths[name] = path
            yield name, value

    def parameters(self) -> list[Tensor]:
        """The parameters, each once, in the order of definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def modules(self) -> Iterator[Module]:
        """This module and all inside it, each once."""
        yield self
        for _, value in _walk(self):
            if isinstance(value, Module):
                yield value

    def parameter_count(self) -> int:
        """How many numbers the model learns; tied ones count once."""
        return sum(parameter.size for parameter in self.parameters())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # --- modes ---

    def train(self, mode: bool = True) -> Module:
        """Switch dropout and the like on (or off) in this module and all inside it."""
        if not isinstance(mode, (bool, np.bool_)):
            raise TypeError(f"train: mode must be True or False, got {mode!r}. train() sets the "
                            f"mode only, as eval() does; the loop of training is yours to write.")
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Module:
        """``train(False)``."""
        return self.train(False)

    # --- state ---

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter's array, by name."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> list[str]:
        """Copy arrays into the parameters of the same names: all of them or, with an error, none.

        Parameters
        ----------
        state : mapping from names to arrays
            Numbers of another type are converted, rounded where need be; NaN and infinities are
            loaded as they are. Complex numbers, texts and objects are refused, and so are values
            beyond the range of the parameter.
        strict : bool
            Raise where names are missing or left over. Without it they are skipped and returned.
            A wrong shape or type is an error either way.

        Returns
        -------
        list of str
            What did not match, in words, a text for each name; empty when all did. The first few
            say which name that is left over on the other side is nearest.
        """
        caller = f"load_state_dict: {type(self).__name__}"
        if not isinstance(state, Mapping):
            raise TypeError(f"{caller}: state must be a mapping from names to arrays, as from "
                            f"state_dict(), got {type(state).__name__}")
        own = dict(self.named_parameters())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        arrays, wrong = _fitted_arrays(state, own)
        reports = [wrong, _unmatched("missing", missing, unexpected),
                   _unmatched("unexpected", unexpected, missing)]
        if wrong or (strict and any(reports)):
            raise ValueError(f"{caller}: {'; '.join(_first(part) for part in reports if part)}")
        for name, array in arrays.items():
            own[name].data = array
        return reports[1] + reports[2]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parameter_count():,} parameters)"


def is_learned(tensor: Tensor) -> bool:
    """A Parameter, frozen or not, or a leaf that wants a gradient; not a result kept for a look."""
    return isinstance(tensor, Parameter) or (tensor.requires_grad and tensor.is_leaf)


# --- the walk over all that a module holds ---

# Where a value was found: the path of its container, its key there, and how that is written:
# "." an attribute, "[" an item, "{" a member of a set. None is the root.
_Path = Optional[tuple["_Path", Any, str]]


def _walk(root: Module | Mapping) -> Iterator[tuple[_Path, Any]]:
    """Every parameter and module below `root`, with its path, once, in order, without recursion."""
    seen = {id(root): root}             # with the objects, so that no id is given to another
    form, pairs = _contents(root)
    stack: list[tuple[_Path, str, Iterator]] = [(None, form, iter(pairs))]
    while stack:
        parent, form, remaining = stack[-1]
        for key, value in remaining:
            if type(key) not in _PLAIN and _has_a_place(key):
                raise TypeError(_nameless(root, parent, f"has a {type(key).__name__} as a key. "
                                          f"Make a text the key and that its value"))
            if type(value) in _PLAIN or id(value) in seen:
                continue
            path = (parent, key, form)
            if _has_a_place(value):
                if form == "{":
                    raise TypeError(_nameless(root, path, f"is a set with a {type(value).__name__} "
                                              f"in it, in no order that lasts. Use a list"))
                seen[id(value)] = value
                yield path, value
            inside, pairs = _contents(value)
            if inside:
                seen[id(value)] = value
                stack.append((path, "{" if form == "{" else inside, iter(pairs)))
                break
        else:
            stack.pop()


def _has_a_place(value: Any) -> bool:
    """A module, or a tensor that is learned."""
    return isinstance(value, Module) or (isinstance(value, Tensor) and is_learned(value))


def _contents(value: Any) -> tuple[str, Iterable[tuple[Any, Any]]]:
    """How what a container holds is written in a path, and its keys and values; "" if it is none.

    Copies, because whoever walks may assign to attributes meanwhile.
    """
    if isinstance(value, Module):
        attributes = list(vars(value).items())
        return ".", attributes + (list(enumerate(value)) if isinstance(value, Sequence) else
                                  list(value.items()) if isinstance(value, Mapping) else [])
    if isinstance(value, _CLOSED):
        return "", ()
    if isinstance(value, Mapping):
        return "[", list(value.items())
    if isinstance(value, (Sequence, KeysView, ValuesView, ItemsView)):
        return "[", enumerate(list(value))
    if isinstance(value, Set):
        return "{", enumerate(list(value))
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return "[", enumerate(np.atleast_1d(value))
    if is_dataclass(value) and not isinstance(value, type):
        return ".", [(field.name, getattr(value, field.name, None)) for field in fields(value)]
    return "", ()


def _steps(path: _Path) -> list[tuple[Any, str]]:
    """The keys from the root down, each with how it is written."""
    steps = []
    while path is not None:
        path, key, form = path
        steps.append((key, form))
    return steps[::-1]


def _name(path: _Path) -> str:
    """``blocks.0.weight``."""
    return ".".join([str(key) for key, _ in _steps(path)])


def _place(path: _Path) -> str:
    """``.blocks[0].weight``, where keys that make the same name look different."""
    return "".join([f"[{key!r}]" if form != "." else
                    f".{key}" if str(key).isidentifier() else f".{key!r}"
                    for key, form in _steps(path)])


def _nameless(root: Any, path: _Path, found: str) -> str:
    while path is not None and path[2] == "{":          # from the member up to the set
        path = path[0]
    return (f"{type(root).__name__}: parameters and modules must be where they have a name that is "
            f"the same in the next run, but {_place(path)} {found}.")


# --- loading ---

_SHOWN = 5          # mismatches of one kind that an error names


def _fitted_arrays(state: Mapping[str, Any], own: dict[str, Tensor]
                   ) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays for the parameters that `state` has a name for, and what is wrong with the others."""
    arrays, wrong = {}, []
    for name, parameter in own.items():
        if name in state:
            try:
                arrays[name] = _fitted(state[name], parameter)
            except ValueError as error:
                wrong.append(f"{name!r} {error}")
    return arrays, wrong


def _fitted(value: Any, parameter: Tensor) -> np.ndarray:
    """An array of the parameter's shape and dtype; the ValueError of one that does not fit."""
    try:
        array = value.data if isinstance(value, Tensor) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"must be an array, got {type(value).__name__}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"must be an array of real numbers, got {type(value).__name__} of dtype "
                         f"{array.dtype}")
    if array.shape != parameter.shape:
        raise ValueError(f"must have shape {parameter.shape}, got {array.shape}")
    if array.dtype == parameter.dtype:
        return array
    with np.errstate(over="ignore"):
        converted = array.astype(parameter.dtype)
    if np.any(np.isinf(converted) & np.isfinite(array)):
        raise ValueError(f"has values beyond the range of {parameter.dtype}, got {array.dtype}")
    return converted


def _unmatched(kind: str, names: list, others: list) -> list[str]:
    """A text for each name; the first ones say which of the others is nearest."""
    forward = sorted(map(str, others))
    backward = sorted(name[::-1] for name in forward)
    texts = [f"{kind} {name!r}" for name in names]
    for i, name in enumerate(map(str, names[:_SHOWN])):
        # Only names that begin or end alike are compared: to compare all would take minutes.
        alike = _around(name, forward) + [other[::-1] for other in _around(name[::-1], backward)]
        near = difflib.get_close_matches(name, alike, 1)
        texts[i] += f" (nearest: {near[0]!r})" if near else ""
    return texts


def _around(name: str, ordered: list[str], reach: int = 50) -> list[str]:
    place = bisect.bisect(ordered, name)
    return ordered[max(place - reach, 0):place + reach]


def _first(reports: list[str]) -> str:
    more = len(reports) - _SHOWN
    return "; ".join(reports[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode for the length of a block; afterwards each module is in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


class ModuleList(Module):
    """A list of modules. A plain list works as well; this one can be printed and indexed by name."""

    def __init__(self, modules: Iterable[Module] = ()):
        if isinstance(modules, (Mapping, Set)):
            raise TypeError(f"ModuleList: modules must be given in order, as in a list, got a "
                            f"{type(modules).__name__}")
        self.items: list[Module] = []
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise TypeError(f"ModuleList: all items must be modules, got a {type(module).__name__}. "
                            f"A plain list in an attribute may hold anything.")
        self.items.append(module)
        return self

    def __getitem__(self, index: int) -> Module:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.items)


class Sequential(Module):
    """Modules (or any functions of one tensor) that run one after the other."""

    def __init__(self, *layers: Any):
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
