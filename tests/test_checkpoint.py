"""Checkpoints: what is saved comes back whole, what is bad is refused, in both formats."""

import hashlib
import json
import os
import tracemalloc
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn.models.registry import MODELS
from tests.checkpoint_crafted import bombs, crafted_archives
from tests.checkpoint_files import CONFIG, INFO, digest, npy, pack, parts, same, small_parts
from tests.checks import counting_calls

GPT_CONFIG = nn.GPTConfig(vocab_size=5, block_size=4, n_layer=2, n_head=2, n_embd=8)
VISION_CONFIG = nn.VisionConfig((4, 6), 2, 3, n_layer=2, n_head=2, n_embd=8, mean=0.25, std=0.5)
BOMB = 2 ** 26


def written_by_the_first_version(path, model, tokenizer=None, info=None, says_model=True):
    """A file as the code of the first format wrote it."""
    header = {"format": "tape checkpoint 1", "model": type(model).__name__,
              "config": asdict(model.config), "info": info or {},
              "tokenizer": tokenizer.to_dict() if tokenizer else None}
    if not says_model:
        del header["model"]
    arrays = {"weight:" + name: np.ascontiguousarray(array)
              for name, array in model.state_dict().items()}
    text = np.frombuffer(json.dumps(header).encode("utf-8"), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, **{"checkpoint.json": text}, **arrays)
    return path


def records(weights):
    """What a header says of its arrays."""
    return {name: {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": digest(array)}
            for name, array in weights.items()}


def peak_of_loading(path):
    """The most memory that was taken, and the message if the file was refused."""
    tracemalloc.start()
    try:
        nn.load_checkpoint(path)
        message = ""
    except nn.CheckpointError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, message


# --- what is saved comes back ---


@pytest.mark.parametrize("says_model", [True, False])
def test_files_of_the_first_format_load(tmp_path, says_model):
    model, tokenizer = nn.GPT(GPT_CONFIG, rng=3), nn.WordTokenizer(["a", "b", "\u00e9", "d", "<"])
    path = written_by_the_first_version(tmp_path / "a.npz", model, tokenizer, INFO, says_model)
    found = nn.load_checkpoint(path)
    assert same(found, nn.Checkpoint(model, tokenizer, INFO)) and not found.model.training
    assert nn.newest_checkpoint(tmp_path) == path


def test_images_of_the_first_format_load(tmp_path):
    model = nn.VisionTransformer(VISION_CONFIG, rng=0)
    path = written_by_the_first_version(tmp_path / "a.npz", model)
    assert same(nn.load_checkpoint(path), nn.Checkpoint(model, None, {}))
    assert nn.newest_checkpoint(tmp_path, "VisionTransformer") == path


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("version", [1, 2])
def test_other_floats_and_orders_load_as_what_they_are(tmp_path, dtype, version):
    header, weights = small_parts(version)
    wanted = {name: array.astype(dtype) for name, array in weights.items()}
    if version == 2:
        header["arrays"] = records(wanted)
    (tmp_path / "a.npz").write_bytes(pack(header, {
        name: npy(array, fortran=True) for name, array in wanted.items()}))
    found = nn.load_checkpoint(tmp_path / "a.npz").model.state_dict()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array.astype(np.float32), strict=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key not in ("prompt", "start")), JSON, max_size=4),
       st.lists(st.text(max_size=4), min_size=1, max_size=6, unique=True), st.booleans())
def test_config_tokenizer_and_info_are_what_was_saved(tmp_path_factory, info, vocabulary, tie):
    path = tmp_path_factory.mktemp("checkpoints") / "a.npz"
    config = replace(GPT_CONFIG, vocab_size=len(vocabulary), tie_weights=tie, dropout=0.5)
    model, tokenizer = nn.GPT(config, rng=0), nn.WordTokenizer(vocabulary)
    nn.save_checkpoint(path, model, tokenizer, info)
    found = nn.load_checkpoint(path)
    assert same(found, nn.Checkpoint(model, tokenizer, info)) and found.info == info


def test_the_header_has_a_digest_of_each_array_and_a_digest_of_its_own(tmp_path):
    model = nn.GPT(GPT_CONFIG, rng=0)
    path = nn.save_checkpoint(tmp_path / "a.npz", model)
    with np.load(path, allow_pickle=False) as archive:
        text = archive["checkpoint.json"].tobytes()
        assert archive["checkpoint.sha256"].tobytes() == hashlib.sha256(text).digest()
        names = {name for name in archive.files if name.startswith("weight:")}
    header = json.loads(text)
    assert header["format"] == "tape checkpoint 2" and header["model"] == "GPT"
    assert {f"weight:{name}" for name in header["arrays"]} == names
    assert header["arrays"]["tokens.weight"] == {
        "shape": [5, 8], "dtype": "<f4", "sha256": digest(model.tokens.weight.data)}


# --- what a configuration calls for ---


