"""Tokenizers, batches, sampling and checkpoints: text in, text out."""

import hashlib
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn.data.batches import (
    check_block_size, consecutive_blocks, padded_sentences, random_batch)
from nn.data.tokenizers import tokenizer_from_dict

CONFIG = nn.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=2, n_embd=8)


# --- tokenizers ---


@given(st.text(min_size=1))
def test_characters_round_trip(text):
    tokenizer = nn.CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer_from_dict(tokenizer.to_dict()).vocabulary == tokenizer.vocabulary


def test_words_round_trip_with_single_spaces():
    tokenizer = nn.WordTokenizer.from_text("to be or not to be")
    assert tokenizer.vocabulary == ["be", "not", "or", "to"]
    assert tokenizer.decode(tokenizer.encode(" not  to\nbe ")) == "not to be"


def test_an_unknown_token_is_named_with_its_place_and_the_nearest_known():
    tokenizer = nn.CharTokenizer.from_text("abcA")
    with pytest.raises(ValueError, match=r"character 'C' at position 2 .*nearest known: 'c'"):
        tokenizer.encode("abC")
    with pytest.raises(ValueError, match=r"character '\?' at position 0 .*known: A a b c"):
        tokenizer.encode("?")
    with pytest.raises(ValueError, match="word 'helo' at position 1 .*nearest known: 'hello'"):
        nn.WordTokenizer(["hello"]).encode("hello helo")


def test_a_vocabulary_with_a_double_is_refused():
    with pytest.raises(ValueError, match="twice"):
        nn.WordTokenizer(["a", "a"])


# --- batches ---


def test_a_batch_is_a_pure_function_of_seed_and_step():
    ids = np.arange(100)
    x, y = random_batch(ids, 3, 8, seed=1, step=2)
    assert x.shape == y.shape == (3, 8) and (y == x + 1).all()
    np.testing.assert_array_equal(x, random_batch(ids, 3, 8, 1, 2)[0])
    assert (x != random_batch(ids, 3, 8, 1, 3)[0]).any()
    assert (x != random_batch(ids, 3, 8, 2, 2)[0]).any()


def test_random_batches_reach_both_ends_and_a_text_of_just_one_block_works():
    ids = np.arange(6)
    seen = {tuple(row) for step in range(50) for row in random_batch(ids, 2, 3, 0, step)[1]}
    assert seen == {(1, 2, 3), (2, 3, 4), (3, 4, 5)}
    assert random_batch(np.arange(4), 1, 3, 0, 0)[1].tolist() == [[1, 2, 3]]


def test_consecutive_blocks_cover_the_sequence_once():
    for length in (2, 3, 4, 10, 12, 13):
        batches = list(consecutive_blocks(np.arange(length), batch_size=2, block_size=3))
        targets = [token for _, y in batches for token in y.ravel()]
        assert targets == list(range(1, length))
        assert all((y == x + 1).all() for x, y in batches)


def test_a_sample_of_the_blocks_is_spread_over_the_sequence_and_always_the_same():
    ids = np.arange(2 * 3 * 10 + 2)                       # 10 batches of 2 blocks, and a block of 1
    whole = consecutive_blocks(ids, 2, 3)
    assert len(whole) == 11 and len(consecutive_blocks(ids, 2, 3, 11)) == 11
    sample = [x for x, _ in consecutive_blocks(ids, 2, 3, 3)]
    assert [x.tolist() for x in sample] == [whole[i][0].tolist() for i in (0, 3, 7)]
    assert all(np.shares_memory(x, ids) for x, _ in whole)


def test_the_largest_block_that_works():
    check_block_size(np.arange(90), np.arange(10), 9)
    for parts in ((90, 10), (10, 90)):
        with pytest.raises(ValueError, match="block size of 10: the largest that works is 9"):
            check_block_size(*map(np.arange, parts), 10)
    with pytest.raises(ValueError, match="use a longer text"):
        check_block_size(np.arange(3), np.arange(1), 1)


def test_batches_of_small_ids_are_int64():
    ids = np.arange(9, dtype=np.uint16)
    assert {part.dtype for part in random_batch(ids, 2, 4, 0, 1)} == {np.dtype(np.int64)}


def test_padding_is_ignored_by_the_loss():
    inputs, targets = padded_sentences([np.array([1, 2, 3]), np.array([4, 0])])
    assert inputs.tolist() == [[1, 2], [4, 0]] and targets.tolist() == [[2, 3], [0, -1]]
    model = nn.GPT(CONFIG, rng=0)
    changed = inputs.copy()
    changed[1, 1] = 3         # what stands in the padding plays no part
    assert model(inputs, targets)[1].item() == model(changed, targets)[1].item()


