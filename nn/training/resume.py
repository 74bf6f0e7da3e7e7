"""What a training needs to go on as if it had not been stopped, in a form that a checkpoint can hold.

The batches and the learning rate are functions of the seed and the step, so that what is left is the
weights, what the optimiser and the engine remember, the generators of dropout, and the position.
"""

from __future__ import annotations

import hashlib
import os
import platform
import reprlib
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Mapping

import numpy as np

import tape
from nn.training.parallel import available_cores

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def packed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays ``m.0``, ``m.1``, ... as one, ``m`` (N,): of scalars there would be thousands."""
    groups: dict[str, list[np.ndarray]] = {}
    for key, array in state.items():
        groups.setdefault(key.rpartition(".")[0], []).append(np.ravel(array))
    return {name: np.concatenate(arrays) for name, arrays in groups.items()}


def unpacked(arrays: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `packed` made one array of, by the names and in the shapes of `like`.

    Raises
    ------
    ValueError
        An array is missing, left over, or of another length.
    """
    lengths = {name: array.shape for name, array in packed(like).items()}
    found = {name: array.shape for name, array in arrays.items()}
    if found != lengths:
        raise ValueError(f"the state of the optimiser must be the arrays {lengths}, got "
                         f"{reprlib.repr(found)}")
    taken, parts = dict.fromkeys(lengths, 0), {}
    for key, own in like.items():
        name = key.rpartition(".")[0]
        start, taken[name] = taken[name], taken[name] + np.size(own)
        parts[key] = arrays[name][start:taken[name]].reshape(np.shape(own))
    return parts


def stream_states(streams: Mapping[str, np.random.Generator]) -> dict[str, Any]:
    """The states of generators, as JSON can hold them."""
    return {name: rng.bit_generator.state for name, rng in streams.items()}


def set_streams(streams: Mapping[str, np.random.Generator], states: Any) -> None:
    """Give generators the states that `stream_states` gave; ValueError where they do not fit."""
    if not isinstance(states, dict) or states.keys() != streams.keys():
        raise ValueError(f"its random streams must be those of {list(streams)}, got "
                         f"{reprlib.repr(states)}")
    for name, rng in streams.items():
        try:
            rng.bit_generator.state = states[name]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"the state of the random stream {name!r} is none of a "
                             f"{type(rng.bit_generator).__name__}") from error


def fingerprint(*parts: Any) -> str:
    """The SHA-256 of data: of texts, and of arrays with their shape and dtype."""
    digest = hashlib.sha256()
    for part in parts:
        if not isinstance(part, str):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype.str} {array.shape}\n".encode("ascii"))
            digest.update(array.data)
        else:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"text %d\n" % len(data) + data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """What the last bits of a result can depend on besides the code of this project."""
    try:
        own = metadata.version("tape-nn")
    except metadata.PackageNotFoundError:
        own = "not installed"
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    threads = next((os.environ[name] for name in THREADS if os.environ.get(name)), "default")
    return {"tape": own, "numpy": np.__version__, "python": platform.python_version(),
            "machine": platform.machine(), "kernels": tape.kernels_in_use(),
            "processors": str(available_cores()),
            "blas": f"{blas['name']} {blas.get('version', '')}".strip(), "threads": threads}


def as_settings(flags: Any) -> dict[str, Any]:
    """A dataclass of flags as JSON can hold it."""
    return {name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(flags).items()}


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """In words, what differs: ``lr: 0.3 when saved, 0.1 now``."""
    return [f"{name}: {_shown(saved, name)} when saved, {_shown(given, name)} now"
            for name in sorted({*saved, *given}) if saved.get(name) != given.get(name)]


def _shown(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return "the default" if value is None else reprlib.repr(value)
