"""Encoder and decoder blocks and the Transformer of both: plain NumPy, differences, padding, files."""

import numpy as np
import pytest

import nn
from nn.layers.init import scheme
from nn.layers.position import position_layer
from nn.training.checkpoint.configuration import config_from_dict
from nn.training.engines import TapeEngine
from tape import gradcheck
from tests.checks import differences, in_float64, leaf, replaced_parameters

SIZES = dict(source_vocab_size=6, target_vocab_size=5, block_size=5, n_layer=2, n_head=2, n_embd=4)
SOURCE = np.array([[1, 4, 2, 5, 3], [3, 2, 1, 0, 0]])
TARGET = np.array([[1, 3, 4, 2], [1, 2, 0, 0]])
TARGETS = np.array([[3, 4, 2, 4], [2, 3, -1, -1]])
NORMS = pytest.mark.parametrize("norm", ["pre", "post"])


def example(**settings):
    """In float64, with biases and norms that are not at 0 and 1."""
    model = in_float64(nn.Seq2SeqTransformer(nn.Seq2SeqConfig(**{**SIZES, **settings}), rng=0))
    rng = np.random.default_rng(3)
    for p in model.parameters():
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    return model


# --- the model of section 3 in plain NumPy, row by row and head by head; w holds the parameters ---


def normed(w, name, x):
    centred = x - x.mean(-1, keepdims=True)
    std = np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5)
    return centred / std * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w, name, x):
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def attended(w, name, x, context, allowed, heads):
    q, k, v = (linear(w, f"{name}.{part}", a) for part, a in
               (("query", x), ("key", context), ("value", context)))
    D, mixed = x.shape[-1] // heads, []
    for h in range(heads):
        at = slice(h * D, (h + 1) * D)
        e = np.where(allowed, np.exp(q[:, at] @ k[:, at].T / np.sqrt(D)), 0)
        mixed.append(e / e.sum(-1, keepdims=True) @ v[:, at])
    return linear(w, f"{name}.output", np.concatenate(mixed, -1))


def block(w, name, x, c, own, context=None, seen=None):
    """One block; with a context one of the decoder."""
    sublayers = [("norm1", lambda y: attended(w, f"{name}.attention", y, y, own, c.n_head))]
    if context is not None:
        sublayers.append(("cross_norm", lambda y: attended(
            w, f"{name}.cross_attention", y, context, seen, c.n_head)))
    sublayers.append(("norm2", lambda y: linear(w, f"{name}.feed_forward.output", np.maximum(
        linear(w, f"{name}.feed_forward.hidden", y), 0))))
    for norm, sublayer in sublayers:
        norm = f"{name}.{norm}"
        x = (x + sublayer(normed(w, norm, x)) if c.norm == "pre" else
             normed(w, norm, x + sublayer(x)))
    return x


