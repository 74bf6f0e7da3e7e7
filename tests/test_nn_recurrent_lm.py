"""The recurrent language model: its formula, its checkpoints, and `train.py text --arch`."""

import re
from pathlib import Path

import numpy as np
import pytest

import generate
import nn
import train
from nn.jobs import text
from tape import gradcheck
from tests.checks import Recorder, in_float64, refused, replaced_parameters
from tests.reference_recurrent import STEPS, arrays_of, by_loops

CELLS = pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
SIZES = dict(vocab_size=7, block_size=5, n_layer=2, n_embd=3)
IDX, TARGETS = np.random.default_rng(0).integers(0, 7, (2, 2, 5))
TARGETS[1, 3:] = -1


def example(cell, **changes):
    return in_float64(nn.RecurrentLM(nn.RecurrentConfig(**{**SIZES, **changes}, cell=cell), rng=0))


@CELLS
def test_logits_and_loss_equal_loops(cell):
    model = example(cell)
    logits, loss = model(IDX, TARGETS)
    net, x = model.recurrent, model.tokens.weight.data[IDX]
    out, _ = by_loops(STEPS[type(net)], x, arrays_of(net), np.zeros((len(net.parts), 2, 2, 3)))
    wanted = out @ model.head.weight.data + model.head.bias.data
    np.testing.assert_allclose(logits.data, wanted, rtol=1e-12)
    losses = [np.log(np.exp(row).sum()) - row[t] for row, t in
              zip(wanted.reshape(-1, 7), TARGETS.ravel()) if t != -1]
    assert len(losses) == 8 and loss.item() == pytest.approx(np.mean(losses), rel=1e-12)
    assert model(IDX)[1] is None


@CELLS
def test_gradients_of_first_and_second_order_by_differences(cell):
    model = example(cell, n_layer=1)               # of layers on layers see test_nn_recurrent.py
    replace = replaced_parameters(model)
    assert gradcheck(lambda *arrays: replace(arrays)(IDX, TARGETS)[1],
                     [parameter.data for parameter in model.parameters()], order=2, tolerance=1e-6)


@CELLS
def test_float32_stays_float32(cell):
    model = nn.RecurrentLM(nn.RecurrentConfig(**SIZES, cell=cell, dropout=0.2), rng=0)
    logits, loss = model(IDX, TARGETS)
    loss.backward()
    assert {a.dtype for a in (logits, loss, *(p.grad for p in model.parameters()))} == {
        np.dtype(np.float32)}


@CELLS
@pytest.mark.parametrize("n_layer", [1, 3])
def test_the_shapes_are_known_without_the_model(cell, n_layer):
    config = nn.RecurrentConfig(7, 5, cell, n_layer, 4)
    model = nn.RecurrentLM(config, rng=0)
    assert list(config.parameter_shapes()) == [(name, p.shape) for name, p in model.named_parameters()]


@CELLS
def test_a_checkpoint_comes_back_whole_and_is_continued(cell, tmp_path):
    model = nn.RecurrentLM(nn.RecurrentConfig(**SIZES, cell=cell, dropout=0.5), rng=0).eval()
    path = nn.save_checkpoint(tmp_path / "a.npz", model, nn.CharTokenizer("abcdefg"), {"step": 3})
    found = nn.load_checkpoint(path)
    assert found.model.config == model.config and type(found.model) is nn.RecurrentLM
    np.testing.assert_array_equal(found.model(IDX)[0].data, model(IDX)[0].data)
    ids = [1, 2]
    for token in nn.generate(found.model, [1, 2], 9, temperature=0):       # past the block of 5
        assert token == model(np.array([ids]))[0].data[0, -1].argmax()
        ids.append(token)
    assert len(ids) == 11


