"""The flags of a script, said once: as a dataclass, from which the parser is made.

    @dataclass(frozen=True)
    class Flags:
        steps: int = flag("updates", 500, low=1)

gives ``--steps STEPS   updates (default: 500)``, which takes integers from 1; what `Parser.parse`
returns is a ``Flags``.
"""

from __future__ import annotations

import argparse
import configparser
import difflib
import math
import os
import sys
import textwrap
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, NoReturn, Sequence, get_args, get_type_hints

from nn.cli.script import UsageError

# Names of nanoGPT, PyTorch's examples and the like, and ours: the first of them that the job has.
FOREIGN = {
    **dict.fromkeys(("max-iters", "max-steps", "num-steps", "n-steps", "iters", "iterations",
                     "train-steps", "num-iterations", "epochs", "num-epochs", "n-epochs", "steps",
                     "max-epochs"), ("steps", "epochs")),
    **dict.fromkeys(("learning-rate", "max-lr", "base-lr", "rate"), ("lr",)),
    **dict.fromkeys(("eval-iters", "eval-steps"), ("eval-batches",)),
    **dict.fromkeys(("eval-every", "eval-freq", "valid-interval"), ("eval-interval",)),
    **dict.fromkeys(("gradient-accumulation-steps", "grad-accum-steps", "accumulation-steps",
                     "grad-accumulation", "accumulate"), ("micro-batch-size", "batch-size")),
    **dict.fromkeys(("warmup-iters", "warmup-steps", "lr-warmup-steps", "num-warmup-steps"),
                    ("warmup",)),
    **dict.fromkeys(("max-grad-norm", "clip-grad-norm", "clip", "gradient-clip-val", "clip-grad"),
                    ("grad-clip",)),
    **dict.fromkeys(("num-layers", "layers", "depth", "n-layers", "num-hidden-layers"), ("n-layer",)),
    **dict.fromkeys(("num-heads", "heads", "nhead", "n-heads", "num-attention-heads"), ("n-head",)),
    **dict.fromkeys(("d-model", "dim", "emb-size", "embed-dim", "hidden-size", "width", "emsize"),
                    ("n-embd",)),
    **dict.fromkeys(("context", "context-length", "seq-len", "seq-length", "bptt", "max-seq-len",
                     "sequence-length"), ("block-size",)),
    **dict.fromkeys(("bs", "batch", "train-batch-size"), ("batch-size",)),
    **dict.fromkeys(("out-dir", "output-dir", "save", "save-dir", "log-dir"), ("out",)),
    **dict.fromkeys(("dataset", "input", "input-file", "train-file", "data-dir", "text"), ("data",)),
    **dict.fromkeys(("log-every", "print-every", "logging-steps", "log-freq"), ("log-interval",)),
    **dict.fromkeys(("save-every", "save-steps", "checkpoint-interval"), ("save-interval",)),
    **dict.fromkeys(("wd", "l2"), ("weight-decay",)),
    **dict.fromkeys(("num-workers", "threads", "n-threads"), ("workers",)),
    **dict.fromkeys(("init-from", "continue", "restore", "load"), ("resume",)),
    **dict.fromkeys(("model", "architecture"), ("arch",)),
    **dict.fromkeys(("max-tokens", "max-length", "length", "tokens", "num-tokens"),
                    ("max-new-tokens",)),
    **dict.fromkeys(("n-samples", "samples"), ("num-samples",)), "temp": ("temperature",),
    **dict.fromkeys(("ckpt", "ckpt-path", "model-path"), ("checkpoint",)), "start": ("prompt",)}
NOT_HERE = {
    **dict.fromkeys(("device", "cuda", "gpu", "no-cuda", "mps"),
                    "there is no choice of a device, all runs on the processor: leave it out"),
    "compile": "operators are compiled where Numba is installed (python -m tape.kernels): leave it out",
    "backend": "one process with threads computes all, see --workers: leave it out"}


