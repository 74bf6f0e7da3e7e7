"""Modules that hold modules: `ModuleList`, `ModuleDict` and `Sequential`.

What they hold is named by its key alone, as in a plain list or dict: ``blocks.0.weight``.
"""

from __future__ import annotations

from typing import Any, ItemsView, Iterable, Iterator, KeysView, Mapping, Set, ValuesView

from nn.layers.module import Module
from tape import Tensor


class _Container(Module):
    """Base of the three. What it holds is searched by its keys, beside its other attributes."""

    _held: Any

    def _attributes(self) -> list[tuple[Any, Any]]:
        held = vars(self).get("_held", ())
        own = [(name, value) for name, value in super()._attributes() if name != "_held"]
        return own + list(held.items() if isinstance(held, dict) else enumerate(held))

    def _module(self, value: Any) -> Module:
        if not isinstance(value, Module):
            raise TypeError(f"{type(self).__name__}: all items must be modules, got a "
                            f"{type(value).__name__}. A plain list or dict in an attribute may hold "
                            f"anything.")
        return value

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, key: Any) -> Any:
        return self._held[key]


class ModuleList(_Container):
    """A list of modules. A plain list works as well; this one can be printed and indexed by name."""

    def __init__(self, modules: Iterable[Module] = ()):
        if isinstance(modules, (Mapping, Set)):
            raise TypeError(f"ModuleList: modules must be given in order, as in a list, got a "
                            f"{type(modules).__name__}")
        self._held: list[Module] = []
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        self._held.append(self._module(module))
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def __setitem__(self, index: int, module: Module) -> None:
        self._held[index] = self._module(module)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._held)


class ModuleDict(_Container):
    """A dict of modules with texts as keys. A plain dict works as well."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        self._held: dict[str, Module] = {}
        self.update(modules)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules, or put others in the places of those with the same keys."""
        for key, module in dict(modules).items():
            self[key] = module

    def __setitem__(self, key: str, module: Module) -> None:
        if not isinstance(key, str):
            raise TypeError(f"ModuleDict: keys must be texts, which become names of parameters, got "
                            f"{key!r}")
        self._held[key] = self._module(module)

    def __getattr__(self, name: str) -> Any:
        """``blocks.head`` for ``blocks["head"]``."""
        held = vars(self).get("_held", {})
        return held[name] if name in held else super().__getattr__(name)

    def __contains__(self, key: Any) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def keys(self) -> KeysView[str]:
        """As of a dict."""
        return self._held.keys()

    def values(self) -> ValuesView[Module]:
        """As of a dict."""
        return self._held.values()

    def items(self) -> ItemsView[str, Module]:
        """As of a dict."""
        return self._held.items()


class Sequential(_Container):
    """Modules (or any functions of one tensor) that run one after the other."""

    def __init__(self, *layers: Any):
        self._held: list[Any] = list(layers)

    @property
    def layers(self) -> list[Any]:
        """What runs, in order."""
        return self._held

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held)

    def __getitem__(self, key: Any) -> Any:
        """A layer; of a slice a Sequential of these layers, which are the same ones."""
        return Sequential(*self._held[key]) if isinstance(key, slice) else self._held[key]

    def append(self, layer: Any) -> Sequential:
        """Add a layer at the end."""
        self._held.append(layer)
        return self

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._held:
            x = layer(x)
        return x