def embedded(w, side, ids, c):
    t, i = np.arange(len(ids))[:, None], np.arange(c.n_embd // 2)
    angle = t / 10000 ** (2 * i / c.n_embd)
    table = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(len(ids), -1)
    return w[f"{side}_tokens.weight"][ids] + table


def by_hand(w, c, source, target):
    """The logits of one row, without any padding that it may have at its ends."""
    x, y = embedded(w, "source", source, c), embedded(w, "target", target, c)
    for i in range(c.n_layer):
        x = block(w, f"encoder.blocks.{i}", x, c, True)
    x = normed(w, "encoder.norm", x) if c.norm == "pre" else x
    for i in range(c.n_layer):
        y = block(w, f"blocks.{i}", y, c, np.tri(len(y), dtype=bool), x, True)
    y = normed(w, "norm", y) if c.norm == "pre" else y
    return y @ w["head.weight"]


def loss_by_hand(w, c):
    losses = []
    for source, target, targets in zip(SOURCE, TARGET, TARGETS):
        logits = by_hand(w, c, source[source > 0], target[target > 0])
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        losses += [-np.log(row[t]) for row, t in zip(p, targets) if t != -1]
    return np.mean(losses)


@NORMS
def test_logits_are_those_of_the_paper_written_in_numpy(norm):
    model = example(norm=norm)
    logits, loss = model(SOURCE, TARGET, TARGETS)
    assert logits.shape == (2, 4, 5)
    for row, source, target in zip(logits.data, SOURCE, TARGET):
        source, target = source[source > 0], target[target > 0]
        np.testing.assert_allclose(row[:len(target)], by_hand(model.state_dict(), model.config, source,
                                                              target), rtol=1e-10, atol=1e-12)
    assert loss.item() == pytest.approx(loss_by_hand(model.state_dict(), model.config), rel=1e-12)
    assert model(SOURCE, TARGET)[1] is None


@NORMS
def test_gradients_are_differences_of_the_loss_in_numpy(norm):
    model = example(norm=norm, n_layer=1)
    model(SOURCE, TARGET, TARGETS)[1].backward()
    names, parameters = zip(*model.named_parameters())
    arrays = [p.data.copy() for p in parameters]
    for i, (name, p) in enumerate(zip(names, parameters)):
        slope = differences(lambda *a: loss_by_hand(dict(zip(names, a)), model.config), arrays, i)
        np.testing.assert_allclose(p.grad, slope, rtol=1e-6, atol=1e-8, err_msg=name)


def test_gradients_of_other_settings_by_differences():
    model = example(n_layer=1, position="learned", activation="gelu", bias=False)
    replace = replaced_parameters(model)
    assert gradcheck(lambda *arrays: replace(arrays)(SOURCE, TARGET, TARGETS)[1],
                     [p.data for p in model.parameters()], tolerance=1e-6)


@NORMS
def test_float32_stays_float32(norm):
    model = nn.Seq2SeqTransformer(nn.Seq2SeqConfig(**SIZES, dropout=0.1, norm=norm), rng=0)
    logits, loss = model(SOURCE, TARGET, TARGETS)
    loss.backward()
    assert {a.dtype for a in (logits, loss, *(p.grad for p in model.parameters()))} == {
        np.dtype(np.float32)}


# --- padding and order ---


@NORMS
def test_padded_positions_change_nothing(norm):
    model = example(norm=norm, block_size=9)
    source, target, targets = SOURCE[1:, :3], TARGET[1:, :2], TARGETS[1:, :2]
    logits, loss = model(source, target, targets)
    loss.backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    longer, loss_of_longer = model(np.pad(source, ((0, 0), (0, 4))), np.pad(target, ((0, 0), (0, 3))),
                                   np.pad(targets, ((0, 0), (0, 3)), constant_values=-1))
    loss_of_longer.backward()
    np.testing.assert_allclose(longer.data[:, :2], logits.data, rtol=1e-12, atol=1e-13)
    assert loss_of_longer.item() == pytest.approx(loss.item(), rel=1e-12)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad, wanted[name], rtol=1e-9, atol=1e-13, err_msg=name)
    assert (np.abs(model(SOURCE[:1], target)[0].data - logits.data) > 1e-6).all()


@NORMS
def test_padding_inside_a_target_is_not_seen_either(norm):
    model = example(norm=norm)
    memory = model.encode(SOURCE[:1])
    before = model.decode([[1, 0, 3]], *memory)[0].data
    model.target_tokens.weight.data[0, 0] += 5.0     # not the whole row: a layer norm would undo that
    after = model.decode([[1, 0, 3]], *memory)[0].data
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    assert (after[:, 1] != before[:, 1]).any()


def test_another_padding_id():
    model = example(padding_id=3)
    source, swap = SOURCE[1:], np.array([3, 1, 2, 0, 4, 5])
    tokens = model.source_tokens.weight
    wanted = example().encode(source)[0].data
    tokens.data = tokens.data[swap]
    np.testing.assert_array_equal(model.encode(swap[source])[0].data, wanted)


def test_a_target_position_sees_itself_and_what_is_before_it():
    model = example()
    changed = TARGET[:1].copy()
    changed[0, 2] = 1
    one, other = (model(SOURCE[:1], target)[0].data[0] for target in (TARGET[:1], changed))
    np.testing.assert_array_equal(one[:2], other[:2])
    assert (one[2:] != other[2:]).all()


def test_the_weights_of_attention_are_over_the_source_alone():
    model = example()
    _, weights = model.decode(TARGET, *model.encode(SOURCE))
    assert [w.shape for w in weights] == [(2, 2, 4, 5)] * 2
    for w in weights:
        np.testing.assert_allclose(w.data.sum(-1), 1)
        assert (w.data[1, :, :, 3:] == 0).all()


