"""A text that is read in pieces, with a cache, gives what it gives when it is read at once."""

import itertools

import numpy as np
import pytest

import nn
from nn.layers.cache import DecoderCache
from nn.models.gpt import POSITIONS
from tape import no_grad
from tests.checks import in_float64, leaf

SIZES = dict(vocab_size=11, block_size=8, n_layer=2, n_head=4, n_embd=8)
IDX = np.random.default_rng(2).integers(0, 11, (3, 8))


def example(**settings):
    """In float64, with parameters that are all of a size."""
    model = in_float64(nn.GPT(nn.GPTConfig(**{**SIZES, **settings}), rng=0))
    rng = np.random.default_rng(3)
    for p in model.parameters():
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    return model


def in_pieces(model, idx, ends, cache):
    with no_grad():
        return np.concatenate([model(idx[:, a:b], cache=cache)[0].data
                               for a, b in itertools.pairwise([0, *ends])], axis=1)


class Uncached(nn.Module):
    """A model as `generate` sees it that has no cache."""

    def __init__(self, model):
        self.model, self.config = model, model.config

    def forward(self, idx):
        return self.model(idx)


# --- GPT ---


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("settings", [
    {}, {"norm_kind": "rms", "n_kv_head": 2}, {"norm": "post", "n_kv_head": 1},
    {"activation": "swiglu", "norm_kind": "rms", "bias": False, "tie_weights": False}])
@pytest.mark.parametrize("ends", [(3, 4, 8), tuple(range(1, 9)), (8,)])
def test_a_gpt_in_pieces_equals_the_whole(position, settings, ends):
    model = example(position=position, **settings)
    cache = model.new_cache()
    found = in_pieces(model, IDX, ends, cache)
    np.testing.assert_allclose(found, model(IDX)[0].data, rtol=1e-10, atol=1e-12)
    assert cache.length == 8
    keys, values = cache.blocks[1].held()
    assert keys.shape == values.shape == (3, settings.get("n_kv_head", 4), 8, 2)


def test_the_loss_of_a_piece_is_that_of_its_tokens():
    model, cache = example(), DecoderCache(2, 8)
    with no_grad():
        model(IDX[:, :3], cache=cache)
        _, loss = model(IDX[:, 3:7], IDX[:, 4:8], cache=cache)
    targets = np.where(np.arange(7) < 3, -1, IDX[:, 1:])
    assert loss.item() == pytest.approx(model(IDX[:, :7], targets)[1].item(), rel=1e-12)


def test_float32_stays_float32_and_earlier_results_stay_as_they_are():
    model = nn.GPT(nn.GPTConfig(**SIZES), rng=0)
    cache = model.new_cache()
    with no_grad():
        first = model(IDX[:, :3], cache=cache)[0]
        before, held = first.data.copy(), cache.blocks[0].held()[0].copy()
        second = model(IDX[:, 3:5], cache=cache)[0]
    np.testing.assert_array_equal(first.data, before)
    np.testing.assert_array_equal(cache.blocks[0].held()[0][:, :, :3], held)
    assert first.dtype == second.dtype == cache.blocks[1].held()[1].dtype == np.float32


def test_a_full_cache_says_what_to_do():
    model, cache = example(), nn.KeyValueCache(2)
    with no_grad():
        kept = model.new_cache()
        model(IDX[:, :5], cache=kept)
        with pytest.raises(ValueError, match="GPT: at most block_size = 8 positions, got 5 in the "
                                             r"cache and 4 new. Begin a new_cache\(\) with the last"):
            model(IDX[:, :4], cache=kept)
        assert kept.length == 5
        with pytest.raises(ValueError, match="longest = 2 positions, got 0 in the cache and 3 new"):
            model.blocks[0](leaf(np.ones((1, 3, 8))), cache=cache)
    with pytest.raises(ValueError, match="longest must be a positive integer, got 0"):
        nn.KeyValueCache(0)
    with pytest.raises(ValueError, match="nothing was added"):
        nn.KeyValueCache(1).held()


def test_no_gradient_flows_through_a_cache():
    model = example()
    with pytest.raises(RuntimeError, match=r"no gradient flows through it.*Call .*no_grad\(\), or "):
        model(IDX, cache=model.new_cache())


def test_a_cache_that_only_some_blocks_filled_is_refused():
    model = example()
    cache, attention = model.new_cache(), model.blocks[1].attention
    with no_grad():
        attention.output = None
        with pytest.raises(TypeError):
            model(IDX[:, :2], cache=cache)           # fails behind the last cache: all have read it
        assert cache.length == 2
        attention.value = None
        with pytest.raises(TypeError):
            model(IDX[:, 2:3], cache=cache)
        with pytest.raises(ValueError, match=r"got \[3, 2\]: a call was broken off. Begin a new cache"):
            model(IDX[:, 2:3], cache=cache)


def test_another_batch_is_refused():
    model = example()
    cache = model.new_cache()
    with no_grad():
        model(IDX[:, :2], cache=cache)
        with pytest.raises(ValueError, match=r"\(3, 4, T, 2\), as those in the cache, got \(1, 4, 1"):
            model(IDX[:1, 2:3], cache=cache)


# --- the attention by itself ---