@pytest.mark.parametrize("config", [
    GPT_CONFIG, CONFIG, replace(GPT_CONFIG, bias=False, norm="post"),
    replace(GPT_CONFIG, position="sinusoidal"),
    replace(GPT_CONFIG, tie_weights=False, norm="post"),
    replace(GPT_CONFIG, position="sinusoidal", tie_weights=False, bias=False), VISION_CONFIG,
    nn.VisionConfig((9, 3), 3, 1, n_layer=1, n_head=1, n_embd=1), replace(VISION_CONFIG, pool="class")])
def test_the_shapes_that_a_configuration_calls_for_are_those_of_the_model(config):
    (kind,) = [kind for kind in MODELS.values() if kind.config is type(config)]
    state = kind.model(config, rng=0).state_dict()
    assert list(config.parameter_shapes()) == [(name, array.shape) for name, array in state.items()]


@pytest.mark.parametrize("changes, message", [
    ({"n_layer": 10 ** 6}, "calls for a weight 'blocks.2.norm1.weight', which is missing"),
    ({"n_layer": 1}, "a GPT of this configuration has no weight 'blocks.1.norm1.weight'"),
    ({"n_embd": 10 ** 9}, "tokens.weight' must have shape .5, 1000000000., got .5, 8."),
    ({"block_size": 10 ** 12}, "positions.weight' must have shape"),
    ({"vocab_size": -5}, "vocab_size must be a positive integer, got -5"),
    ({"n_layer": True}, "n_layer must be a positive integer, got True"),
    ({"n_layer": 2.0}, "n_layer must be a positive integer, got 2.0"),
    ({"n_layer": "2"}, "n_layer must be a positive integer, got '2'"),
    ({"dropout": float("nan")}, "dropout must be a finite number, got nan"),
    ({"dropout": 1}, "p must be in .0, 1., got 1"),
    ({"bias": 1}, "bias must be true or false, got 1"),
    ({"norm": "no"}, "has no weight 'norm.weight'"), ({"norm": 1}, "norm must be a text, got 1"),
    ({"activation": "no"}, "FeedForward: activation must be one of"),
    ({"more": 1}, "config must have the fields of a GPTConfig; missing .., unknown .'more'."),
    ({"n_head": 3}, "n_head must divide n_embd")])
@pytest.mark.parametrize("version", [1, 2])
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, changes, message, version):
    header, weights = parts(nn.GPT(GPT_CONFIG, rng=0), version=version)
    header["config"] |= changes
    (tmp_path / "a.npz").write_bytes(pack(header, weights))
    with counting_calls() as calls, pytest.raises(
            nn.CheckpointError, match=f"a.npz does not fit together: .*{message}"):
        nn.load_checkpoint(tmp_path / "a.npz")
    assert calls[0] < 100_000           # a million layers would be a dozen calls each


def test_a_table_of_sinusoids_is_not_made_from_a_number_alone(tmp_path):
    config = replace(GPT_CONFIG, position="sinusoidal")
    header, weights = parts(nn.GPT(config, rng=0))
    header["config"]["block_size"] = 10 ** 9
    (tmp_path / "a.npz").write_bytes(pack(header, weights))
    with pytest.raises(nn.CheckpointError, match="block_size . n_embd must be at most 16777216"):
        nn.load_checkpoint(tmp_path / "a.npz")


# --- weights ---


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    path = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(GPT_CONFIG, rng=0), info={"step": 1})
    model = nn.GPT(GPT_CONFIG, rng=1)
    model.blocks[1].norm2.weight.data[2] = value
    message = (f"has a weight 'blocks.1.norm2.weight' with numbers that are not finite: 1 of 8, "
               f"the first is {value} at .2,.")
    with pytest.raises(nn.CheckpointError, match=f"a.npz was not written: .* hold {message}"):
        nn.save_checkpoint(path, model)
    assert nn.load_checkpoint(path).info == {"step": 1} and os.listdir(tmp_path) == ["a.npz"]
    for version in (1, 2):
        path.write_bytes(pack(*parts(model, version=version)))
        with pytest.raises(nn.CheckpointError, match=f"a.npz {message}"):
            nn.load_checkpoint(path)


def test_a_weight_too_large_for_float32_is_refused(tmp_path):
    header, weights = small_parts(1)
    weights["norm.weight"] = np.array([1, 1e39])
    (tmp_path / "a.npz").write_bytes(pack(header, weights))
    with pytest.raises(nn.CheckpointError, match="'norm.weight' .* not finite"):
        nn.load_checkpoint(tmp_path / "a.npz")


def test_a_digest_finds_what_the_checksums_of_the_archive_do_not(tmp_path):
    header, weights = small_parts(2)
    query, key = "blocks.0.attention.query.weight", "blocks.0.attention.key.weight"
    exchanged = weights | {query: weights[key], key: weights[query]}
    (tmp_path / "a.npz").write_bytes(pack(header | {"arrays": records(weights)}, exchanged))
    with pytest.raises(nn.CheckpointError, match=f"the weight '{query}' is not the array whose"):
        nn.load_checkpoint(tmp_path / "a.npz")