# --- the blocks by themselves ---


def test_an_encoder_block_is_the_block_without_a_causal_mask():
    x = np.random.default_rng(1).standard_normal((2, 3, 8))
    settings = dict(d_hidden=5, norm="post", activation="gelu", bias=False, rng=4)
    one, other = nn.TransformerEncoderBlock(8, 2, **settings), nn.TransformerBlock(8, 2, **settings)
    np.testing.assert_array_equal(one(leaf(x)).data, other(leaf(x)).data)
    assert not one.attention.causal


def test_a_decoder_block_returns_its_weights_and_asks_for_a_context():
    rng = np.random.default_rng(1)
    x, context = leaf(rng.standard_normal((2, 3, 8))), leaf(rng.standard_normal((2, 4, 8)))
    decoder = in_float64(nn.TransformerDecoderBlock(8, 2, rng=0))
    out, weights = decoder(x, context=context, return_weights=True)
    np.testing.assert_array_equal(decoder(x, context=context).data, out.data)
    assert weights.shape == (2, 2, 3, 4)
    with pytest.raises(ValueError, match="context must be a Tensor .*got None. Give context=encoder"):
        decoder(x)


def test_a_scheme_draws_every_matrix_of_a_decoder_block_anew():
    decoder = nn.TransformerDecoderBlock(8, 2, rng=0)
    before = decoder.state_dict()
    decoder.initialise(scheme("xavier-he", 1), np.random.default_rng(1))
    after = decoder.state_dict()
    changed = [name for name in before if (before[name] != after[name]).any()]
    assert changed == [name for name in before if before[name].ndim == 2]


def test_dropout_is_on_the_embeddings_and_every_sublayer():
    model = nn.Seq2SeqTransformer(nn.Seq2SeqConfig(**SIZES, dropout=0.5), rng=0)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(found) == 1 + 2 * 2 + 2 * 3 and {module.p for module in found} == {0.5}
    assert (model(SOURCE, TARGET)[0].data != model(SOURCE, TARGET)[0].data).any()


# --- training, translating, files, mistakes ---


def trained():
    """A model that has learned to write a source backwards: 1 begins, 2 ends."""
    rng = np.random.default_rng(0)
    model = nn.Seq2SeqTransformer(nn.Seq2SeqConfig(6, 6, 5, 1, 2, 32), rng=0)
    engine = TapeEngine(model, nn.AdamW(model.parameters()), micro_batch_size=None)
    for step in range(1, 151):
        source = rng.integers(3, 6, (32, 3))
        engine.update(step, with_ends(source, source[:, ::-1]), 0.01)
    return model


def with_ends(source, target):
    ends = np.pad(target, ((0, 0), (1, 1)))
    ends[:, 0], ends[:, -1] = 1, 2
    return source, ends[:, :-1], ends[:, 1:]


def test_a_trained_model_translates_and_a_file_of_it_too(tmp_path):
    model = trained()
    source = np.array([[3, 4, 5], [5, 5, 3], [4, 3, 3]])
    wanted = source[:, ::-1].tolist()
    assert nn.translate(model, source, start=1, stop=2) == wanted
    assert nn.translate(model, source[0][None].tolist(), 1, 2) == wanted[:1]
    assert nn.translate(model, source, 1, 2, max_new_tokens=2) == [row[:2] for row in wanted]
    found = nn.load_checkpoint(nn.save_checkpoint(tmp_path / "a.npz", model)).model
    assert type(found) is nn.Seq2SeqTransformer and found.config == model.config
    assert nn.translate(found, source, 1, 2) == wanted and model.training


def test_translate_takes_the_likeliest_token_of_the_whole_model():
    model, ids = example(), [[1]]
    for token in nn.translate(model, SOURCE[:1], start=1, stop=99)[0][:4]:
        assert token == model(SOURCE[:1], ids)[0].data[0, -1].argmax()
        ids[0].append(token)
    assert len(ids[0]) == 5
    with pytest.raises(ValueError, match=r"max_new_tokens must be in \[1, 5\], the block_size, got 6"):
        nn.translate(model, SOURCE, 1, 2, 6)


