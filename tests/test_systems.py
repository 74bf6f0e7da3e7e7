"""Each row of the README's table of systems is run for a few steps: it learns, and the row is true."""

import re

import pytest

import train
from nn.jobs import sentences, text
from nn.models.vision import POOLS
from tests.systems import NAMES, README, ROWS, SMALL, TEXT, data_of, losses

# What a row says was reached: figures with their units.
REACHED = {
    "sentences": r"10 of 10 sentences, loss 0\.\d{4} nats", "text": r"validation loss \d\.\d\d+ nats",
    "names": r"(mean loss \d\.\d\d nats|the same losses), \d+(\.\d)? ms a step",
    "translate": r"\d\d(\.\d)? % of [\d,]+ held-out dates, loss \d\.\d{4} nats",
    "images": r"\d\d(\.\d)? % of [\d,]+ test images"}


def commands():
    """The commands of train.py that the README shows anywhere, without comments."""
    found = re.findall(r"(?:^|`|&& )python train\.py((?: [\w./-]+)*)", README, re.MULTILINE)
    return [tuple(words.split()) for words in found]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.words) or "default")
def test_a_few_steps_of_each_system_learn(row, folder, capsys):
    if row.job == "images" and row.flags.data is None:
        pytest.importorskip("sklearn")
    words = [str(data_of(row.job, folder)) if word in ("FILE", "DIR") else word for word in row.words]
    assert train.main([*words, *SMALL[row.job]]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"([\d,]+) parameters[,;]", printed).group(1) == row.parameters
    found = losses(printed)
    assert len(found) in (3, 6) and found[-1] < found[0] - 0.05
    assert re.fullmatch(REACHED[row.job], row.reached)


def test_every_preset_has_a_row():
    given = [(row.job, row.flags) for row in ROWS]
    assert {job for job, _ in given} == set(train.JOBS)
    assert {o.arch for job, o in given if job == "sentences"} == set(sentences.ARCHS)
    assert {o.arch for job, o in given if job == "text"} == set(text.SIZES)
    assert {(job, o.engine) for job, o in given if job in ("sentences", "images")} == {
        (job, engine) for job in ("sentences", "images") for engine in ("tape", "static")}
    assert {o.scalars for job, o in given if job == "names"} == {False, True}
    assert {o.data for job, o in given if job == "images"} == {None, "DIR"}
    assert {o.pool or "mean" for job, o in given if job == "images"} == set(POOLS)
    assert len({row.words for row in ROWS}) == len(ROWS)


def test_every_command_that_the_readme_shows_is_understood():
    shown = commands()
    assert {(), ("--engine", "static"), ("text", "--arch", "lstm")} <= set(shown)
    for name, *arguments in ([*words] if words[:1] and words[0] in train.JOBS else
                             [train.DEFAULT, *words] for words in shown):
        if arguments != ["--arch"]:                          # that of the prose, which names no one
            train.parser(name).parse(arguments)


def test_the_small_data_make_models_of_the_presets_size():
    """As many characters as Shakespeare has, and as the list of names with the line break."""
    assert (len(set(TEXT)), len({*NAMES})) == (65, 27)
