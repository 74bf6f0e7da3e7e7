"""Models in float64: made, differentiated, saved, loaded and trained, from the command line too."""

import json
from pathlib import Path

import numpy as np
import pytest

import generate
import nn
import train
from nn.generation.reader import Reader
from nn.jobs.sentences import ARCHS
from nn.models.static.gpt import language_model
from nn.training.checkpoint import load_training
from nn.training.costs import costs
from nn.training.engines import StaticEngine, TapeEngine
from tape import no_grad
from tests.checkpoint_files import pack, small_parts
from tests.checks import refused

IDX = np.random.default_rng(0).integers(0, 5, (2, 4))
TARGETS = np.random.default_rng(1).integers(0, 5, (2, 4))


def gpt(**more):
    sizes = dict(vocab_size=5, block_size=6, n_layer=2, n_head=2, n_embd=4)
    return nn.GPT(nn.GPTConfig(**{**sizes, **more}), rng=0)


# Of each: what makes it, and a batch.
MODELS = {
    "gpt": (gpt, (IDX, TARGETS)),
    "decoder of 2017": (lambda: gpt(norm="post", activation="relu", position="sinusoidal",
                                    tie_weights=False), (IDX, TARGETS)),
    "llama": (lambda: gpt(norm_kind="rms", activation="swiglu", position="rotary", bias=False,
                          tie_weights=False, n_kv_head=1), (IDX, TARGETS)),
    "alibi": (lambda: gpt(position="alibi", init="orthogonal", activation="gelu_exact"),
              (IDX, TARGETS)),
    "swiglu": (lambda: gpt(activation="swiglu", init="xavier-he"), (IDX, TARGETS)),
    **{cell: (lambda cell=cell: nn.RecurrentLM(nn.RecurrentConfig(5, 6, cell, 2, 4), rng=0),
              (IDX, TARGETS)) for cell in ("rnn", "lstm", "gru")},
    "seq2seq": (lambda: nn.Seq2SeqTransformer(nn.Seq2SeqConfig(5, 5, 6, 1, 2, 4), rng=0),
                (IDX, IDX[:, :3], TARGETS[:, :3])),
    "vision": (lambda: nn.VisionTransformer(nn.VisionConfig((4, 4), 2, 3, 1, 2, 4), rng=0),
               (np.random.default_rng(2).random((2, 4, 4)), np.array([0, 2])))}


def both(name):
    """A model in float32 and in float64, and a batch."""
    make, batch = MODELS[name]
    with nn.parameters_of("float64"):
        model = make()
    return make(), model, batch


# --- models ---


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_float64_begins_as_in_float32_and_all_of_it_is_float64(name):
    single, double, batch = both(name)
    ours, theirs = dict(double.named_parameters()), dict(single.named_parameters())
    assert list(ours) == list(theirs)                    # tied weights are tied in both
    for parameter, its in zip(ours.values(), theirs.values()):
        np.testing.assert_array_equal(parameter.data, its.data.astype(np.float64), strict=True)
    logits, loss = double(*batch)
    loss.backward()
    assert logits.dtype == loss.dtype == np.float64
    assert {p.grad.dtype for p in ours.values()} == {np.dtype(np.float64)}
    np.testing.assert_allclose(loss.item(), single(*batch)[1].item(), rtol=1e-5)
    assert loss.item() != float(np.float32(loss.item()))  # digits float32 has not


@pytest.mark.parametrize("name", MODELS)
def test_gradients_in_float64_are_central_differences_of_the_loss(name):
    _, model, batch = both(name)
    rng, step = np.random.default_rng(3), 1e-5
    for parameter in model.parameters():                 # away from zeros, ones and equal rows
        parameter.data += rng.normal(0, 0.3, parameter.shape)
    model(*batch)[1].backward()
    with no_grad():
        for key, parameter in model.named_parameters():
            slopes = np.zeros(parameter.shape)
            for place in np.ndindex(parameter.shape):
                value, ends = parameter.data[place], []
                for sign in (1, -1):
                    parameter.data[place] = value + sign * step
                    ends.append(model(*batch)[1].item())
                parameter.data[place] = value
                slopes[place] = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(parameter.grad, slopes, rtol=1e-6, atol=1e-9, err_msg=key)


def test_the_positions_of_float64_have_its_digits():
    layer = nn.SinusoidalPositionalEncoding(5, 4)
    expected = [np.sin(3.0), np.cos(3.0), np.sin(0.03), np.cos(0.03)]
    for dtype in (np.float64, np.float32, np.float16):
        found = layer(np.zeros((5, 4), dtype))
        np.testing.assert_array_equal(np.asarray(found)[3], np.array(expected, dtype), strict=True)


