"""What `nn.generate` writes: every filter against its definition, batches, samples and the cache."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nn
from nn.generation.reader import Reader
from nn.generation.sampling import Sampling, candidates, penalised
from nn.generation.writing import sample_streams, steps
from nn.layers.arrays import on_arrays
from nn.models.gpt import POSITIONS
from tape import Tensor
from tests.checks import in_float64

SIZES = dict(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=8)
# Multiples of 1/4, so that ties are common and sums of few of them are exact.
LOGITS = st.lists(st.integers(-8, 8).map(lambda i: i / 4), min_size=1, max_size=7).map(np.array)
DRAWN = settings(deadline=None, max_examples=80)


def example(seed=0, kind="gpt", dtype=np.float64, **more):
    """A small model whose parameters are all of a size, so that no token is much the likeliest."""
    model = (nn.GPT(nn.GPTConfig(**{**SIZES, **more}), rng=seed) if kind == "gpt" else
             nn.RecurrentLM(nn.RecurrentConfig(7, 6, kind, 2, 5), rng=seed))
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.data = (p.data + 0.4 * rng.standard_normal(p.shape)).astype(np.float32)
    return in_float64(model) if dtype is np.float64 else model


# --- the filters, against slow references written from their definitions ---


def ranked(logits):
    """Ids, best first, ties by lower id."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


def probabilities(logits, ids, temperature=1.0):
    weights = {i: math.exp((logits[i] - max(logits)) / temperature) for i in ids}
    return {i: w / sum(weights.values()) for i, w in weights.items()}


def taking_part(logits, **how):
    return candidates(logits, Sampling(**how))[0].tolist()


@DRAWN
@given(LOGITS, st.integers(1, 9))
def test_top_k_is_exactly_the_k_best(logits, k):
    assert taking_part(logits, top_k=k) == ranked(logits)[:k]


@DRAWN
@given(LOGITS, st.floats(0.01, 1))
def test_top_p_is_the_smallest_set_that_reaches_p_so_the_crossing_token_stays(logits, p):
    share = probabilities(logits, range(len(logits)))
    found, best = taking_part(logits, top_p=p), ranked(logits)
    assert found == best[:len(found)]
    assert math.fsum(share[i] for i in found) >= p - 1e-12
    assert len(found) == 1 or math.fsum(share[i] for i in found[:-1]) < p + 1e-12


def test_the_token_with_which_the_sum_is_exactly_top_p_is_the_last():
    logits = np.log([0.5, 0.25, 0.125, 0.125])
    assert [len(taking_part(logits, top_p=p)) for p in (0.4, 0.49, 0.51, 0.74, 0.76, 1)] == [
        1, 1, 2, 2, 3, 4]
    assert [taking_part(np.zeros(4), top_p=p) for p in (0.5, 0.51, 0.75)] == [
        [0, 1], [0, 1, 2], [0, 1, 2]]


@DRAWN
@given(LOGITS, st.floats(0, 1), st.sampled_from([0.5, 1.0, 2.0]))
def test_min_p_is_relative_to_the_likeliest(logits, p, temperature):
    share = probabilities(logits, range(len(logits)), temperature)
    ratios = {i: share[i] / max(share.values()) for i in ranked(logits)}
    assume(all(abs(ratio - p) > 1e-9 for ratio in ratios.values() if ratio < 1))
    assert taking_part(logits, min_p=p, temperature=temperature) == [
        i for i, ratio in ratios.items() if ratio >= p]


@DRAWN
@given(LOGITS, st.integers(1, 7), st.floats(0.1, 1), st.floats(0, 0.9))
def test_together_the_filters_are_applied_one_after_the_other(logits, k, p, low):
    """top_p is of what top_k leaves, min_p of what both leave."""
    best = ranked(logits)[:k]
    share, total, kept = probabilities(logits, best), 0.0, []
    for i in best:
        kept.append(i)
        total += share[i]
        assume(abs(total - p) > 1e-9 and abs(share[i] - low * share[kept[0]]) > 1e-9)
        if total >= p:
            break
    kept = [i for i in kept if share[i] >= low * share[kept[0]]]
    ids, weights = candidates(logits, Sampling(1.0, k, p, low))
    assert ids.tolist() == kept
    wanted = probabilities(logits, ids.tolist())
    np.testing.assert_allclose(weights / weights.sum(), [wanted[i] for i in ids], rtol=1e-12)


