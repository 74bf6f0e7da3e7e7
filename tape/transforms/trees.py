"""Arguments that hold several arrays: lists, tuples and dicts of them, at any depth."""

from __future__ import annotations

from typing import Any, Callable, Iterator


def leaves(tree: Any) -> Iterator[Any]:
    """What stands in a nested container, in order; of anything else, the thing itself."""
    if isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from leaves(item)
    else:
        yield tree


def matching_leaves(tree: Any, like: Any) -> Iterator[Any]:
    """The leaves of `tree` in the order of those of `like`, which must be built alike."""
    if isinstance(like, dict):
        if not isinstance(tree, dict) or tree.keys() != like.keys():
            raise ValueError(f"a dict must have the keys {[*like]}, got {tree!r:.80}")
        for key, item in like.items():
            yield from matching_leaves(tree[key], item)
    elif isinstance(like, (list, tuple)):
        if not isinstance(tree, (list, tuple)) or len(tree) != len(like):
            raise ValueError(f"a {type(like).__name__} must have {len(like)} items, got {tree!r:.80}")
        for part, item in zip(tree, like):
            yield from matching_leaves(part, item)
    else:
        yield tree


def map_leaves(function: Callable, tree: Any) -> Any:
    """A container built like `tree`, with ``function(leaf)`` in the place of each leaf."""
    if isinstance(tree, dict):
        return {key: map_leaves(function, item) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [map_leaves(function, item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return function(tree)


def like_tree(tree: Any, values: Any) -> Any:
    """The values, one for each leaf, in a container built like `tree`."""
    remaining = iter(values)
    return map_leaves(lambda leaf: next(remaining), tree)
