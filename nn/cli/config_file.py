"""Values of flags in a file: .ini, and from Python 3.11 .toml.

    [text]                  the name of a job
    n-layer = 6             a flag of it, with - or _
    lines = true
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any, Mapping

from nn.cli.script import UsageError, user_input


def read_config(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of an .ini or .toml file: a job, and the values of its flags.

    Raises
    ------
    UsageError
        There is no such file, or it is not written as it must be.
    """
    if path.suffix not in (".ini", ".toml"):
        raise UsageError(f"--config: must be a .ini or .toml file, got {str(path)!r}")
    with user_input():
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")   # as in names of files
    if path.suffix == ".toml":
        return _from_toml(path, text)
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as error:
        raise UsageError(f"--config: {path} must begin with the name of a job in brackets, as [text]; "
                         f"line {error.lineno} stands before one") from error
    except configparser.Error as error:
        raise UsageError(f"--config: {path} is no .ini file: {error.message}") from error
    return {name: dict(values) for name, values in parser.items() if name}


def _from_toml(path: Path, text: str) -> dict[str, dict[str, Any]]:
    try:
        import tomllib
    except ImportError:
        raise UsageError(f"--config: {path} needs Python 3.11, which reads .toml files; write the same "
                         f"as an .ini file") from None
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config: {path} is no .toml file: {error}") from error
    for name, values in found.items():
        if not isinstance(values, dict):
            raise UsageError(f"--config: {path} must begin with the name of a job in brackets, as "
                             f"[text]; {name} stands before one")
        for key, value in values.items():
            if not isinstance(value, (bool, int, float, str)):
                raise UsageError(f"--config: {path}: {key} must be a number, a text, true or false")
    return found


def write_config(path: Path, job: str, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run so that --config takes them back."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser[job] = {name.replace("_", "-"): str(value).lower() if isinstance(value, bool) else str(value)
                   for name, value in settings.items() if value is not None}
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        parser.write(file)