def test_the_block_alone_has_the_dtype_and_a_dtype_that_is_given_wins():
    with nn.parameters_of("float64"):
        with nn.parameters_of("float32"):
            assert nn.Parameter(np.ones(2)).dtype == np.float32
        assert nn.Linear(2, 2).bias.dtype == np.float64
        assert nn.Parameter(np.ones(2), np.float32).dtype == np.float32
        with nn.without_memory():
            hollow = nn.Linear(10 ** 6, 10 ** 6).weight
            assert (hollow.shape, hollow.dtype) == ((10 ** 6, 10 ** 6), np.float64)
    with pytest.raises(KeyError), nn.parameters_of("float64"):
        raise KeyError
    assert nn.Linear(2, 2).bias.dtype == np.float32
    assert nn.Parameter(np.ones(2)).dtype == np.float64
    for dtype in ("float16", np.float64):
        with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64', got"):
            with nn.parameters_of(dtype):
                pass


def test_a_step_in_float64_costs_twice_the_memory():
    single, double, batch = both("llama")
    one, two = (costs(TapeEngine(model, nn.AdamW(model.parameters())), batch)
                for model in (single, double))
    counts = 8 * len(single.parameters())                # of updates, which are integers
    assert [two.weights, two.gradients, two.optimizer - counts, two.flops] == [
        2 * one.weights, 2 * one.gradients, 2 * (one.optimizer - counts), one.flops]
    assert 1.8 < two.activations / one.activations <= 2


def test_the_static_graph_takes_the_same_step_in_float64():
    _, model, batch = both("decoder of 2017")
    graph = language_model(model.config, *IDX.shape, "float64")
    static = StaticEngine(graph.run, graph.arrays(model.state_dict()))
    eager = TapeEngine(model, nn.SGD(model.parameters(), lr=0.1))
    losses = [(static.update(step, batch, 0.1), eager.update(step, batch, 0.1)) for step in range(3)]
    np.testing.assert_allclose(*zip(*losses), rtol=1e-12)
    for name, weight in graph.state(static.weights).items():
        np.testing.assert_allclose(weight, model.state_dict()[name], rtol=1e-9, atol=1e-12, strict=True)


# --- checkpoints ---


def header_of(path):
    with np.load(path, allow_pickle=False) as archive:
        return json.loads(archive["checkpoint.json"].tobytes())


@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_in_float64_comes_back_to_the_bit(name, tmp_path):
    single, double, batch = both(name)
    double.parameters()[0].data.flat[0] = 1e300          # which float32 cannot hold
    path = nn.save_checkpoint(tmp_path / "a.npz", double)
    with nn.parameters_of("float32"):                    # the file says what it is of
        found = nn.load_checkpoint(path).model
    for key, array in double.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[key], array, strict=True)
    assert header_of(path)["dtype"] == "float64"
    path = nn.save_checkpoint(tmp_path / "a.npz", single)
    with nn.parameters_of("float64"):
        found = nn.load_checkpoint(path).model
    assert {p.dtype for p in found.parameters()} == {np.dtype(np.float32)}
    assert "dtype" not in header_of(path)                # files of float32 are as they always were