@DRAWN
@given(LOGITS, st.lists(st.integers(0, 6)), st.sampled_from([0.5, 1.0, 1.3, 2.0]))
def test_the_repetition_penalty_divides_once_and_never_helps(logits, seen, penalty):
    seen = [i for i in seen if i < len(logits)]
    before = logits.copy()
    found = penalised(logits, seen, penalty)
    for i, value in enumerate(logits):
        wanted = value if i not in seen else value / penalty if value > 0 else value * penalty
        assert found[i] == wanted and (penalty < 1 or found[i] <= value)
    np.testing.assert_array_equal(logits, before)


@DRAWN
@given(LOGITS, st.integers(0, 99), st.sampled_from([1, 3]), st.sampled_from([0.3, 1.0]))
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(logits, seed, k, p):
    ids = taking_part(logits, top_k=k, top_p=p, temperature=0.7)
    share, u, total = probabilities(logits, ids, 0.7), np.random.default_rng(seed).random(), 0.0
    for wanted in ids:
        total += share[wanted]
        if total > u:
            break
    assert nn.sample(logits, np.random.default_rng(seed), 0.7, k, p) == wanted


@DRAWN
@given(LOGITS, st.integers(1, 3), st.floats(0.1, 1))
def test_temperature_0_is_the_first_of_the_likeliest_whatever_the_filters(logits, k, p):
    rng = np.random.default_rng(0)
    assert nn.sample(logits, rng, 0, k, p, p) == ranked(logits)[0]
    assert rng.random() == np.random.default_rng(0).random()             # drew nothing