def test_an_array_read_as_half_as_wide_numbers_is_refused(tmp_path):
    for version in (1, 2):
        data = pack(*small_parts(version))
        for at in (i for i in range(len(data)) if data.startswith(b"<f4", i)):
            (tmp_path / "a.npz").write_bytes(data[:at] + b"<f2" + data[at + 3:])
            with pytest.raises(nn.CheckpointError):
                nn.load_checkpoint(tmp_path / "a.npz")


# --- what could not be loaded is not written ---


@pytest.mark.parametrize("arguments, message", [
    ({"tokenizer": nn.CharTokenizer("abc")}, "3 tokens for a vocabulary of 5"),
    ({"info": {"prompt": 3}}, "info must be a dict, and its prompt a text"),
    ({"info": {"start": []}}, "info must be a dict, and its start a text"),
    ({"info": {"many": [[]] * 10 ** 6}}, "values is too much for a file of"),
    ({"info": 3}, "info must be a dict")])
def test_what_could_not_be_loaded_is_not_written(tmp_path, arguments, message):
    with pytest.raises(nn.CheckpointError, match=f"a.npz was not written: .*{message}"):
        nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(GPT_CONFIG, rng=0), **arguments)
    assert os.listdir(tmp_path) == []


def test_a_model_with_a_parameter_of_its_own_is_not_written(tmp_path):
    model = nn.GPT(GPT_CONFIG, rng=0)
    model.scale = nn.Parameter([1.0])
    with pytest.raises(nn.CheckpointError, match="of this configuration has no weight 'scale'"):
        nn.save_checkpoint(tmp_path / "a.npz", model)
    del model.scale
    model.norm.weight = nn.Parameter(np.ones(4, np.float32))
    with pytest.raises(nn.CheckpointError, match="'norm.weight' must have shape .8,., got .4,."):
        nn.save_checkpoint(tmp_path / "a.npz", model)


# --- files that are none ---


@pytest.mark.parametrize("version", [1, 2])
def test_a_deflate_bomb_is_refused_before_it_is_inflated(tmp_path, version):
    for name, data in bombs(version, BOMB):
        (tmp_path / "a.npz").write_bytes(data)
        peak, message = peak_of_loading(tmp_path / "a.npz")
        assert message and peak < BOMB // 16, name
    assert "compressed" in message


@pytest.mark.parametrize("name, message", [
    ("entry 1 twice", "there are two entries '"), ("no header", "not a checkpoint "),
    ("an empty archive", "not a checkpoint "), ("trailing bytes", "does not end as an .npz"),
    ("an entry 'more.npy' more", "it has an entry 'more'"),
    ("an entry 'weight:more.npy' more", "has no weight 'more'"),
    ("no digest of the header", "the entry 'checkpoint.sha256' is missing"),
    ("digest of another text", "'checkpoint.json' is not the text whose digest is in"),
    ("100,000 empty entries", "a directory of 4600000 bytes in a file of 4600022"),
    ("directory {'crc': 0}", "the bytes of 'weight:norm.weight' do not have their checksum"),
    ("one entry listed 1,000 times", "is damaged")])
def test_what_is_wrong_is_said(tmp_path, name, message):
    (tmp_path / "a.npz").write_bytes(dict(crafted_archives(2))[name])
    with pytest.raises(nn.CheckpointError, match=f"a.npz .*{message}"):
        nn.load_checkpoint(tmp_path / "a.npz")


def test_memory_stays_below_ten_times_the_file(tmp_path):
    config = nn.GPTConfig(5000, 4, 1, 1, 4, bias=False)
    tokenizer = nn.WordTokenizer([str(i) for i in range(5000)])
    small = nn.save_checkpoint(tmp_path / "words.npz", nn.GPT(config, rng=0), tokenizer)
    deep = nn.GPT(nn.GPTConfig(5, 4, 60, 1, 1, bias=False), rng=0)
    narrow = written_by_the_first_version(tmp_path / "deep.npz", deep)
    for path in (small, narrow, nn.save_checkpoint(tmp_path / "deep2.npz", deep)):
        peak, message = peak_of_loading(path)
        assert not message and peak < 10 * path.stat().st_size


def test_a_file_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    path = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(GPT_CONFIG, rng=0))

    def refused(*arguments):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr("nn.training.checkpoint.archive.open", refused, raising=False)
    with pytest.raises(nn.CheckpointError, match="a.npz cannot be read: Permission denied"):
        nn.load_checkpoint(path)
    assert nn.newest_checkpoint(tmp_path) == path


def test_newest_checkpoint_passes_over_folders_and_links_to_nothing(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        nn.newest_checkpoint(tmp_path)
    path = nn.save_checkpoint(tmp_path / "a.npz", nn.GPT(GPT_CONFIG, rng=0))
    assert nn.newest_checkpoint(tmp_path) == path
