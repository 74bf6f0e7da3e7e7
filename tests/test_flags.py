"""The parser that is made from a dataclass of flags."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

import generate
import train
from nn.cli.script import UsageError
from nn.cli.flags import Parser, file_path, flag, number


@dataclass(frozen=True)
class Flags:
    steps: int = flag("updates", 500, low=1, high=900)
    lr: float = flag("rate", 0.5, above=0, below=2)
    top_k: int | None = flag("how many", low=1)
    name: str | None = flag("of it, 100 %% sure", metavar="TEXT")
    engine: str = flag("which", "tape", choices=("tape", "static"))
    folder: Path = flag("where", Path("x"))
    out: Path | None = flag("file", convert=file_path)
    fast: bool = flag("quickly", False)


def parser(**more):
    return Parser("job", Flags, "A job.", **more)


def test_without_arguments_the_flags_have_their_defaults():
    assert parser().parse([]) == Flags(500, 0.5, None, None, "tape", Path("x"), None, False)


def test_each_flag_has_the_type_of_its_field():
    found = parser().parse(["--steps", "7", "--lr", "1e-3", "--top-k=3", "--name", "5", "--engine",
                            "static", "--folder", "y/", "--out", "z", "--fast"])
    assert found == Flags(7, 0.001, 3, "5", "static", Path("y"), Path("z"), True)
    assert [type(getattr(found, name)) for name in ("steps", "lr", "name")] == [int, float, str]


@pytest.mark.parametrize("arguments, message", [
    (["--steps", "0"], "--steps: must be an integer >= 1 and <= 900, got '0'"),
    (["--steps", "901"], "--steps: must be an integer"), (["--steps", "1.0"], "must be an integer"),
    (["--lr", "0"], "--lr: must be a number > 0 and < 2, got '0'"), (["--lr", "2"], "got '2'"),
    (["--lr", "nan"], "got 'nan'"), (["--lr", "inf"], "got 'inf'"),
    (["--top-k", "0"], "--top-k: must be an integer >= 1, got '0'"),
    (["--engine", "lazy"], "--engine: invalid choice: 'lazy'"),
    (["--out", "z/"], "--out: must name a file, got the folder 'z/'"),
    (["--top_k", "3"], "unknown argument '--top_k'; did you mean --top-k?"),
    (["--step", "3"], "unknown argument '--step'; did you mean --steps?"),
    (["word"], "unknown argument 'word'; known: -h --help --steps --lr"),
    (["--steps"], "--steps: expected one argument"),
    (["--fast=1"], "--fast: ignored explicit argument '1'")])
def test_what_is_not_allowed_is_refused(arguments, message):
    with pytest.raises(UsageError) as refused:
        parser().parse(arguments)
    assert message in str(refused.value)


def test_a_word_without_a_flag_is_taken_for_the_text():
    with pytest.raises(UsageError, match='did you mean --name "a word"'):
        parser(text_flag="--name").parse(["a word"])


def test_help_has_the_texts_and_the_defaults_that_are_not_none():
    shown = " ".join(parser().format_help().split())
    assert "--steps STEPS updates (default: 500)" in shown
    assert "--top-k TOP_K how many --name TEXT of it, 100 % sure --engine {tape,static} which" in shown
    assert "(default: None)" not in shown and "(default: False)" not in shown


def test_a_number_without_bounds():
    assert number(float)("-3.5") == -3.5
    with pytest.raises(Exception, match="must be a number, got 'x'"):
        number(float)("x")


@pytest.mark.parametrize("name", train.JOBS)
def test_each_job_has_a_parser_of_its_flags(name):
    job, made = train.JOBS[name], train.parser(name)
    assert made.parse([]) == job.flags()
    assert made.names == ["-h", "--help", *(f"--{field.name.replace('_', '-')}"
                                            for field in dataclasses.fields(job.flags))]
    assert name in made.prog


def test_the_parser_of_generate_has_the_flags_of_its_dataclass():
    assert generate.parser().parse([]) == generate.Flags()