# --- sampling ---


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=6),
       st.integers(1, 8), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 5))
def test_sampling_only_draws_from_the_k_best_with_ties_broken_by_order(logits, k, temperature, seed):
    logits = np.array(logits)
    best = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:k]
    rng = np.random.default_rng(seed)
    assert {nn.sample(logits, rng, temperature, k) for _ in range(20)} <= set(best)


def test_frequencies_follow_the_softmax_at_the_temperature():
    logits, rng = np.log(np.array([0.2, 0.5, 0.3])), np.random.default_rng(0)
    for temperature in (1.0, 0.5):
        expected = np.array([0.2, 0.5, 0.3]) ** (1 / temperature)
        drawn = [nn.sample(logits, rng, temperature) for _ in range(4000)]
        np.testing.assert_allclose(np.bincount(drawn) / 4000, expected / expected.sum(), atol=0.03)


def test_zero_is_greedy_and_tiny_temperatures_do_not_overflow():
    logits, rng = np.array([1.0, 3.0, 3.0]), np.random.default_rng(0)
    assert nn.sample(logits, rng, 0) == 1                      # the first of those that tie
    assert {nn.sample(logits, rng, 1e-30) for _ in range(50)} == {1, 2}
    with pytest.raises(ValueError, match="temperature"):
        nn.sample(logits, rng, -0.1)
    with pytest.raises(ValueError, match="top_k"):
        nn.sample(logits, rng, 1, 0)


def test_generate_is_reproducible_stops_and_goes_on_past_the_block():
    model = nn.GPT(CONFIG, rng=0)
    a, b = (list(nn.generate(model, [1], 9, rng=3)) for _ in range(2))
    assert a == b and len(a) == 9
    assert list(nn.generate(model, [1], 9, rng=3, stop=a[2])) == a[:a.index(a[2])]
    with pytest.raises(ValueError, match="at least one token"):
        next(nn.generate(model, [], 1))


def test_a_streaming_generation_leaves_the_callers_modes_alone():
    model = nn.GPT(CONFIG, rng=0)
    for _ in nn.generate(model, [1], 3, rng=0):
        assert model.training
        assert model(np.array([[1]]))[0].requires_grad       # recording is on out here


def test_greedy_continues_with_the_largest_logit():
    model = nn.GPT(CONFIG, rng=0)
    ids = [1, 2]
    for token in nn.generate(model, [1, 2], 3, temperature=0):
        assert token == int(model(np.array([ids[-4:]]))[0].data[0, -1].argmax())
        ids.append(token)


# --- checkpoints ---


def test_checkpoint_round_trip_with_tokenizer_and_info(tmp_path):
    model, tokenizer = nn.GPT(CONFIG, rng=0), nn.CharTokenizer("abcdé")
    path = nn.save_checkpoint(tmp_path / "deep" / "a.npz", model, tokenizer, {"step": 3})
    back = nn.load_checkpoint(path)
    assert back.info == {"step": 3} and back.tokenizer.vocabulary == list("abcdé")
    assert back.model.config == CONFIG and not back.model.training
    idx = np.array([[0, 1, 2]])
    np.testing.assert_array_equal(back.model(idx)[0].data, model(idx)[0].data)
    assert os.listdir(path.parent) == ["a.npz"]


def test_the_file_is_an_npz_without_pickle(tmp_path):
    path = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(CONFIG, rng=0))
    with np.load(path, allow_pickle=False) as archive:
        assert "weight:tokens.weight" in archive.files
        assert all(archive[name].dtype != object for name in archive.files)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(nn.CheckpointError, match="x.npz is not a checkpoint"):
        nn.load_checkpoint(path)


def test_other_archives_and_cut_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(nn.CheckpointError, match="not a checkpoint written by this project"):
        nn.load_checkpoint(tmp_path / "other.npz")
    np.save(tmp_path / "single.npy", np.zeros(2))
    with pytest.raises(nn.CheckpointError, match="not a checkpoint"):
        nn.load_checkpoint(tmp_path / "single.npy")
    whole = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(CONFIG, rng=0)).read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(nn.CheckpointError):
            nn.load_checkpoint(tmp_path / "cut.npz")
    with pytest.raises(FileNotFoundError):
        nn.load_checkpoint(tmp_path / "none.npz")


