"""Text as it is streamed, and what a model says of a text."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn.generation.insight import attention_weights, explain, token_losses
from tests.test_generation import example

DRAWN = settings(deadline=None, max_examples=150)


class Bytes(nn.Tokenizer):
    """A token is a byte, as in the smallest byte-level vocabulary."""

    kind = "byte"

    def __init__(self):
        super().__init__([chr(i) for i in range(256)])

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def decode(self, ids):
        return bytes(int(i) for i in ids).decode("utf-8", "replace")


# --- streaming ---


@DRAWN
@given(st.text(alphabet="aé€😀\n", max_size=8), st.text(alphabet="aé€😀\n", min_size=1, max_size=12))
def test_pieces_are_whole_characters_and_each_comes_with_its_last_byte(prompt, text):
    tokenizer, taken = Bytes(), []

    def tokens():
        for byte in tokenizer.encode(text):
            taken.append(int(byte))
            yield int(byte)

    pieces = []
    for piece in nn.stream_text(tokenizer, tokenizer.encode(prompt), tokens()):
        pieces.append(piece)
        assert bytes(taken).decode() == "".join(pieces)
    assert pieces == list(text)


def test_bytes_that_never_become_a_character_are_shown_in_the_end():
    euro = "€".encode()
    assert "".join(nn.stream_text(Bytes(), [97], [98, *euro[:2]])) == "b\ufffd"
    assert list(nn.stream_text(Bytes(), [97], [255, 98])) == ["\ufffdb"]


def test_words_are_joined_as_the_tokenizer_joins_them():
    tokenizer = nn.WordTokenizer(["the", "old", "fox"])
    assert list(nn.stream_text(tokenizer, [0], [1, 2, 0])) == [" old", " fox", " the"]


def up_to_the_stop(text, stops):
    """Character by character: ends when a stop text is complete; of several the longest."""
    for n in range(1, len(text) + 1):
        matching = [stop for stop in stops if text[:n].endswith(stop)]
        if matching:
            return text[:n - max(map(len, matching))]
    return text


@DRAWN
@given(st.text(alphabet="ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
       st.lists(st.integers(1, 3), min_size=12, max_size=12))
def test_a_text_ends_before_the_stop_text_that_is_complete_first(text, stops, sizes):
    """Whatever the tokens, here of one to three characters each."""
    vocabulary = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("ab", repeat=n)]
    tokenizer, cuts = nn.CharTokenizer(vocabulary), list(itertools.accumulate(sizes, initial=0))
    pieces = [text[a:b] for a, b in itertools.pairwise(cuts) if text[a:b]]
    tokens, taken = [tokenizer.ids[piece] for piece in pieces], []
    shown = ""
    for piece in nn.stream_text(tokenizer, [0], (taken.append(t) or t for t in tokens), stops):
        shown += piece
        so_far = tokenizer.decode(taken)
        if up_to_the_stop(so_far, stops) == so_far:                          # no stop text yet
            held = so_far[len(shown):]
            assert not held or any(stop.startswith(held) for stop in stops)
    assert shown == up_to_the_stop(text, stops)
    if shown != text:                                                        # taken no further
        assert up_to_the_stop(tokenizer.decode(taken[:-1]), stops) == tokenizer.decode(taken[:-1])


def test_generate_text_is_the_text_of_generate_and_refuses_an_empty_stop():
    model, tokenizer = example(), nn.CharTokenizer("abcdefg")
    whole = "".join(nn.generate_text(model, tokenizer, "bc", 20, 0.9, rng=2))
    assert whole == tokenizer.decode(nn.generate(model, [1, 2], 20, 0.9, rng=2)) and len(whole) == 20
    stop = whole[7:9]
    found = "".join(nn.generate_text(model, tokenizer, "bc", 20, 0.9, rng=2, stop_texts=["xyz", stop]))
    assert found == whole[:whole.index(stop)]
    with pytest.raises(ValueError, match="a stop text must have at least one character"):
        nn.generate_text(model, tokenizer, "bc", 2, stop_texts=[""])


# --- insight ---


def test_an_explanation_by_hand():
    logits = np.log([0.2, 0.5, 0.1, 0.2])
    token, p, rank, others = explain(logits, 3, 2)
    assert (token, rank, [i for i, _ in others]) == (3, 3, [1, 0]) and p == pytest.approx(0.2)
    assert [q for _, q in others] == pytest.approx([0.5, 0.2])
    assert explain(logits, 1).rank == 1 and [i for i, _ in explain(logits, 1).runners_up] == [0, 3, 2]


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
@pytest.mark.parametrize("length", [2, 6, 7, 8, 9, 10, 13, 16, 120])
def test_token_losses_by_their_definition(kind, length):
    """Each token but the first ones from half a block at least; by a recurrent net from all."""
    model = example(kind=kind)
    ids, wanted = np.random.default_rng(0).integers(0, 7, length), []
    last = 6 if kind == "gpt" else length
    for t in range(1, length):
        if kind == "lstm" or t <= 6:
            start = 0
        else:                       # windows begin at 3, 6, ...; the last one ends with the text
            start = min((t - 4) // 3 * 3, length - 7)
        with nn.evaluating(model):
            logits = model(ids[None, start:t])[0].data[0, -1]
        assert t - start <= last
        wanted.append(np.log(np.exp(logits).sum()) - logits[ids[t]])
    found = np.concatenate(list(token_losses(model, ids)))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    with pytest.raises(ValueError, match="at least two tokens"):
        token_losses(model, ids[:1])


@pytest.mark.parametrize("position", ["learned", "rotary", "alibi"])
def test_attention_weights_are_those_of_each_layer(position):
    model = example(position=position)
    found = attention_weights(model, [1, 2, 3, 4])
    assert found.shape == (2, 2, 4, 4)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert (np.triu(found, 1) == 0).all()
    x = model.tokens(np.array([[1, 2, 3, 4]]))
    x = x if model.positions is None else model.positions(x)
    for block, weights in zip(model.blocks, found):
        _, wanted = block.attention(block.norm1(x), return_weights=True)
        np.testing.assert_allclose(weights, wanted.data[0], rtol=1e-9)
        x = block(x)
    with pytest.raises(TypeError, match="must be a GPT, got a RecurrentLM, which has no attention"):
        attention_weights(example(kind="gru"), [1])