def test_attention_in_pieces_with_a_mask_and_its_weights():
    attention = in_float64(nn.MultiHeadAttention(8, 4, causal=True, rng=0, n_kv_head=2, rotary=True))
    x, cache = np.random.default_rng(1).standard_normal((2, 5, 8)), nn.KeyValueCache(7)
    mask = np.random.default_rng(2).random((2, 1, 5, 5)) < 0.7
    whole, weights = attention(leaf(x), mask=mask, return_weights=True)
    with no_grad():
        attention(leaf(x[:, :3]), mask=mask[:, :, :3, :3], cache=cache)
        out, seen = attention(leaf(x[:, 3:]), mask=mask[:, :, 3:], return_weights=True, cache=cache)
    np.testing.assert_allclose(out.data, whole.data[:, 3:], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(seen.data, weights.data[:, :, 3:], rtol=1e-10, atol=1e-13)


def test_a_context_is_projected_once():
    attention = in_float64(nn.MultiHeadAttention(8, 4, rng=0))
    x, context = (leaf(a) for a in np.random.default_rng(1).standard_normal((2, 2, 5, 8)))
    cache, wanted = nn.KeyValueCache(5), attention(x, context).data
    with no_grad():
        for _ in range(2):
            np.testing.assert_array_equal(attention(x, context, cache=cache).data, wanted)
        attention.key = None                     # not needed any more
        np.testing.assert_array_equal(attention(x, context, cache=cache).data, wanted)
        with pytest.raises(ValueError, match=r"one of \(B, S\) = \(2, 5\) and a context"):
            attention(x, context[:, :4], cache=cache)


@pytest.mark.parametrize("causal, context", [(False, False), (True, True)])
def test_a_cache_that_would_keep_what_changes_is_refused(causal, context):
    attention, x = nn.MultiHeadAttention(8, 4, causal, rng=0), leaf(np.ones((1, 2, 8)), np.float32)
    with pytest.raises(ValueError, match="a cache is for causal attention of x to itself, or"):
        attention(x, x if context else None, cache=nn.KeyValueCache(4))


# --- an encoder and a decoder ---


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("position", ["sinusoidal", "learned"])
def test_a_target_in_pieces_equals_the_whole_with_padding_in_both(norm, position):
    config = nn.Seq2SeqConfig(6, 5, 6, 2, 2, 4, norm=norm, position=position)
    model = in_float64(nn.Seq2SeqTransformer(config, rng=0))
    source = np.array([[1, 4, 2, 5, 3], [3, 2, 1, 0, 0]])
    target = np.array([[1, 3, 4, 2, 1, 4], [1, 0, 2, 3, 0, 0]])          # in the middle too
    memory = model.encode(source)
    wanted, seen = model.decode(target, *memory)
    cache, logits, weights = model.new_cache(), [], []
    with no_grad():
        memory = model.encode(source)
        for a, b in ((0, 1), (1, 4), (4, 5), (5, 6)):
            piece, attention = model.decode(target[:, a:b], *memory, cache=cache)
            logits.append(piece.data)
            weights.append(attention[1].data)
        with pytest.raises(ValueError, match="block_size = 6 positions, got 6 in the cache and 1 new"):
            model.decode(target[:, :1], *memory, cache=cache)
    np.testing.assert_allclose(np.concatenate(logits, 1), wanted.data, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.concatenate(weights, 2), seen[1].data, rtol=1e-10, atol=1e-12)


# --- generate ---


@pytest.mark.parametrize("position", POSITIONS)
def test_generate_draws_the_tokens_that_it_draws_without_a_cache(position):
    model = example(position=position)
    prompts = ([1], [1, 2, 3, 4, 5, 6, 7, 8], list(range(10)))           # past the block of 8 too
    found, wanted = ([list(nn.generate(m, prompt, 12, rng=4)) for prompt in prompts]
                     for m in (model, Uncached(model)))
    assert found == wanted and all(len(set(tokens)) > 2 for tokens in found)


def test_generate_computes_each_token_once_while_the_text_fits():
    model, lengths = example(), []
    embed = model.tokens.forward
    model.tokens.forward = lambda ids: lengths.append(ids.shape[1]) or embed(ids)
    list(nn.generate(model, [1, 2, 3], 8, rng=0))
    assert lengths == [3, 1, 1, 1, 1, 1, 8, 8]


# --- recurrent nets, whose cache is their state ---


def recurrent(cell, **settings):
    return in_float64(nn.RecurrentLM(nn.RecurrentConfig(11, 8, cell, 2, 5, **settings), rng=0))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("ends", [(3, 4, 8), tuple(range(1, 9))])
def test_a_recurrent_net_in_pieces_equals_the_whole(cell, ends):
    model = recurrent(cell)
    cache = model.new_cache()
    found = in_pieces(model, IDX, ends, cache)
    np.testing.assert_allclose(found, model(IDX)[0].data, rtol=1e-11, atol=1e-13)
    assert cache.length == 8 and [part.shape for part in cache.state] == [(2, 3, 5)] * len(
        model.recurrent.parts)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_generate_carries_the_state_from_the_beginning_of_the_text(cell):
    """The tokens are those of running the whole text for each, also past the block of 8."""
    model, lengths, ids = recurrent(cell), [], [1, 2]
    whole = Uncached(recurrent(cell))
    whole.config = nn.RecurrentConfig(11, 100)           # a window that never moves
    wanted = list(nn.generate(whole, ids, 15, rng=4))
    embed = model.tokens.forward
    model.tokens.forward = lambda idx: lengths.append(idx.shape[1]) or embed(idx)
    assert list(nn.generate(model, ids, 15, rng=4)) == wanted
    assert len(set(wanted)) > 2 and lengths == [2, *[1] * 14]


def test_no_gradient_flows_through_a_state_that_is_kept():
    model = recurrent("gru")
    cache = model.new_cache()
    with pytest.raises(RuntimeError, match="StateCache: .* no gradient flows through it"):
        model(IDX, cache=cache)
    assert cache.state is None and cache.length == 0