def change_header(path, change):
    """Rewrite a checkpoint with another header, and the digest of that."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    text = json.dumps(change(json.loads(arrays["checkpoint.json"].tobytes()))).encode()
    arrays["checkpoint.json"] = np.frombuffer(text, np.uint8)
    arrays["checkpoint.sha256"] = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize("damage", [
    {"tokenizer": {"kind": "character", "vocabulary": ["a"]}}, {"tokenizer": []},
    {"info": []}, {"info": {"prompt": 3}}, {"config": {"vocab_size": 5}}, {"config": 3}])
def test_a_header_that_does_not_fit_is_refused(tmp_path, damage):
    path = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(CONFIG, rng=0), nn.CharTokenizer("abcde"))
    change_header(path, lambda header: header | damage)
    with pytest.raises(nn.CheckpointError, match="a.npz does not fit together"):
        nn.load_checkpoint(path)


def test_a_failed_save_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(CONFIG, rng=0), info={"step": 1})
    with pytest.raises(TypeError):
        nn.save_checkpoint(path, nn.GPT(CONFIG, rng=1), info={"step": object()})
    assert nn.load_checkpoint(path).info == {"step": 1} and os.listdir(tmp_path) == ["a.npz"]


def test_a_kill_while_saving_never_leaves_half_a_file(tmp_path):
    code = ("import nn, sys\nm = nn.GPT(nn.GPTConfig(500, 64, 2, 2, 64), rng=0)\n"
            "print('ready', flush=True)\n"
            f"while True: nn.save_checkpoint(r'{tmp_path / 'a.npz'}', m)\n")
    for delay in (0.05, 0.11, 0.17):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        threading.Event().wait(delay)
        process.kill()
        process.communicate()
        if (tmp_path / "a.npz").exists():
            assert nn.load_checkpoint(tmp_path / "a.npz").model.config.vocab_size == 500
    assert (tmp_path / "a.npz").exists()


def test_what_a_killed_run_left_behind_is_removed_later(tmp_path):
    old, new = tmp_path / ".a.npz.1.tmp", tmp_path / ".a.npz.2.tmp"
    old.touch(), new.touch()
    os.utime(old, (0, 0))
    nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(CONFIG, rng=0))
    assert sorted(os.listdir(tmp_path)) == [".a.npz.2.tmp", "a.npz"]


def test_newest_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        nn.newest_checkpoint(tmp_path)
    for i, name in enumerate(["b.npz", "a.npz"]):
        nn.save_checkpoint(tmp_path / name, nn.GPT(CONFIG, rng=0))
        os.utime(tmp_path / name, (i, i))
    assert nn.newest_checkpoint(tmp_path).name == "a.npz"
    save_vision_model(tmp_path / "c.npz")
    os.utime(tmp_path / "c.npz", (9, 9))
    assert nn.newest_checkpoint(tmp_path).name == "a.npz"
    assert nn.newest_checkpoint(tmp_path, "VisionTransformer").name == "c.npz"
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    assert nn.newest_checkpoint(tmp_path).name == "damaged.npz"
    os.remove(tmp_path / "a.npz"), os.remove(tmp_path / "b.npz"), os.remove(tmp_path / "damaged.npz")
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in {tmp_path}/ of a GPT"):
        nn.newest_checkpoint(tmp_path)


def save_vision_model(path):
    config = nn.VisionConfig((4, 4), 2, 3, n_layer=1, n_head=2, n_embd=8, mean=0.25, std=0.5)
    return nn.save_checkpoint(path, nn.VisionTransformer(config, rng=0), info={"epoch": 3}), config


def test_a_vision_transformer_comes_back_whole(tmp_path):
    path, config = save_vision_model(tmp_path / "v.npz")
    found = nn.load_checkpoint(path)
    assert found.model.config == config and found.tokenizer is None and found.info == {"epoch": 3}
    images = np.random.default_rng(0).random((5, 4, 4), np.float32)
    twin = nn.VisionTransformer(config, rng=0)
    np.testing.assert_array_equal(found.model(images)[0].data, twin(images)[0].data)
    np.testing.assert_array_equal(nn.predict(found.model, images), nn.predict(twin, images))
    for same in ((images > 0.5).astype(int), (images > 0.5).tolist()):
        assert twin(same)[0].dtype == np.float32


def test_models_of_another_kind(tmp_path):
    class MyGPT(nn.GPT):
        pass
    assert type(nn.load_checkpoint(nn.save_checkpoint(
        tmp_path / "a.npz", MyGPT(CONFIG, rng=0))).model) is nn.GPT
    with pytest.raises(TypeError, match="RecurrentLM or a Seq2SeqTransformer, got Linear. .*savez"):
        nn.save_checkpoint(tmp_path / "a.npz", nn.Linear(2, 3))


def test_a_model_that_is_not_known_is_refused(tmp_path):
    path = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(CONFIG, rng=0))
    change_header(path, lambda header: header | {"model": "RNN"})
    with pytest.raises(nn.CheckpointError, match="no model 'RNN' here; known: GPT, Vision"):
        nn.load_checkpoint(path)