def test_the_newest_checkpoint_is_that_of_any_language_model(tmp_path):
    nn.save_checkpoint(tmp_path / "a.npz", nn.RecurrentLM(nn.RecurrentConfig(**SIZES), rng=0))
    assert nn.newest_checkpoint(tmp_path) == nn.newest_checkpoint(tmp_path, "RecurrentLM") == (
        tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="of a GPT$"):
        nn.newest_checkpoint(tmp_path, "GPT")
    (tmp_path / "a.npz").unlink()
    config = nn.VisionConfig((4, 4), 2, 3, n_layer=1, n_head=2, n_embd=8)
    nn.save_checkpoint(tmp_path / "b.npz", nn.VisionTransformer(config, rng=0))
    with pytest.raises(FileNotFoundError, match="of a GPT or a RecurrentLM$"):
        nn.newest_checkpoint(tmp_path)


def test_dropout_is_on_the_way_in_and_out_and_between_layers():
    model = nn.RecurrentLM(nn.RecurrentConfig(**SIZES, dropout=0.5), rng=0)
    outer, inner = model.dropout, model.recurrent.dropout
    outer.forward, inner.forward = Recorder(outer.forward), Recorder(inner.forward)
    model(IDX)
    assert outer.p == inner.p == 0.5
    assert [args[0].shape for args, _ in outer.forward.calls] == [(2, 5, 3)] * 2
    assert len(inner.forward.calls) == 1
    assert (model(IDX)[0].data != model(IDX)[0].data).any()


@pytest.mark.parametrize("change, message", [
    ({"cell": "elman"}, "cell must be one of rnn, lstm, gru, got 'elman'"),
    ({"n_embd": 0}, "n_embd must be a positive integer, got 0"),
    ({"n_layer": 1.0}, "n_layer must be a positive integer, got 1.0")])
def test_a_configuration_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=f"RecurrentConfig: {message}"):
        nn.RecurrentConfig(**{**SIZES, **change})


def test_ids_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"RecurrentLM: idx must be .* \(B, T\), got shape \(5,\)"):
        example("rnn")(IDX[0])


# --- train.py text --arch ---


@pytest.fixture
def data(folder):
    (folder / "small.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    return ["text", "--data", "small.txt", "--block-size", "16"]


@CELLS
def test_the_text_is_learned_saved_and_continued(cell, data, capsys):
    arguments = [*data, "--arch", cell, "--n-layer", "1", "--n-embd", "24", "--steps", "120",
                 "--warmup", "5", "--lr", "0.01"]
    assert train.main(arguments) == 0
    loss = float(re.search(r"validation loss (\d\.\d+)", capsys.readouterr().out).group(1))
    assert 0.1 < loss < 1.5          # letter frequencies alone give 3.0
    assert nn.load_checkpoint("checkpoints/latest/best.npz").model.config.cell == cell
    assert generate.main(["--prompt", "the q", "--max-new-tokens", "7", "--temperature", "0"]) == 0
    generated = capsys.readouterr().out
    assert generated.startswith("the q") and len(generated) == 5 + 7 + 1


def test_every_flag_reaches_the_recurrent_model(data, monkeypatch, capsys):
    recorder = Recorder(nn.RecurrentConfig)
    monkeypatch.setattr(nn, "RecurrentConfig", recorder)
    train.main([*data, "--arch", "gru", "--n-layer", "3", "--n-embd", "8", "--dropout", "0.25",
                "--steps", "1"])
    assert recorder.calls[0][1] == {"vocab_size": 28, "block_size": 16, "cell": "gru", "n_layer": 3,
                                    "n_embd": 8, "dropout": 0.25}


def test_by_default_the_models_have_about_as_many_parameters():
    counts = {arch: text.make_model(text.with_sizes(text.Flags(arch=arch)), 65).parameter_count()
              for arch in text.SIZES}
    assert counts.keys() == {"gpt", "rnn", "lstm", "gru"} and counts["gpt"] == 804_096
    assert all(abs(count / counts["gpt"] - 1) < 0.01 for count in counts.values())


@CELLS
def test_a_flag_without_meaning_is_refused(cell, data, capsys):
    assert f"--n-head is not for --arch {cell}, which has no attention" in refused(
        capsys, train.main, *data, "--arch", cell, "--n-head", "4")
    assert not Path("checkpoints").exists()


def test_an_unknown_arch_is_refused(data, capsys):
    assert "--arch: invalid choice: 'ltsm'" in refused(capsys, train.main, *data, "--arch", "ltsm")
