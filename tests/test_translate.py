"""train.py translate: the dates, a few steps, and the picture of the attention."""

import re
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest

import generate
import nn
import train
from nn.data.batches import padded_rows
from nn.data.dates import FIRST, LAST, PHRASINGS, date_pairs, in_words
from nn.jobs.translate import Flags, Translator, draw_attention
from tests.checks import peer, refused

SMALL = ("translate", "--dates", "30", "--held-out", "5", "--n-layer", "1", "--n-head", "2",
         "--n-embd", "8", "--batch-size", "4")
PAIRS = [("the third of march 1987", "1987-03-03"), ("may 1st 2001", "2001-05-01")]


# --- the dates ---


@pytest.mark.parametrize("phrasing, words", list(enumerate([
    "the third of march 1987", "march the third, 1987", "the 3rd of march, 1987", "march 3rd 1987",
    "3 march 1987", "mar 3, 1987", "in 1987, on march 3"])))
def test_a_date_in_each_phrasing(phrasing, words):
    assert in_words(date(1987, 3, 3), phrasing) == words and len(PHRASINGS) == 7


@pytest.mark.parametrize("day, ordinal, short", [
    (1, "first", "1st"), (2, "second", "2nd"), (11, "eleventh", "11th"), (12, "twelfth", "12th"),
    (13, "thirteenth", "13th"), (20, "twentieth", "20th"), (21, "twenty-first", "21st"),
    (22, "twenty-second", "22nd"), (29, "twenty-ninth", "29th"), (30, "thirtieth", "30th"),
    (31, "thirty-first", "31st")])
def test_days_in_words_and_figures(day, ordinal, short):
    assert in_words(date(2024, 1, day), 0) == f"the {ordinal} of january 2024"
    assert in_words(date(2024, 1, day), 3) == f"january {short} 2024"


def test_dates_are_a_pure_function_of_the_seed_and_the_held_out_ones_are_not_among_the_others():
    training, held_out = date_pairs(3000, 500, seed=1)
    assert (training, held_out) == date_pairs(3000, 500, seed=1)
    assert held_out == date_pairs(10, 500, seed=1)[1] != date_pairs(10, 500, seed=2)[1]
    days = [iso for _, iso in training + held_out]
    assert len(training) == 3000 and len(set(days)) == len(days) == 3500
    assert all(FIRST <= date.fromisoformat(day) <= LAST for day in days)
    for words, iso in held_out:
        assert words in {in_words(date.fromisoformat(iso), i) for i in range(len(PHRASINGS))}
    shares = np.bincount([[in_words(date.fromisoformat(iso), i) for i in range(7)].index(words)
                          for words, iso in training], minlength=7) / 3000
    assert shares.min() > 0.1


def test_all_dates_but_no_more():
    training, held_out = date_pairs(73_048, 1, 0)
    assert len({iso for _, iso in training + held_out}) == (LAST - FIRST).days + 1 == 73_049
    with pytest.raises(ValueError, match="at most 73,049 dates, .* got 73,049 to train on and 1 held"):
        date_pairs(73_049, 1, 0)


# --- the job ---


def test_rows_are_filled_up():
    rows = padded_rows([np.array([5, 6, 7]), np.array([8])], 9)
    np.testing.assert_array_equal(rows, [[5, 6, 7], [8, 9, 9]])


def test_a_batch_of_texts():
    translator = Translator(Flags(), PAIRS)
    vocabulary = translator.tokenizer.vocabulary
    source, target, targets = translator.batch([PAIRS[1], ("may", "2001")])
    assert vocabulary[:3] == ["<pad>", "<start>", "<stop>"] and len(vocabulary) == len(set(vocabulary))
    assert translator.tokenizer.decode(source[0]) == "may 1st 2001"
    np.testing.assert_array_equal(source[1, 3:], [0] * 9)
    np.testing.assert_array_equal(target[:, 0], [1, 1])
    np.testing.assert_array_equal(target[0, 1:], targets[0, :-1])
    assert translator.tokenizer.decode(targets[0, :-1]) == "2001-05-01" and targets[0, -1] == 2
    np.testing.assert_array_equal(targets[1, 4:], [2] + [-1] * 6)
    np.testing.assert_array_equal(target[1, 5:], [0] * 6)
    assert translator.model.config.block_size == len(PAIRS[0][0]) + 1