def test_micro_batches_of_several_inputs_give_the_gradients_of_the_batch():
    found = []
    for size in (None, 1):
        model = example()
        TapeEngine(model, nn.SGD(model.parameters(), lr=0.1), 1e9, size).update(
            1, (SOURCE, TARGET, TARGETS), 0.1)
        found.append(model.state_dict())
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-10, atol=1e-12)


@NORMS
@pytest.mark.parametrize("position", ["sinusoidal", "learned"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_shapes_are_known_without_the_model(norm, position, bias):
    config = nn.Seq2SeqConfig(6, 5, 4, 3, 2, 8, norm=norm, position=position, bias=bias, d_ff=5)
    model = nn.Seq2SeqTransformer(config, rng=0)
    assert list(config.parameter_shapes()) == [(name, p.shape) for name, p in model.named_parameters()]


@pytest.mark.parametrize("padding_id", [0, 4])
def test_the_padding_id_travels_in_checkpoints(padding_id, tmp_path):
    model = nn.Seq2SeqTransformer(nn.Seq2SeqConfig(**SIZES, padding_id=padding_id), rng=0)
    found = nn.load_checkpoint(nn.save_checkpoint(tmp_path / "a.npz", model)).model
    assert found.config.padding_id == padding_id


@pytest.mark.parametrize("padding_id", [-1, False, 0.0, "0"])
def test_a_padding_id_in_a_file_that_is_no_token_is_refused(padding_id):
    with pytest.raises(nn.CheckpointError, match="padding_id must be an integer from 0, got"):
        config_from_dict("Seq2SeqTransformer", {**SIZES, "padding_id": padding_id})


def test_a_table_of_sinusoids_that_a_file_asks_for_has_a_limit():
    with pytest.raises(nn.CheckpointError, match=r"block_size \* n_embd must be at most"):
        config_from_dict("Seq2SeqTransformer", {**SIZES, "block_size": 2 ** 40})


def test_positions_by_name():
    assert type(position_layer("learned", 4, 8, 0)) is nn.LearnedPositionalEncoding
    assert type(position_layer("sinusoidal", 4, 8)) is nn.SinusoidalPositionalEncoding
    with pytest.raises(ValueError, match=r"one of \['learned', 'sinusoidal'\], got 'none'"):
        position_layer("none", 4, 8)


def test_a_tokenizer_is_saved_with_a_model_both_of_whose_sides_it_serves(tmp_path):
    for source, target in ((5, 5), (6, 5)):
        config = nn.Seq2SeqConfig(**{**SIZES, "source_vocab_size": source, "target_vocab_size": target})
        model, tokenizer = nn.Seq2SeqTransformer(config, rng=0), nn.CharTokenizer("_<>ab")
        if source == target:
            path = nn.save_checkpoint(tmp_path / "a.npz", model, tokenizer)
            assert nn.load_checkpoint(path).tokenizer.vocabulary == list("_<>ab")
        else:
            with pytest.raises(nn.CheckpointError, match="5 tokens for a vocabulary of 0"):
                nn.save_checkpoint(tmp_path / "b.npz", model, tokenizer)


@pytest.mark.parametrize("change, message", [
    ({"padding_id": 5}, r"padding_id must be a token of both sides, .*\[0, 5\), got 5"),
    ({"padding_id": -1}, "padding_id must be"), ({"n_layer": 0}, "n_layer must be a positive integer"),
    ({"n_head": 3}, "n_head must divide n_embd, got 3 and 4"), ({"norm": "mid"}, "norm must be one of"),
    ({"position": "rotary"}, "position must be one of"), ({"activation": "swiglu"}, "activation must")])
def test_a_configuration_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=f"Seq2SeqConfig: {message}"):
        nn.Seq2SeqConfig(**{**SIZES, **change})


@pytest.mark.parametrize("arguments, message", [
    ((SOURCE[0], TARGET), r"source must be .* \(B, n\) with n at most .* = 5, got shape \(5,\)"),
    ((SOURCE, np.ones((2, 6), int)), r"target must be .*got shape \(2, 6\)"),
    ((SOURCE, TARGET[:1]), r"x and context must have shapes")])
def test_ids_of_other_shapes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        example()(*arguments)
