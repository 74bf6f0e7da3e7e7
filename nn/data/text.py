"""Texts to train on: of files, folders and standard input, read in pieces as often as wanted."""

from __future__ import annotations

import codecs
import hashlib
import importlib
import io
import os
import re
import sys
import tempfile
import weakref
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Callable, ContextManager, Iterator, NamedTuple

PIECE = 2 ** 20             # bytes that are read and tokenized at a time
SEPARATOR = "\n\n"          # between the files of a folder
IN_MEMORY = 2 ** 24         # bytes up to which a text stays in memory
_LONG = 10_000              # characters without a space, in which a piece may end
_BOM = codecs.BOM_UTF8
_BEFORE_LAST_SPACES = re.compile(r"(?s:.*)(?<=\S)(?=\s)")

# Told what is being done and how much of it is done, from 0 to 1.
Report = Callable[[str, float], None]


def silent(what: str, share: float) -> None:
    """The `Report` that says nothing."""


class Part(NamedTuple):
    """A part of a text: its name in errors, and what opens its bytes."""

    name: str
    open: Callable[[], ContextManager[BinaryIO]]


class Source(NamedTuple):
    """A text that can be read again and again, in pieces, so that it need not fit into memory.

    Attributes
    ----------
    parts : of which the text consists, in order, joined with a blank line.
    size : bytes of all of them.
    described : what it was made of, for people.
    paths : the files; none of a text that is not in files.
    """

    parts: tuple[Part, ...]
    size: int
    described: str
    paths: tuple[Path, ...] = ()

    def pieces(self) -> Iterator[str]:
        """The text in pieces of about `PIECE` characters, cut in front of spaces where there are some.

        There the pattern by which GPT-2 splits a text always cuts, and so do words: the tokens of the
        pieces are those of the whole text.

        Raises
        ------
        ValueError
            A part is not UTF-8: says which, which byte and where.
        """
        held = ""
        for i, part in enumerate(self.parts):
            held += SEPARATOR if i else ""
            for text in _decoded(part):
                held += text
                cut = _cut(held)
                if held[:cut]:
                    yield held[:cut]
                held = held[cut:]
        if held:
            yield held

    def documents(self) -> Iterator[list[str]]:
        """The lines without the spaces around them, many at a time; empty ones are left out."""
        held = ""
        for piece in self.pieces():
            *whole, held = (held + piece).split("\n")
            if found := _stripped(whole):
                yield found
        if found := _stripped([held]):
            yield found

    def text(self) -> str:
        """The whole text. ValueError if it is not UTF-8, or has nothing but spaces."""
        text = "".join(self.pieces())
        if not text.strip():
            raise ValueError(f"{self.described} is empty")
        return text

    def digest(self, report: Report = silent) -> str:
        """SHA-256 of the parts and their lengths, in hexadecimal; reads the bytes in pieces."""
        whole, done = hashlib.sha256(), 0
        for part in self.parts:
            before = done
            with part.open() as file:
                while block := file.read(PIECE):
                    whole.update(block)
                    done += len(block)
                    report("reading", done / max(self.size, done))
            whole.update(f"\0{done - before}\0".encode())
        return whole.hexdigest()


def _stripped(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip()]


def _cut(text: str) -> int:
    """Where a piece of the text may end: in front of its last spaces; a long word is cut anywhere."""
    found = _BEFORE_LAST_SPACES.match(text, max(len(text) - _LONG, 0))
    return found.end() if found else len(text) if len(text) > _LONG else 0


def _decoded(part: Part) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with part.open() as file:
        first = file.read(len(_BOM))
        block, start = (b"", len(_BOM)) if first == _BOM else (first, 0)
        while True:
            held = decoder.getstate()[0]            # the first bytes of a character that was cut
            end = not (more := file.read(PIECE))
            block += more
            try:
                yield decoder.decode(block, end)
            except UnicodeDecodeError as error:
                byte, place = error.object[error.start], start - len(held) + error.start
                raise ValueError(f"{part.name} is not UTF-8 text: byte 0x{byte:02x} at position "
                                 f"{place:,}") from error
            if end:
                return
            start, block = start + len(block), b""


def open_source(data: str | Path) -> Source:
    """The text of a file, of a folder, or with "-" of standard input.

    Of a folder and the folders in it: the files that begin as UTF-8 text, in the order of their paths,
    joined with a blank line. Names that begin with a dot, and empty files, are left out.

    Raises
    ------
    FileNotFoundError
    ValueError
        There is nothing to read.
    """
    if not str(data):
        raise ValueError("the name of the text is empty; give a file, a folder, or - for standard "
                         "input")
    if str(data) == "-":
        return _kept("standard input", sys.stdin.buffer)
    path = Path(data)
    return _folder(path) if path.is_dir() else _file(path)


def text_source(text: str, described: str) -> Source:
    """A text that is in memory already."""
    data = text.encode("utf-8", "surrogatepass")
    return Source((Part(described, partial(io.BytesIO, data)),), len(data), described)


def _file(path: Path) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():                          # a pipe can be read only once
        with open(path, "rb") as file:
            return _kept(str(path), file)
    part = Part(str(path), partial(path.open, "rb"))           # type: ignore[arg-type]
    return Source((part,), path.stat().st_size, str(path), (path,))


def _kept(name: str, file: BinaryIO) -> Source:
    """What can be read only once, kept in memory or in a temporary file that goes with the process."""
    spool = tempfile.SpooledTemporaryFile(IN_MEMORY)

    @contextmanager
    def again() -> Iterator[BinaryIO]:
        spool.seek(0)
        yield spool                                             # type: ignore[misc]

    weakref.finalize(again, spool.close)
    while block := file.read(PIECE):
        spool.write(block)
    return Source((Part(name, again),), spool.tell(), name)


def _folder(folder: Path) -> Source:
    paths = [path for path in _files(folder) if _begins_as_text(path)]
    if not paths:
        raise ValueError(f"{folder} is a folder without text files; give a text file, or a folder that "
                         f"has UTF-8 text files")
    kind, names = "file" + "s" * (len(paths) > 1), [str(path.relative_to(folder)) for path in paths]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    described = f"{len(paths):,} {kind} of {folder}: {', '.join(names[:3])}{more}"
    parts = tuple(part for path in paths for part in _file(path).parts)
    return Source(parts, sum(path.stat().st_size for path in paths), described, tuple(paths))


def _files(folder: Path) -> list[Path]:
    """All files but hidden ones and those of runs, which a training in this folder writes."""
    found = []
    for inner, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "checkpoints"]
        if {"last.npz", "best.npz"} & set(names):
            continue
        found += [Path(inner, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _begins_as_text(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(2 ** 12)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return bool(start.strip()) and b"\0" not in start


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, as it is.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    ValueError
        The file is empty, or not UTF-8.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a text file")
    return _file(Path(path)).text()


def python_help_text() -> str:
    """The help topics of Python's own interactive help: a text that needs no download."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file without the spaces around them; empty ones are left out.

    Raises what `read_text` raises.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def python_words() -> list[str]:
    """The distinct words of `python_help_text`, of two letters a-z or more, lower-cased and sorted."""
    return sorted(set(re.findall("[a-z]{2,}", python_help_text().lower())))
