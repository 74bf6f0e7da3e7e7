"""The walk over all that a module holds: it finds parameters and modules, and gives them names."""

from __future__ import annotations

import functools
from collections import UserString
from collections.abc import ItemsView, KeysView, Mapping, Sequence, Set, ValuesView
from dataclasses import fields, is_dataclass
from typing import Any, Callable, Iterable, Iterator, Optional

import numpy as np

from nn.layers.parameter import is_learned
from tape import Tensor

# Sequences that are not searched; and the types of most values, which are skipped first.
_CLOSED = (Tensor, str, bytes, bytearray, memoryview, range, UserString)
_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})


class Searched:
    """Base of `Module`: the walk searches the attributes of such objects."""

    def _attributes(self) -> list[tuple[Any, Any]]:
        """(name, value) of what is searched, of a container of modules its items by their own keys."""
        return list(vars(self).items())


# Where a value was found: the path of its container, its key there, and how that is written:
# "." an attribute, "[" an item, "{" a member of a set. None is the root.
Path = Optional[tuple["Path", Any, str]]


def walk(root: Searched | Mapping) -> Iterator[tuple[Path, Any]]:
    """Every parameter and module below `root`, with its path, once, in order, without recursion."""
    seen = {id(root): root}             # with the objects, so that no id is given to another
    form, pairs = _contents(root)
    stack: list[tuple[Path, str, Iterator]] = [(None, form, iter(pairs))]
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
    return isinstance(value, Searched) or (isinstance(value, Tensor) and is_learned(value))


def _contents(value: Any) -> tuple[str, Iterable[tuple[Any, Any]]]:
    """How what a container holds is written in a path, and its keys and values; "" if it is none.

    Copies, because the caller may assign to attributes meanwhile.
    """
    form, pairs_of = _opener(value.__class__)        # what isinstance asks, also of a proxy
    return form, pairs_of(value)


@functools.lru_cache(maxsize=1024)      # to ask the abstract classes takes as long as an operation
def _opener(kind: type) -> tuple[str, Callable[[Any], Iterable[tuple[Any, Any]]]]:
    """The same for all objects of a class: how it is written, and what gives keys and values."""
    if issubclass(kind, Searched):
        if issubclass(kind, Sequence):
            return ".", lambda value: value._attributes() + list(enumerate(value))
        if issubclass(kind, Mapping):
            return ".", lambda value: value._attributes() + list(value.items())
        return ".", lambda value: value._attributes()
    if issubclass(kind, _CLOSED):
        return "", lambda value: ()
    if issubclass(kind, Mapping):
        return "[", lambda value: list(value.items())
    if issubclass(kind, (Sequence, KeysView, ValuesView, ItemsView)):
        return "[", lambda value: enumerate(list(value))
    if issubclass(kind, Set):
        return "{", lambda value: enumerate(list(value))
    if issubclass(kind, np.ndarray):
        return "[", lambda value: enumerate(np.atleast_1d(value) if value.dtype.kind == "O" else ())
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
        return ".", lambda value: [(name, getattr(value, name, None)) for name in names]
    return "", lambda value: ()


def _steps(path: Path) -> list[tuple[Any, str]]:
    """The keys from the root down, each with how it is written."""
    steps = []
    while path is not None:
        path, key, form = path
        steps.append((key, form))
    return steps[::-1]


def name_of(path: Path) -> str:
    """``blocks.0.weight``."""
    return ".".join([str(key) for key, _ in _steps(path)])


def place_of(path: Path) -> str:
    """``.blocks[0].weight``, where keys that make the same name look different."""
    return "".join([f"[{key!r}]" if form != "." else
                    f".{key}" if str(key).isidentifier() else f".{key!r}"
                    for key, form in _steps(path)])


def _nameless(root: Any, path: Path, found: str) -> str:
    while path is not None and path[2] == "{":          # from the member up to the set
        path = path[0]
    return (f"{type(root).__name__}: parameters and modules must be where they have a name that is "
            f"the same in the next run, but {place_of(path)} {found}.")