def flag(text: str, default: Any = None, *, low: float = -math.inf, high: float = math.inf,
         above: float = -math.inf, below: float = math.inf, convert: Callable | None = None,
         more: Mapping[str, Any] | None = None, group: str = "", **shown: Any) -> Any:
    """A field of a dataclass of flags, of the type int, float, str or Path, or of one of them or None;
    or of the type bool, for a flag without a value.

    Parameters
    ----------
    text : str
        For --help, which adds the default unless that is None. A percent sign is written twice.
    default : optional
    low, high, above, below : float
        Bounds of a number: low <= value <= high, above < value < below.
    convert : callable, optional
        Makes the value from the text; by default the type of the field does.
    more : mapping, optional
        Further metadata of the field.
    group : str
        The heading in --help under which it stands; what has none comes first.
    **shown
        Passed to ``add_argument``: metavar, choices.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return field(default=default, metadata={
        "bounds": bounds, "convert": convert, "group": group, "shown": {"help": text, **shown},
        **(more or {})})


def number(kind: type, low: float = -math.inf, high: float = math.inf, *,
           above: float = -math.inf, below: float = math.inf) -> Callable[[str], float]:
    """A flag's type: a number of this kind with low <= value <= high, above < value < below."""
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if kind is int and abs(value) > sys.maxsize:        # no array has as many elements
            raise argparse.ArgumentTypeError(f"must be an integer of at most {sys.maxsize:,}, got one "
                                             f"of {len(text)} digits")
        if not (low <= value <= high and above < value < below and math.isfinite(value)):
            name = "an integer" if kind is int else "a number"
            bounds = [f"{sign} {bound:g}" for sign, bound in
                      ((">=", low), (">", above), ("<=", high), ("<", below)) if math.isfinite(bound)]
            raise argparse.ArgumentTypeError(
                f"must be {f'{name} ' + ' and '.join(bounds) if bounds else name}, got {text!r}")
        return value
    return convert


