"""The smallest GPT: `ScalarGPT` against `GPT` and a reference, `train.py names` and what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

import generate
import nn
import train
from nn.data.text import python_words, read_lines
from nn.jobs import names
from nn.models.scalar_gpt import WRITTEN
from tape import gradcheck, show
from tests.checks import ROOT, in_float64, refused

README = (ROOT / "README.md").read_text(encoding="utf-8")
IDX, TARGETS = np.array([[2, 0, 4, 1, 1]]), np.array([[0, 4, 1, 1, 3]])


def example(**more):
    """A GPT whose norms have weights other than 1, in float64, and the same of scalars."""
    sizes = dict(vocab_size=5, block_size=6, n_layer=2, n_head=2, n_embd=4)
    config = nn.GPTConfig(**{**WRITTEN, **sizes, **more})
    model = in_float64(nn.GPT(config, rng=0))
    rng = np.random.default_rng(1)
    model.load_state_dict({name: rng.normal(0.5, 0.5, p.shape) for name, p in model.named_parameters()})
    return model, nn.ScalarGPT(config, model.state_dict())


def by_arrays(state, idx, targets, n_layer=2, n_head=2):
    """The loss, written with arrays and a mask from the formulas of the docstring."""
    def norm(name, x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * state[f"{name}.weight"]

    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    x = state["tokens.weight"][idx[0]] + state["positions.weight"][:idx.shape[1]]
    later = np.triu(np.full((len(x), len(x)), -np.inf), 1)
    for i in range(n_layer):
        h = norm(f"blocks.{i}.norm1", x)
        q, k, v = (np.split(h @ state[f"blocks.{i}.attention.{name}.weight"], n_head, axis=1)
                   for name in ("query", "key", "value"))
        heads = [softmax(q_h @ k_h.T / np.sqrt(q_h.shape[1]) + later) @ v_h
                 for q_h, k_h, v_h in zip(q, k, v)]
        x = x + np.concatenate(heads, axis=1) @ state[f"blocks.{i}.attention.output.weight"]
        hidden = norm(f"blocks.{i}.norm2", x) @ state[f"blocks.{i}.feed_forward.hidden.weight"]
        x = x + np.maximum(hidden, 0) @ state[f"blocks.{i}.feed_forward.output.weight"]
    p = softmax(norm("norm", x) @ state["head.weight"])
    return -np.log(p[np.arange(len(x)), targets[0]]).mean()


def test_logits_loss_and_gradients_of_scalars_are_those_of_arrays():
    model, scalars = example()
    logits, loss = model(IDX, TARGETS)
    rows, scalar_loss = scalars(IDX, TARGETS)
    np.testing.assert_allclose([[x.item() for x in row] for row in rows], logits.data[0], rtol=1e-12)
    assert scalar_loss.item() == pytest.approx(loss.item(), rel=1e-12)
    assert loss.item() == pytest.approx(by_arrays(model.state_dict(), IDX, TARGETS), rel=1e-12)
    loss.backward()
    scalar_loss.backward()
    for name, parameter in model.named_parameters():
        weight = scalars.weights[name]
        found = [0.0 if x.grad is None else x.grad
                 for row in (weight if parameter.ndim == 2 else [weight]) for x in row]
        np.testing.assert_allclose(found, parameter.grad.ravel(), rtol=1e-9, atol=1e-13, err_msg=name)
    assert scalars(IDX)[1] is None


def test_derivatives_of_scalars_by_differences():
    _, scalars = example(n_layer=1, n_embd=2, n_head=1)
    matrix = scalars.weights["blocks.0.attention.key.weight"]

    def loss(*values):
        matrix[0][:], matrix[1][:] = values[:2], values[2:]
        return scalars(IDX, TARGETS)[1]
    assert gradcheck(loss, [x.data for row in matrix for x in row], tolerance=1e-6)


def test_the_arrays_come_back_and_float32_stays_float32():
    config = nn.GPTConfig(5, 6, n_layer=1, n_head=2, n_embd=4, **WRITTEN)
    model = nn.GPT(config, rng=0)
    scalars = nn.ScalarGPT(config, model.state_dict())
    for name, array in scalars.arrays().items():
        np.testing.assert_array_equal(array, model.state_dict()[name])
    loss = scalars(IDX, TARGETS)[1]
    loss.backward()
    dtypes = {p.grad.dtype for p in scalars.parameters() if p.grad is not None}
    assert dtypes == {loss.dtype} == {a.dtype for a in scalars.arrays().values()} == {
        np.dtype(np.float32)}
    assert len(scalars.parameters()) == model.parameter_count()


@pytest.mark.parametrize("setting, value", [
    ("bias", True), ("norm", "post"), ("activation", "gelu"), ("position", "none"), ("n_kv_head", 1),
    ("tie_weights", True), ("norm_kind", "layer"), ("dropout", 0.1)])
def test_other_settings_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"ScalarGPT: {setting} must be .*, got {value!r}"):
        example(**{setting: value})


@pytest.mark.parametrize("idx, targets, message", [
    (np.zeros((2, 3), int), None, r"idx must be one sequence, .* = 6, got shape \(2, 3\)"),
    (np.zeros((1, 7), int), None, r"got shape \(1, 7\)"), (np.zeros((1, 0), int), None, "from 1"),
    (np.zeros(3, int), None, r"got shape \(3,\)"), ([[5]], None, r"idx must be integers in \[0, 5\)"),
    ([[-1]], None, "got .*-1"), ([[0.5]], None, "idx must be integers"),
    ([[1]], [[-1]], "targets must be integers"),
    ([[1, 2]], [[1]], r"shape of idx, \(1, 2\), got \(1, 1\)")])
def test_what_is_not_a_sequence_is_refused(idx, targets, message):
    with pytest.raises(ValueError, match=message):
        example()[1](idx, targets)


def losses(out):
    return [float(loss) for loss in re.findall(r"^step.* loss +(\S+)   mean", out, re.MULTILINE)]


def invented(out):
    return re.search(r"20 invented names, .*\n((?:  .*\n){20})", out).group(1)


def test_both_versions_have_the_same_losses_and_invent_the_same(folder, monkeypatch, capsys):
    engines = []

    class Kept(names.Recorded):
        def __init__(self, *args):
            super().__init__(*args)
            engines.append(self)
    monkeypatch.setattr(names, "Recorded", Kept)
    words = folder / "words"
    words.write_text("anna\n\n bob \nclara\nbo\n", encoding="utf-8")
    arguments = ["names", "--data", str(words), "--steps", "8", "--log-interval", "1"]
    assert train.main(arguments) == 0
    on_arrays = capsys.readouterr().out
    assert train.main([*arguments, "--scalars", "--out", "s"]) == 0
    on_scalars = capsys.readouterr().out
    arrays, scalars = engines
    assert isinstance(scalars.model, nn.ScalarGPT) and isinstance(arrays.model, nn.GPT)
    assert len(arrays.losses) == 8 and arrays.losses[-1] < arrays.losses[0]
    np.testing.assert_allclose(scalars.losses, arrays.losses, rtol=1e-4)
    assert losses(on_arrays) == pytest.approx(arrays.losses, abs=1e-4)
    assert invented(on_scalars) == invented(on_arrays)
    assert "4 names, one at each step\n" in on_arrays and "longer" not in on_arrays
    found = [nn.load_checkpoint(path).model.state_dict() for path in (
        "checkpoints/latest/last.npz", "s/last.npz")]
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, rtol=1e-2, atol=1e-5, err_msg=name)


def test_it_learns_and_generate_continues_a_name(folder, capsys):
    Path("words").write_text("\n".join(["anna", "anton", "bob"] * 10), encoding="utf-8")
    train.main(["names", "--data", "words", "--steps", "300"])
    out = capsys.readouterr().out
    assert float(re.search(r"mean loss (\S+) of the last 100 steps; \S+ ms a step", out).group(1)) < 0.8
    assert "bob" in invented(out).split()
    assert generate.main(["--prompt", "b", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "bob\n"
    assert generate.main(["--temperature", "0"]) == 0
    assert capsys.readouterr().out in ("anna\n", "anton\n", "bob\n")
    assert "character 'x' at position 1" in refused(capsys, generate.main, "--prompt", "bx")


def test_long_names_are_cut_and_a_line_says_so(folder, capsys):
    Path("words").write_text("abcd\nabc\nab", encoding="utf-8")
    assert train.main(["names", "--data", "words", "--steps", "1", "--block-size", "4"]) == 0
    assert ("3 names, one at each step\nlonger than 3 characters, and cut there: 1\n"
            in capsys.readouterr().out)
    flags = names.Flags(block_size=4, seed=0)
    tokenizer = nn.CharTokenizer("\nabcd")
    one = names.batches(flags, ["abcd"], tokenizer)
    inputs, targets = next(one)
    assert [tokenizer.decode(row) for row in (inputs[0], targets[0])] == ["\nabc", "abcd"]
    inputs, targets = next(names.batches(flags, ["abc"], tokenizer))
    assert [tokenizer.decode(row) for row in (inputs[0], targets[0])] == ["\nabc", "abc\n"]


def test_each_name_comes_once_before_any_comes_again():
    tokenizer = nn.CharTokenizer("\nabcdefgh")
    found = names.batches(names.Flags(), list("abcdefgh"), tokenizer)
    rounds = [[tokenizer.decode(next(found)[1][0])[0] for _ in range(8)] for _ in range(2)]
    assert sorted(rounds[0]) == sorted(rounds[1]) == list("abcdefgh") and rounds[0] != rounds[1]


def test_the_rate_falls_linearly_to_nothing(folder, monkeypatch, capsys):
    rates = []
    update = names.Recorded.update
    monkeypatch.setattr(names.Recorded, "update", lambda self, step, batch, lr: (
        rates.append(lr), update(self, step, batch, lr))[1])
    train.main(["names", "--steps", "4", "--lr", "0.02"])
    assert rates == pytest.approx([0.02, 0.015, 0.01, 0.005])


def test_an_empty_file_and_a_missing_one_are_refused(folder, capsys):
    Path("empty").write_text(" \n\n", encoding="utf-8")
    assert "empty is empty" in refused(capsys, train.main, "names", "--data", "empty")
    assert "there is no file none" in refused(capsys, train.main, "names", "--data", "none")
    assert "--n-head must divide" in refused(capsys, train.main, "names", "--n-head", "3")


def test_lines_and_words(folder):
    Path("lines").write_bytes("\ufeff b \r\n\r\nä c\n".encode())
    assert read_lines("lines") == ["b", "ä c"]
    words = python_words()
    assert len(words) > 1000 and words == sorted(set(words)) and "lambda" in words
    assert all(re.fullmatch("[a-z]{2,}", word) for word in words)


def test_the_default_run_learns_the_words_of_python(folder, capsys):
    assert train.main(["names"]) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"mean loss (\S+) of the last 100 steps", out).group(1)) < 2.7
    assert re.search(r"of which (\d+) are not among those learned", out).group(1) != "0"


def test_scalars_leave_as_many_records_as_the_readme_says():
    config = nn.GPTConfig(vocab_size=27, block_size=16, n_layer=1, n_head=4, n_embd=16, **WRITTEN)
    idx = np.arange(8)[None]                                     # a name of six characters
    _, loss = nn.ScalarGPT(config, nn.GPT(config, rng=0).state_dict())(idx[:, :-1], idx[:, 1:])
    records = int(show(loss).splitlines()[-1].split()[0].replace(",", ""))
    said = int(re.search(r"some ([\d,]+) records", README).group(1).replace(",", ""))
    assert records / 7 == pytest.approx(said, rel=0.02)
