"""The parser that is made from a dataclass of flags."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

import generate
import train
from nn.cli.script import UsageError
from nn.jobs.settings import GROUPS
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
    slow: bool = flag("surely", True)


def parser(**more):
    return Parser("job", Flags, "A job.", **more)


def test_without_arguments_the_flags_have_their_defaults():
    assert parser().parse([]) == Flags(500, 0.5, None, None, "tape", Path("x"), None, False, True)


def test_each_flag_has_the_type_of_its_field():
    found = parser().parse(["--steps", "7", "--lr", "1e-3", "--top-k=3", "--name", "5", "--engine",
                            "static", "--folder", "y/", "--out", "z", "--fast"])
    assert found == Flags(7, 0.001, 3, "5", "static", Path("y"), Path("z"), True, True)
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
    assert ("--top-k TOP_K how many (default: none) --name TEXT of it, 100 % sure (default: none) "
            "--engine {tape,static} which") in shown
    assert "--fast quickly (default: off) --no-slow surely (default: off)" in shown
    for missing in ("(default: None)", "(default: False)", "(default: True)", "--no-fast"):
        assert missing not in shown


@pytest.mark.parametrize("words, fast, slow", [
    ([], False, True), (["--fast"], True, True), (["--fast", "--no-fast"], False, True),
    (["--no-slow"], False, False), (["--no-slow", "--slow"], False, True)])
def test_of_the_flags_for_yes_and_no_the_last_counts(words, fast, slow):
    found = parser().parse(words)
    assert (found.fast, found.slow) == (fast, slow)


@pytest.mark.parametrize("settings, arguments", [
    ({"steps": 7, "top_k": None, "fast": True, "slow": False}, ["--steps=7", "--fast", "--no-slow"]),
    ({"fast": "no", "slow": "On", "lr": "1e-3"}, ["--no-fast", "--slow", "--lr=1e-3"])])
def test_settings_are_the_arguments_that_give_them(settings, arguments):
    assert parser().arguments(settings, "x.ini") == arguments


@pytest.mark.parametrize("settings, message", [
    ({"fast": "perhaps"}, "x.ini: fast must be true or false, got 'perhaps'"),
    ({"steps": "0"}, "x.ini: argument --steps: must be an integer >= 1 and <= 900, got '0'"),
    ({"learning_rate": "1"}, "x.ini: unknown argument '--learning-rate=1'; it is called --lr here"),
    ({"stesp": "1"}, "x.ini: unknown argument '--stesp=1'; did you mean --steps?")])
def test_settings_that_are_not_allowed_name_their_source(settings, message):
    with pytest.raises(UsageError) as refused:
        parser().arguments(settings, "x.ini")
    assert str(refused.value) == message


def test_a_number_without_bounds():
    assert number(float)("-3.5") == -3.5
    with pytest.raises(Exception, match="must be a number, got 'x'"):
        number(float)("x")


@pytest.mark.parametrize("name", train.JOBS)
def test_each_job_has_a_parser_of_its_flags(name):
    job, made = train.JOBS[name], train.parser(name)
    assert made.parse([]) == job.flags()
    assert sorted(made.names) == sorted(["-h", "--help", *(
        f"--{'no-' if field.default is True else ''}{field.name.replace('_', '-')}"
        for field in dataclasses.fields(job.flags))])
    grouped = {name for group in GROUPS.values() for name in group}
    assert [field.name for field in dataclasses.fields(job.flags)
            if field.name not in grouped and not field.metadata["group"]] == []
    assert name in made.prog


def test_every_flag_that_a_heading_names_is_one_of_a_job():
    known = {field.name for job in train.JOBS.values() for field in dataclasses.fields(job.flags)}
    assert {name for names in GROUPS.values() for name in names} <= known


def test_the_parser_of_generate_has_the_flags_of_its_dataclass():
    assert generate.parser().parse([]) == generate.Flags()