def file_path(text: str) -> Path:
    """A flag's type: the path of a file, which need not exist."""
    if text.endswith(("/", os.sep)):
        raise argparse.ArgumentTypeError(f"must name a file, got the folder {text!r}")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """argparse with defaults shown in --help, no abbreviations, and help with unknown arguments.

    Parameters
    ----------
    prog, description, epilog : str
        As of argparse. A description of one line is wrapped.
    flags : dataclass
        Its fields are made by `flag`.
    text_flag : str
        The flag that a word without one was probably meant for.
    groups : mapping
        The headings in --help, and the fields under each that do not name their own.

    Notes
    -----
    A field of the type bool has a flag for each value, ``--fast`` and ``--no-fast``, so that the last
    one counts; --help shows the one that changes something.
    """

    def __init__(self, prog: str, flags: type, description: str, epilog: str = "",
                 text_flag: str = "", groups: Mapping[str, Sequence[str]] = {}):
        if "\n" not in description:
            description = textwrap.fill(description, 79, break_on_hyphens=False)
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False,
                         formatter_class=_HelpFormatter)
        self.flags, self.text_flag = flags, text_flag
        self.hints = get_type_hints(flags)
        headings = {name: heading for heading, names in groups.items() for name in names}
        made = {"": self._optionals} | {heading: self.add_argument_group(heading) for heading in groups}
        for one in fields(flags):
            heading = one.metadata["group"] or headings.get(one.name, "")
            if heading not in made:
                made[heading] = self.add_argument_group(heading)
            if self.hints[one.name] is bool:
                _add_switch(made[heading], one)
            else:
                made[heading].add_argument(
                    _flag(one.name), default=one.default, **one.metadata["shown"],
                    type=one.metadata["convert"] or _converter(self.hints[one.name],
                                                               one.metadata["bounds"]))

    @property
    def names(self) -> list[str]:
        """``--help``, ``--steps`` ..., as --help shows them."""
        return [name for action in self._actions if action.help != argparse.SUPPRESS
                for name in action.option_strings]

    def parse(self, arguments: Sequence[str],
              jobs: Mapping[str, Callable[[], Parser]] | None = None) -> Any:
        """The flags of these arguments; `jobs` are the script's other jobs, where a flag may belong.

        Raises
        ------
        UsageError
            An argument is unknown, or its value is not allowed.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}; {self._advice(unknown[0], jobs or {})}")
        return self.flags(**vars(options))

    def arguments(self, settings: Mapping[str, Any], source: str,
                  jobs: Mapping[str, Callable[[], Parser]] | None = None) -> list[str]:
        """The arguments that give flags these values, as of a file; of None there are none.

        Raises
        ------
        UsageError
            There is no such flag, or its value is not allowed; it names the source.
        """
        found = []
        for name, value in settings.items():
            if self.hints.get(name) is bool and value is not None:
                state = configparser.ConfigParser.BOOLEAN_STATES.get(str(value).lower())
                if state is None:
                    raise UsageError(f"{source}: {name} must be true or false, got {str(value)!r}")
                found.append(_flag(name if state else f"no_{name}"))
            elif value is not None:
                found.append(f"{_flag(name)}={value}")
        try:
            self.parse(found, jobs)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from error
        return found

    def _advice(self, argument: str, jobs: Mapping[str, Callable[[], Parser]]) -> str:
        name = argument.split("=")[0]
        if name.replace("_", "-") in self.names:
            return f"did you mean {name.replace('_', '-')}?"
        elsewhere = name.strip("-").replace("_", "-")
        ours = [f"--{word}" for word in FOREIGN.get(elsewhere, ()) if f"--{word}" in self.names]
        if ours:
            return f"it is called {ours[0]} here"
        if elsewhere in NOT_HERE:
            return NOT_HERE[elsewhere]
        owners = [job for job, parser in jobs.items() if name in parser().names]
        near = difflib.get_close_matches(elsewhere, [known.strip("-") for known in self.names], 1)
        if argument in jobs:
            return f"the job comes first: {self.prog.split()[0]} {argument} ..."
        if owners:
            return f"{name} is a flag of {' and '.join(owners)}, not of {self.prog}"
        if near:
            return f"did you mean --{near[0]}?"
        if self.text_flag and not name.startswith("-"):
            return f'did you mean {self.text_flag} "{argument}"?'
        return f"known: {' '.join(self.names)}"

    def _print_message(self, message: str, file: Any = None) -> None:
        """Of --help, which argparse would lose without a word where it cannot be written."""
        print(message, end="", file=file or sys.stdout, flush=True)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _flag(name: str) -> str:
    """Of a field: ``--top-k`` of top_k."""
    return f"--{name.replace('_', '-')}"


def _add_switch(group: Any, one: Field) -> None:
    """The two flags of a field of the type bool; what gives its default is not in --help."""
    for value, name in ((True, one.name), (False, f"no_{one.name}")):
        shown = dict(one.metadata["shown"])
        if value is one.default:
            shown["help"] = argparse.SUPPRESS
        group.add_argument(_flag(name), dest=one.name, action=f"store_{str(value).lower()}",
                           default=one.default, **shown)


def refuse_together(o: Any, name: str, others: Iterable[str]) -> None:
    """Raise a UsageError where a flag is given, and with it one of others that it would ignore."""
    defaults = type(o)()
    if getattr(o, name) == getattr(defaults, name):
        return
    for other in others:
        if other != name and getattr(o, other) != getattr(defaults, other):
            first, second = (f"--{word.replace('_', '-')}" for word in (other, name))
            raise UsageError(f"{first} is not for {second}: leave one of them out")


def _converter(annotation: Any, bounds: dict[str, float]) -> Callable[[str], Any]:
    """What makes a value of this type; of ``int | None`` an int."""
    (kind,) = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    return number(kind, **bounds) if kind in (int, float) else kind


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """The default in words, where there is no value and the text does not say what that means."""
        if isinstance(action.default, bool):
            return f"{action.help} (default: off)"
        if action.default is None:
            told = "(default:" in (action.help or "") or "(without" in (action.help or "")
            return action.help if told else f"{action.help} (default: none)"
        return super()._get_help_string(action)