def test_a_model_of_which_a_part_is_float64_is_loaded_as_float32(tmp_path):
    model = gpt()
    model.norm.weight = nn.Parameter(model.norm.weight.data.astype(np.float64))
    path = nn.save_checkpoint(tmp_path / "a.npz", model)
    assert {p.dtype for p in nn.load_checkpoint(path).model.parameters()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", ["float16", None, ["float64"], 64])
def test_a_file_of_another_dtype_is_refused(dtype, tmp_path):
    header, weights = small_parts(2)
    (tmp_path / "a.npz").write_bytes(pack(header | {"dtype": dtype}, weights))
    with pytest.raises(nn.CheckpointError, match="dtype must be float32 or float64, got"):
        nn.load_checkpoint(tmp_path / "a.npz")


# --- from the command line ---

SIZES = ("--n-layer", "1", "--n-head", "2", "--n-embd", "8")
TEXT = ("text", "--data", "t.txt", *SIZES, "--block-size", "8")
RECURRENT = ("text", "--data", "t.txt", "--n-layer", "2", "--n-embd", "8", "--arch")
COMMANDS = [
    TEXT, (*TEXT, "--checkpointing"), (*TEXT, "--micro-batch-size", "5", "--workers", "2"),
    (*TEXT, "--dropout", "0.2", "--bias", "--no-tie-weights"), (*TEXT, "--position", "sinusoidal"),
    (*TEXT, "--position", "rotary", "--n-kv-head", "1"), (*TEXT, "--position", "alibi"),
    (*TEXT, "--position", "none", "--norm", "post"), (*TEXT, "--grad-clip", "0.01"),
    (*TEXT, "--norm-kind", "rms", "--activation", "swiglu"), (*TEXT, "--tokenizer", "word"),
    (*TEXT, "--activation", "gelu_exact", "--lines", "--sample", "5"),
    *[(*RECURRENT, arch) for arch in ("rnn", "lstm", "gru")],
    *[("sentences", "--arch", arch) for arch in ARCHS], ("sentences", "--engine", "static"),
    ("names", "--data", "n.txt"),
    ("names", "--data", "n.txt", "--scalars", "--n-embd", "4", "--n-head", "2")]


@pytest.fixture
def data(folder):
    Path("t.txt").write_text("the quick brown fox\njumps over the lazy dog\n" * 30)
    Path("n.txt").write_text("abc\nbca\ncab\n")


def trained(*words):
    """What is in the last checkpoint of a run with these words behind train.py."""
    assert train.main([*words, "--out", "run", "--overwrite"]) == 0
    return load_training("run/last.npz")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_first_loss_is_that_of_float32_and_all_that_is_saved_is_float64(words, data):
    losses = {}
    for dtype in ("float32", "float64"):
        found = trained(*words, "--steps", "1", "--log-interval", "1", "--dtype", dtype)
        ((_, losses[dtype], *_),) = found.training.arrays["history"]
        kept = [array.dtype for name, array in found.training.arrays.items()
                if not name.startswith("history") and name != "losses" and array.dtype.kind == "f"]
        assert {*kept, *(p.dtype for p in found.model.parameters())} == {np.dtype(dtype)}
    np.testing.assert_allclose(losses["float64"], losses["float32"], rtol=1e-5)
    assert losses["float64"] != losses["float32"]


def test_the_dtype_is_a_setting_of_the_run_and_cannot_change(data, capsys):
    words = (*TEXT, "--steps", "2", "--log-interval", "1")
    found = trained(*words, "--dtype", "float64")
    assert "dtype = float64" in Path("run/config.ini").read_text().splitlines()
    again = trained("--config", "run/config.ini")
    for key, array in found.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[key], array, strict=True)
    assert "dtype: 'float64' when saved, 'float32' now" in refused(
        capsys, train.main, "--resume", "run", "--dtype", "float32")
    trained(*words)
    assert "dtype: 'float32' when saved, 'float64' now" in refused(
        capsys, train.main, "--resume", "run", "--dtype", "float64")


@pytest.mark.parametrize("words", [TEXT, ("sentences", "--engine", "static", "--n-embd", "8"),
                                   ("names", "--data", "n.txt")], ids=" ".join)
def test_a_run_in_float64_goes_on_to_the_bit(words, data, capsys):
    assert train.main([*words, "--steps", "6", "--dtype", "float64", "--verify-resume"]) == 0
    assert "the same to the last bit: 6 steps" in capsys.readouterr().out


def test_another_dtype_is_refused_and_help_has_it_under_the_model(capsys):
    assert "--dtype: invalid choice: 'float16'" in refused(
        capsys, train.main, "text", "--dtype", "float16")
    with pytest.raises(SystemExit):
        train.main(["names", "--help"])
    model = capsys.readouterr().out.partition("the model:")[2].partition("\n\n")[0]
    assert "--dtype {float32,float64}" in model


@pytest.mark.parametrize("more", [
    [], ["--no-cache"], ["--explain"], ["--num-samples", "2"], ["--beams", "2"], ["--top-p", "0.9"]],
    ids=" ".join)
def test_text_is_generated_in_float64(more, data, capsys):
    trained(*TEXT, "--steps", "3", "--dtype", "float64")
    capsys.readouterr()
    assert generate.main(["--checkpoint", "run/last.npz", "--max-new-tokens", "12", "--prompt", "the",
                          *more]) == 0
    assert "the" in capsys.readouterr().out


def test_a_text_is_scored_in_float64_as_in_float32(data, capsys):
    said = []
    for dtype in ("float32", "float64"):
        trained(*TEXT, "--steps", "3", "--dtype", dtype)
        capsys.readouterr()
        assert generate.main(["--checkpoint", "run/last.npz", "--score", "t.txt"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "perplexity" in said[0]


def test_the_cache_of_a_model_in_float64_has_its_digits():
    _, model, _ = both("gpt")
    cached, plain = Reader(model), Reader(model, use_cache=False)
    for length in range(1, 8):                           # beyond the block of 6 tokens too
        ours, theirs = (reader.read([[1, 2, 0, 3, 4, 1, 2]], length) for reader in (cached, plain))
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