def test_a_few_steps_print_translations_and_save_a_checkpoint(folder, capsys):
    assert train.main([*SMALL, "--steps", "4", "--eval-interval", "2"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"  held out +0\.0%", out)) == 2
    assert len(re.findall(r"  ->  .*\(wrong: \d{4}-\d\d-\d\d\)", out)) == 5
    assert "0 of 5 held-out dates right in every character: 0.0%" in out
    assert max(map(len, re.sub(r" *->.*", "", out).splitlines())) <= 80
    found = nn.load_checkpoint("checkpoints/latest/last.npz")
    assert type(found.model) is nn.Seq2SeqTransformer and found.info["step"] == 4
    source = found.tokenizer.encode("march 3rd 1987")[None]
    ids = found.tokenizer.ids
    (row,) = nn.translate(found.model, source, ids["<start>"], ids["<stop>"], 3)
    assert len(row) <= 3
    path = "checkpoints/latest/last.npz"
    assert (f"{path} holds a Seq2SeqTransformer, which continues no text: it translates. In Python: "
            f"with model = nn.load_checkpoint({path!r}).model, nn.translate(model, source, start, stop)"
            ) in refused(capsys, generate.main, "--checkpoint", path, "--prompt", "may")


def test_dates_are_learned(folder, capsys):
    """A few weights learn which of two dates is meant, and say it in every character."""
    translator = Translator(Flags(n_layer=1, n_embd=16), PAIRS)
    optimizer = nn.AdamW(translator.model.parameters(), lr=0.01)
    for _ in range(60):
        _, loss = translator.model(*translator.batch(PAIRS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    texts, wanted = zip(*PAIRS)
    assert translator.translate(texts) == translator.translate(texts, at_once=1) == list(wanted)


# --- the picture ---


def test_the_attention_is_over_the_characters_read_for_each_character_written():
    translator = Translator(Flags(n_layer=2), PAIRS)
    weights = translator.attention(*PAIRS[0])
    assert weights.shape == (len(PAIRS[0][1]) + 1, len(PAIRS[0][0])) and translator.model.training
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    inputs, target, _ = translator.batch(PAIRS[:1])
    _, of_blocks = translator.model.decode(target, *translator.model.encode(inputs))
    np.testing.assert_allclose(weights, of_blocks[1].data[0].mean(axis=0), rtol=1e-6)


def test_the_picture_has_the_characters_of_both_texts_on_its_axes(folder, monkeypatch, capsys):
    figures = peer("matplotlib.figure")
    seen = []
    save = figures.Figure.savefig
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *a, **k: (
        seen.append(self), save(self, *a, **k)))
    assert train.main([*SMALL, "--steps", "1", "--show-attention", "new/a.PNG"]) == 0
    assert Path("new/a.PNG").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    source = re.search(r"saved new/a.PNG: the attention in this translation of '(.*)'", out).group(1)
    axes, colours = seen[0].axes
    assert "".join(t.get_text() for t in axes.get_xticklabels()) == source.replace(" ", "\u2423")
    assert axes.get_yticklabels()[-1].get_text() == "stop"
    assert axes.get_xlabel() == "character of the source"
    assert axes.get_ylabel() == "character written"
    assert axes.images[0].get_array().shape == (len(axes.get_yticks()), len(source))
    assert colours.get_ylabel() == "attention weight, mean of the heads\n(a row sums to 1)"


@pytest.mark.parametrize("source, target", [
    ("3 may 1987", "1987-05-03"), ("september the twenty-seventh, 1973", "1973-09-27"),
    ("3 may 1987", "")])
def test_all_of_the_picture_is_on_the_page_and_nothing_overlaps(source, target, monkeypatch):
    figures = peer("matplotlib.figure")
    seen = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *a, **k: seen.append(self))
    weights = np.full((len(target) + 1, len(source)), 1 / len(source))
    draw_attention(Path("a.png"), weights, source, target)
    (figure,) = seen
    figure.draw_without_rendering()
    axes, colours = figure.axes
    texts = [axes.title, axes.xaxis.label, axes.yaxis.label, colours.yaxis.label]
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    page = figure.bbox
    boxes = [text.get_window_extent() for text in texts + labels]
    for box in boxes:
        assert page.x0 <= box.x0 <= box.x1 <= page.x1 and page.y0 <= box.y0 <= box.y1 <= page.y1
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_without_matplotlib_the_message_says_how_to_get_it(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    error = refused(capsys, train.main, *SMALL, "--show-attention", "a.png")
    assert "matplotlib, which is not installed: pip install -e '.[pictures]'" in error


@pytest.mark.parametrize("name, message", [
    ("a.xyz", r"--show-attention: the name must end in one of .*\.png.*got 'a.xyz'"),
    ("file/a.png", "--show-attention: cannot make the folder file: File exists"),
    ("a/", "must name a file, got the folder 'a/'")])
def test_a_picture_that_cannot_be_written_is_refused_before_the_training(name, message, folder, capsys):
    peer("matplotlib")
    (folder / "file").touch()
    assert re.search(message, refused(capsys, train.main, *SMALL, "--show-attention", name))


@pytest.mark.parametrize("arguments, message", [
    (["--dates", "73049", "--held-out", "1"], "at most 73,049 dates"),
    (["--n-head", "3", "--dates", "5"], "--n-head must divide --n-embd, got 3 and 64")])
def test_what_does_not_fit_is_refused(arguments, message, folder, capsys):
    assert message in refused(capsys, train.main, "translate", *arguments)
