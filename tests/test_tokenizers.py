"""Tokenizers: what they keep of a text, how they are learned, and that they travel in checkpoints."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn.data import tokenizers as module
from nn.data.text import python_help_text
from nn.data.tokenizers import tokenizer_from_dict
from tests.checks import peer

HARD = ["", " ", "a  b\n\n c\t", "\r\n", "é", "e\u0301", "😀", "👩‍👩‍👧", "\0\x7f", "日本語 テキスト", "\ufeff",
        "\ufffd", "a<|endoftext|>b", "\u2028", "ß" * 50, "don't 123,456"]


@pytest.fixture(scope="module")
def bpe():
    peer("tokenizers")
    return nn.BPETokenizer.from_texts([python_help_text()[:50_000]], 400)


@pytest.mark.parametrize("text", HARD)
def test_characters_and_byte_pairs_lose_nothing_of_a_hard_text(text, bpe):
    for tokenizer in (nn.CharTokenizer.from_text(text), bpe):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ids.dtype == np.int64 and ids.ndim == 1 and (ids < len(tokenizer)).all()


@settings(deadline=None)
@given(st.text())
def test_characters_and_byte_pairs_lose_nothing_of_any_text(text):
    peer("tokenizers")
    for tokenizer in (nn.CharTokenizer.from_text(text), LEARNED.setdefault(0, bpe_of_two_words())):
        assert tokenizer.decode(tokenizer.encode(text)) == text


LEARNED: dict = {}


def bpe_of_two_words():
    return nn.BPETokenizer.from_texts(["hello hello world world"])


@pytest.mark.parametrize("kind", [nn.CharTokenizer, nn.WordTokenizer])
def test_a_text_in_pieces_gives_the_tokenizer_of_the_whole(kind):
    whole = "to be or not to be, that is the question"
    pieces = [whole[:9], whole[9:]]
    assert kind.from_texts(pieces).vocabulary == kind.from_text(whole).vocabulary


def test_characters_are_encoded_by_a_table_as_by_a_search():
    tokenizer = nn.CharTokenizer(["<pad>", "a", "é", "😀", "\0"])
    assert tokenizer.encode("😀aé\0").tolist() == [3, 1, 2, 4]
    for text, place in [("ab", 1), ("a\U0010ffff", 1), ("\ud800", 0)]:
        with pytest.raises(ValueError, match=f"at position {place} is not among the 5 characters"):
            tokenizer.encode(text)


def test_the_commonest_words_are_kept_and_the_others_are_unknown():
    tokenizer = nn.WordTokenizer.from_texts(["b a b c", "a b d e"], 4)
    assert tokenizer.vocabulary == ["<unk>", "a", "b", "c"]              # c before d, equally common
    assert tokenizer.decode(tokenizer.encode("a  b\nd")) == "a b <unk>"
    ended = nn.WordTokenizer.from_texts(["b a b c"], 3, ends=True)
    assert ended.vocabulary == ["<end>", "<unk>", "b"]
    assert nn.WordTokenizer.from_texts(["b a b c"], 4, ends=True).vocabulary == ["<end>", "a", "b", "c"]
    with pytest.raises(ValueError, match="word 'x' at position 0"):
        nn.WordTokenizer.from_text("a b").encode("x")


def test_documents_are_joined_with_the_end_behind_each(bpe):
    names = ["anna", "bo b"]
    words = nn.WordTokenizer(["<end>", "anna", "bo", "b"])
    for tokenizer in (nn.CharTokenizer("\nabno "), words, bpe):
        ids = tokenizer.encode(tokenizer.joined(names))
        end = tokenizer.ids[tokenizer.end]
        assert (ids == end).sum() == 2 and ids[-1] == end
        first = ids[:ids.tolist().index(end)]
        assert tokenizer.decode(first) == "anna"


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="vocab_size: all 3 characters of the text are needed; got 2"):
        nn.CharTokenizer.from_texts(["abc"], 2)
    with pytest.raises(ValueError, match="vocab_size must be at least 257, for the bytes and the end"):
        nn.BPETokenizer.from_texts(["abc"], 256)


# --- byte pairs ---


def merged(words, count):
    """The merges of byte-pair encoding as Sennrich et al. write them: the commonest pair, merged."""
    words, merges = {tuple(word): n for word, n in words.items()}, []
    while len(merges) < count:
        pairs = {}
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + n
        best = max(pairs, key=pairs.get)
        merges.append(list(best))
        joined = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                hit = word[i:i + 2] == best
                out.append("".join(best) if hit else word[i])
                i += 1 + hit
            joined[tuple(out)] = n
        words = joined
    return merges


def test_the_merges_are_those_of_the_paper():
    peer("tokenizers")
    words = {"abcd": 9, "bcd": 5, "cd": 3}                    # no two pairs are equally common
    text = "\n".join(word for word, n in words.items() for _ in range(n))
    tokenizer = nn.BPETokenizer.from_texts([text], 257 + 3)
    assert tokenizer.to_dict()["vocabulary"]["model"]["merges"] == merged(words, 3)
    assert merged(words, 3) == [["c", "d"], ["b", "cd"], ["a", "bcd"]]


def test_learning_is_repeatable_and_stops_at_the_size(bpe):
    again = nn.BPETokenizer.from_texts([python_help_text()[:50_000]], 400)
    assert len(bpe) == 400 and bpe.to_dict() == again.to_dict()
    assert len(bpe.encode(python_help_text())) < 0.6 * len(python_help_text())


def test_long_texts_are_cut_where_their_tokens_are(bpe, monkeypatch):
    text = python_help_text()[:100_000]
    found = bpe.encode(text)
    monkeypatch.setattr(module, "_SHORT", 50)
    assert len(list(module._short(text))) > 1000
    np.testing.assert_array_equal(bpe.encode(text), found)
    np.testing.assert_array_equal(bpe._coder.encode(text).ids, found)


def test_a_prefix_that_ends_within_a_character_ends_in_a_replacement(bpe):
    text = "naïve 😀 日本"
    ids = bpe.encode(text)
    shown = ""
    for end in range(1, len(ids) + 1):
        found = bpe.decode(ids[:end])
        if not found.endswith("\ufffd"):
            assert text.startswith(found) and found.startswith(shown)
            shown = found
    assert shown == text


def test_a_surrogate_is_refused_in_words(bpe):
    with pytest.raises(ValueError, match="a surrogate, which is no character"):
        bpe.encode("a\ud800")


def gpt2_like(**changes):
    """A tokenizer.json of two letters and a pair, and the end of a document behind them."""
    return {"version": "1.0", "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0,
                                             "direction": "Right"}, "padding": None,
            "added_tokens": [{"id": 3, "content": "<|endoftext|>", "single_word": False,
                              "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
            "normalizer": None, "post_processor": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                              "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False,
                      "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}, **changes}


def test_a_tokenizer_json_is_read_and_truncates_nothing(tmp_path):
    peer("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(gpt2_like()), encoding="utf-8")
    tokenizer = nn.BPETokenizer.from_file(path)
    assert len(tokenizer) == 4 and tokenizer.end == "<|endoftext|>"
    assert tokenizer.encode("ababa<|endoftext|>").tolist() == [2, 2, 0, 3]


@pytest.mark.parametrize("content, message", [
    ("", "x.json is no tokenizer.json"), ("[]", "cannot read the tokenizer"), ("{}", "cannot read"),
    (json.dumps(gpt2_like(model={"type": "BPE", "vocab": {"a": 4_000_000_000}, "merges": []})),
     "the ids must be 0, 1, 2 ... with few gaps; got 4,000,000,001"),
    (json.dumps(gpt2_like(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]})),
     "cannot read")])
def test_what_is_no_tokenizer_json_is_refused(content, message, tmp_path):
    peer("tokenizers")
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        nn.BPETokenizer.from_file(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        nn.BPETokenizer.from_file(tmp_path / "y.json")


def test_a_text_that_a_tokenizer_json_cannot_encode_is_refused():
    peer("tokenizers")
    model = {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0], ["b", -1.0]]}
    tokenizer = nn.BPETokenizer({**gpt2_like(), "added_tokens": [], "model": model})
    assert tokenizer.encode("ab").tolist() == [0, 1]
    with pytest.raises(ValueError, match="the tokenizer cannot encode the text: .*unknown token"):
        tokenizer.encode("ac")


# --- in checkpoints ---


def test_byte_pairs_travel_in_checkpoints(bpe, tmp_path):
    model = nn.GPT(nn.GPTConfig(len(bpe), 4, 1, 1, 4), rng=0)
    path = nn.save_checkpoint(tmp_path / "a.npz", model, bpe)
    found = nn.load_checkpoint(path).tokenizer
    assert found.to_dict() == bpe.to_dict()
    np.testing.assert_array_equal(found.encode("for x in y"), bpe.encode("for x in y"))


def test_without_the_library_the_error_says_what_to_install(bpe, tmp_path, monkeypatch):
    model = nn.GPT(nn.GPTConfig(len(bpe), 4, 1, 1, 4), rng=0)
    path = nn.save_checkpoint(tmp_path / "a.npz", model, bpe)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    hint = r'not installed: pip install -e "\.\[text\]"'
    with pytest.raises(ImportError, match=hint):
        nn.BPETokenizer.from_text("a")
    with pytest.raises(nn.CheckpointError, match=f"a.npz cannot be used yet: .*{hint}"):
        nn.load_checkpoint(path)


@pytest.mark.parametrize("state", [None, 3, [], "x", {"model": 3}, {"model": {"type": "BPE"}}])
def test_a_checkpoint_with_a_damaged_tokenizer_is_refused(state):
    peer("tokenizers")
    with pytest.raises(ValueError, match="tokenizer"):
        tokenizer_from_dict({"kind": "bpe", "vocabulary": state})