@pytest.mark.parametrize("options, words", [
    ({"temperature": -1}, "temperature must be 0"), ({"temperature": math.nan}, "temperature"),
    ({"temperature": math.inf}, "temperature"), ({"top_k": 0}, "top_k must be at least 1"),
    ({"top_p": 0}, "top_p must be above 0 and at most 1, got 0"), ({"top_p": 1.1}, "top_p"),
    ({"min_p": -0.1}, "min_p must be from 0 to 1"), ({"min_p": 1.5}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty must be positive; 1 is none, got 0"),
    ({"num_samples": 0}, "num_samples must be at least 1, got 0")])
def test_what_cannot_be_is_refused_at_the_call(options, words):
    with pytest.raises(ValueError, match=words):
        nn.generate(example(), [1], 3, **options)


# --- one text ---


def plain_loop(model, ids, count, how, seed):
    """Each token from the logits of the whole window, by an independent loop."""
    ids, rng, drawn = list(ids), np.random.default_rng(seed), []
    with nn.evaluating(model):
        for _ in range(count):
            window = ids[-6:] if isinstance(model, nn.GPT) else ids
            logits = penalised(model(np.array([window]))[0].data[0, -1], ids, how.repetition_penalty)
            chosen, weights = candidates(logits, how)
            place = np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right")
            ids.append(int(chosen[place]))
            drawn.append(ids[-1])
    return drawn


HOW = [Sampling(0.9), Sampling(1.5, top_k=4, top_p=0.9),
       Sampling(1.2, min_p=0.1, repetition_penalty=1.4)]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_generate_is_the_plain_loop(kind, how):
    model, options = example(kind=kind), dict(vars(how))
    found = list(nn.generate(model, [1, 2], 12, rng=3, **options))
    assert found == plain_loop(model, [1, 2], 12, how, 3) and len(set(found)) > 2
    assert found == list(nn.generate(model, np.array([[1, 2]]), 12, rng=3, use_cache=False, **options))
    assert list(nn.generate(model, [1, 2], 0)) == []


@pytest.mark.parametrize("model", [
    *(example(position=position) for position in POSITIONS),
    example(norm="post", norm_kind="rms", activation="swiglu", n_kv_head=1, tie_weights=False),
    *(example(kind=kind) for kind in ("rnn", "lstm", "gru"))])
def test_logits_with_and_without_the_cache_agree_for_every_length_of_the_prompt(model):
    texts = np.random.default_rng(1).integers(0, 7, (2, 12)).tolist()
    for length in range(1, 11):                                          # the block is 6
        cached, plain = Reader(model), Reader(model, use_cache=False)
        for n in (length, length + 1, length + 2):
            np.testing.assert_allclose(cached.read(texts, n), plain.read(texts, n), rtol=1e-9,
                                       atol=1e-11)
            window = np.array(texts)[:, max(0, n - 6) if isinstance(model, nn.GPT) else 0:n]
            np.testing.assert_allclose(model.eval()(window)[0].data[:, -1], plain.read(texts, n),
                                       rtol=1e-9, atol=1e-11)


# --- several at once ---


@pytest.mark.parametrize("kind", ["gpt", "gru"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_of_unequal_length_give_what_each_gives_alone(kind, use_cache):
    model = example(kind=kind)
    prompts = [[1, 2, 3], [4], [5, 0, 1, 2, 3, 4, 5, 6], [2, 2]]         # one is beyond the block
    options = dict(rng=5, temperature=1.3, repetition_penalty=1.2, use_cache=use_cache)
    alone = [list(nn.generate(model, prompt, 7, **options)) for prompt in prompts]
    assert nn.generate_batch(model, prompts, 7, **options) == alone
    stop = alone[0][2]
    assert nn.generate_batch(model, prompts, 7, stop=stop, **options) == [
        text[:text.index(stop)] if stop in text else text for text in alone]
    assert len({tuple(text) for text in alone}) == 4


@pytest.mark.parametrize("rng", [7, np.random.default_rng])
def test_sample_i_is_the_same_however_many_are_asked_for(rng):
    """In float32 too, bit for bit: a row is computed by the same products whatever the others are."""
    model = example(dtype=np.float32)

    def seed():
        return rng(3) if callable(rng) else rng

    texts = nn.generate_batch(model, [1, 2], 10, rng=seed(), num_samples=5)
    for count in (1, 2, 4):
        assert nn.generate_batch(model, [1, 2], 10, rng=seed(), num_samples=count) == texts[:count]
    assert list(nn.generate(model, [1, 2], 10, rng=seed())) == texts[0]
    assert len({tuple(text) for text in texts}) == 5
    logits = [[step.logits[0] for step in steps(model, [[1, 2]] * count, 8, Sampling(0))]
              for count in (1, 3)]
    np.testing.assert_array_equal(*logits)


def test_prompts_times_samples_come_prompt_by_prompt():
    model = example()
    both = nn.generate_batch(model, [[1], [2, 3]], 4, rng=1, num_samples=3)
    assert both == [*nn.generate_batch(model, [1], 4, rng=1, num_samples=3),
                    *nn.generate_batch(model, [2, 3], 4, rng=1, num_samples=3)]


def test_as_an_iterator_a_row_that_reads_or_has_ended_has_no_token():
    model = example()
    rows = list(nn.generate(model, [[1, 2, 3], [1]], 3, temperature=0))
    assert [[token is None for token in row] for row in rows] == [
        [True, False], [True, False], [False, False], [False, True], [False, True]]
    with pytest.raises(ValueError, match="at least one token"):
        nn.generate(model, [[1], []], 3)


# --- the twin on arrays ---


def test_a_twin_on_arrays_shares_the_parameters_and_leaves_the_model_alone():
    model = example(dtype=np.float32, dropout=0.5, position="rotary")
    twin, idx = on_arrays(model), np.array([[1, 2, 3]])
    found = twin(idx)[0]
    assert type(found) is np.ndarray and found.dtype == np.float32
    assert model.training and not twin.training and not twin.blocks[1].dropout.training
    with nn.evaluating(model):
        np.testing.assert_allclose(found, model(idx)[0].data, rtol=1e-5, atol=1e-6)
    model.tokens.weight.data[:] *= 2
    assert (twin(idx)[0] != found).any()
    assert all(isinstance(p, Tensor) for p in model.parameters())


def test_a_module_from_elsewhere_is_run_as_it_is_and_generates():
    class Scaled(nn.Module):
        def __init__(self, model):
            self.model, self.config = model, model.config

        def forward(self, idx):
            logits, loss = self.model(idx)
            return logits.exp().log(), loss                              # methods of a Tensor

    model = example()
    assert on_arrays(Scaled(model)).model is model
    assert list(nn.generate(Scaled(model), [1], 8, rng=0)) == list(nn.generate(model, [1], 8, rng=0))
    assert model.training


# --- beam search ---


def all_continuations(model, prompt, count, stop=None, penalty=1.0):
    """(tokens, log-probability) of every one, best first, by running each text."""
    found, todo = [], [([], 0.0)]
    with nn.evaluating(model):
        while todo:
            tokens, score = todo.pop()
            if len(tokens) == count:
                found.append((tokens, score))
                continue
            window = (prompt + tokens)[-6:]
            logits = penalised(model(np.array([window]))[0].data[0, -1], prompt + tokens, penalty)
            log_p = logits - np.log(np.exp(logits).sum())
            for token, more in enumerate(log_p):
                if token == stop:
                    found.append((tokens, score + more))
                else:
                    todo.append(([*tokens, token], score + more))
    return sorted(found, key=lambda pair: -pair[1])


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
@pytest.mark.parametrize("prompt", [[1], [3, 1, 4, 1, 5]])               # the second slides
def test_with_beams_enough_the_search_is_exhaustive(stop, penalty, prompt):
    model = example(seed=4)
    wanted = all_continuations(model, prompt, 3, stop, penalty)
    found = nn.beam_search(model, prompt, 3, 7 ** 3, stop, repetition_penalty=penalty)
    assert len(found) == len(wanted)
    np.testing.assert_allclose([beam.log_probability for beam in found], [s for _, s in wanted],
                               rtol=1e-9)
    assert [beam.tokens for beam in found][:20] == [tokens for tokens, _ in wanted][:20]


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
@pytest.mark.parametrize("num_beams", [1, 2, 3, 5])
def test_a_beam_search_by_its_definition_with_the_cache_and_without(kind, num_beams):
    model, prompt = example(seed=4, kind=kind), [1, 2]
    live = [([], 0.0)]
    with nn.evaluating(model):
        for _ in range(7):
            longer = []
            for tokens, score in live:
                text = (prompt + tokens)[-6 if kind == "gpt" else 0:]
                logits = model(np.array([text]))[0].data[0, -1]
                log_p = logits - np.log(np.exp(logits).sum())
                longer += [([*tokens, i], score + more) for i, more in enumerate(log_p)]
            live = sorted(longer, key=lambda pair: -pair[1])[:num_beams]
    for use_cache in (True, False):
        found = nn.beam_search(model, prompt, 7, num_beams, use_cache=use_cache)
        assert [beam.tokens for beam in found] == [tokens for tokens, _ in live]
        np.testing.assert_allclose([b.log_probability for b in found], [s for _, s in live], rtol=1e-9)
    if num_beams == 1:
        assert found[0].tokens == list(nn.generate(model, prompt, 7, temperature=0))


def test_the_search_ends_when_nothing_that_is_left_can_be_better():
    model, lengths = example(seed=4), []
    embed = model.tokens.forward
    model.tokens.forward = lambda ids: lengths.append(ids.shape[1]) or embed(ids)
    stop = nn.beam_search(model, [1], 3, 1)[0].tokens[2]                 # the likeliest in the end
    lengths.clear()
    found = nn.beam_search(model, [1], 6, 1, stop=stop)
    assert lengths == [1] * (len(found[0].tokens) + 1) and len(lengths) < 4     # of 6 steps
    assert found[0].tokens == list(nn.generate(model, [1], 6, temperature=0, stop=stop))


@pytest.mark.parametrize("arguments, words", [
    (([], 3), "at least one token"), (([1], 3, 0), "num_beams must be at least 1, got 0")])
def test_beam_search_refuses_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        nn.beam_search(example(), *arguments)


def test_the_streams_of_samples_are_made_as_they_are_asked_for():
    first = np.random.default_rng(3)
    wanted = [stream.random() for stream in (first, *first.spawn(3))]
    found = itertools.islice(sample_streams(3, 10 ** 12), 4)       # which would be too many to keep
    assert [stream.random() for stream in found] == wanted


@pytest.mark.parametrize("how", [{}, {"temperature": 0}, {"top_k": 1}])
@pytest.mark.parametrize("logits", [[np.inf, 1, 2], [np.nan, 5, 2], [1, np.nan], [-np.inf] * 3])
def test_logits_of_which_none_is_the_largest_are_refused(logits, how):
    with pytest.raises(ValueError, match="the largest is (inf|nan|-inf). Are the weights of the model"):
        nn.sample(np.array(logits), np.random.default_rng(0), **how)
    assert nn.sample(np.array([-np.inf, 0.0]), np.random.default_rng(0), **how) == 1


def test_a_model_whose_weights_are_not_numbers_writes_nothing():
    model = nn.GPT(nn.GPTConfig(**SIZES), rng=0)
    model.parameters()[0].data[:] = np.nan
    with pytest.raises(ValueError, match="Are the weights of the model finite"):
        list(nn.generate(model, [1], 3))
    with pytest.raises(ValueError, match="beam_search: logits .* Are the weights of the model finite"):
        nn.beam_search(model, [1], 3, 2)


@pytest.mark.parametrize("prompt", [[1.9], [1.0], np.array([1.0]), [[1], [2.0]]])
def test_a_prompt_of_floats_is_refused(prompt):
    with pytest.raises(TypeError, match="the ids of tokens, which are integers, got "):
        list(nn.generate(nn.GPT(nn.GPTConfig(**SIZES), rng=0), prompt, 3))
    with pytest.raises(TypeError, match="beam_search: a prompt must be the ids of tokens"):
        nn.beam_search(nn.GPT(nn.GPTConfig(**SIZES), rng=0), [1.0], 3, 2)
