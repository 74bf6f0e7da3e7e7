"""Mistakes of users and full disks: one line that says what to do, exit status 2, and at once."""

import errno
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import generate
import nn
import train
from nn.cli import memory
from nn.cli.script import one_line
from nn.jobs import text
from nn.models.configuration import parameter_count
from nn.training.checkpoint import save
from tests.checks import ROOT, Recorder, refused

SMALL = ("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16", "--steps", "1")
CONFIGS = [
    (nn.GPT, nn.GPTConfig(65, 16, 3, 2, 24)),
    (nn.GPT, nn.GPTConfig(65, 16, 1, 4, 24, norm="post", tie_weights=False, position="sinusoidal")),
    (nn.GPT, nn.GPTConfig(65, 16, 4, 4, 32, activation="swiglu", norm_kind="rms", bias=False,
                          n_kv_head=2, position="rotary")),
    (nn.RecurrentLM, nn.RecurrentConfig(65, 16, "gru", 3, 20)),
    (nn.RecurrentLM, nn.RecurrentConfig(65, 16, "rnn", 1, 20)),
    (nn.VisionTransformer, nn.VisionConfig((8, 8), 4, 10, 2, 2, 16)),
    (nn.Seq2SeqTransformer, nn.Seq2SeqConfig(40, 30, 12, 2, 2, 16))]


@pytest.fixture
def data(folder):
    """The name of a small text."""
    (folder / "small.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    return "small.txt"


# --- memory ---


@pytest.mark.parametrize("kind, config", CONFIGS, ids=lambda x: getattr(x, "__name__", None))
def test_the_parameters_of_a_configuration_are_those_of_its_model(kind, config):
    assert parameter_count(config) == kind(config, 0).parameter_count()


@pytest.mark.parametrize("kind, config", [CONFIGS[0], CONFIGS[2], CONFIGS[3], CONFIGS[4]],
                         ids=["gpt", "llama", "gru", "rnn"])
def test_the_memory_is_a_lower_bound_of_what_a_model_takes(kind, config):
    model, idx = kind(config, 0), np.zeros((5, 16), np.int64)
    found = nn.summary(model, idx, idx)
    least = memory.training_memory(config, 5, 16, copies=4)
    exact = 4 * found.parameter_bytes + found.activation_bytes
    assert exact / 4 < least < exact


@pytest.mark.parametrize("kind, config", [CONFIGS[0], CONFIGS[2]], ids=["gpt", "llama"])
def test_with_checkpointing_a_lower_bound_is_still_one(kind, config):
    model, idx = kind(config, 0), np.zeros((5, 16), np.int64)
    nn.checkpoint_blocks(model)
    found = nn.summary(model, idx, idx)
    least = memory.training_memory(config, 5, 16, copies=4, checkpointing=True)
    assert least <= memory.training_memory(config, 5, 16, copies=4)
    inside = memory.training_memory(config, 5, 16, 0) / config.n_layer         # of one block, at most
    assert least < 4 * found.parameter_bytes + found.activation_bytes + inside


def test_rows_that_are_computed_in_parts_need_the_memory_of_one_part(monkeypatch, data, capsys):
    large = ["text", "--data", data, "--n-embd", "64", "--block-size", "32", "--batch-size", "4096"]
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 ** 27)
    assert "--batch-size" in refused(capsys, train.main, *large, "--steps", "1")
    assert "--micro-batch-size" in refused(capsys, train.main, *large, "--micro-batch-size", "4000")
    config = nn.GPTConfig(vocab_size=99, block_size=32, n_layer=4, n_head=4, n_embd=64)
    memory.check_memory(config, 16, 32, copies=4)


@pytest.mark.parametrize("arguments, remedy", [
    (["--n-layer", "1000000000"], r"at most --n-layer \d+ "),
    (["--n-embd", "100000000000000000", "--n-head", "4"], r"at most --n-embd \d+ "),
    (["text", "--n-layer", "1000000000"], r"--n-layer \d+ "),
    (["text", "--arch", "lstm", "--n-layer", "1000000000"], r"--n-layer \d+ "),
    (["text", "--batch-size", "1000000000000000000"], r"--batch-size \d+ "),
    (["names", "--n-layer", "1000000000"], r"--n-layer \d+ "),
    (["names", "--block-size", "1000000000000000"], "make several sizes smaller"),
    (["translate", "--n-embd", "400000000"], r"--n-embd \d+ "),
    (["images", "--n-layer", "1000000000"], r"--n-layer \d+ "),
    (["images", "--engine", "static", "--n-embd", "1000000000"], "make --n-embd smaller")])
def test_a_model_that_does_not_fit_is_refused_before_memory_is_taken(arguments, remedy, data, capsys):
    if arguments[0] == "images":
        pytest.importorskip("sklearn")
    extra = ["--data", data] if arguments[0] == "text" else []
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    err = refused(capsys, train.main, *arguments, *extra)
    assert re.search(r"not enough memory: this training takes at least [\d.,e+]+ \wiB, and the machine "
                     r"has [\d.,]+ \wiB\. ", err)
    assert re.search(remedy, err, re.IGNORECASE)
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000        # KiB
    assert not list(Path("checkpoints").glob("*"))


def test_the_setting_that_is_named_fits_and_one_more_does_not(data, capsys, monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 20 * 2**20)
    err = refused(capsys, train.main, "text", "--data", data, "--n-layer", "100")
    layers, width, batch = (int(re.search(rf"{name} (\d+)", err).group(1))
                            if name in err else 0 for name in ("--n-layer", "--n-embd", "--batch-size"))
    assert batch == 0 and width % 4 == 0
    flags = ("text", "--data", data, "--steps", "1", "--batch-size", "1")
    for good, name, one_more in ((layers, "--n-layer", 1), (width, "--n-embd", 4)):
        o = text.with_sizes(text.Flags(n_layer=100, **{name[2:].replace("-", "_"): good})
                            if name != "--n-layer" else text.Flags(n_layer=good))
        text.make_model(o, 27)
        more = ["--n-layer", "100"] if name != "--n-layer" else []
        assert "not enough memory" in refused(capsys, train.main, *flags[:5], *more, name,
                                              str(good + one_more))


def test_the_memory_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "memory.max")
    whole = memory.machine_memory()
    assert whole is None or whole > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.machine_memory() == whole
    (tmp_path / "memory.max").write_text("1048576\n")
    assert memory.machine_memory() == 2**20


# --- numbers, names and paths ---


@pytest.mark.parametrize("arguments, message", [
    (["--batch-size", "1" + "0" * 23], "of at most 9,223,372,036,854,775,807, got one of 24"),
    (["--seed", "9" * 500], "got one of 500 digits"),
    (["--seed", "9" * 5000], "must be an integer >= 0"),
    (["--out", "a" * 5000], "File name too long"), (["--data", "a" * 5000], "File name too long"),
    (["--resume", "a" * 5000], "File name too long"), (["--arch", "x" * 9000], "invalid choice"),
    (["--" + "y" * 9000], "unknown argument"),
    (["--out", "a\x1b[31mb\udcff\n/dev/null/x.npz"], r"a\x1b[31mb\udcff"),
    (["--n-embd", "66"], "--n-head must divide --n-embd, got 4 and 66; the nearest that works is "
                         "--n-head 3, or --n-embd 64"),
    (["--n-embd", "67", "--n-head", "900000000000"], "the nearest that works is --n-head 67, or "),
    (["--block-size", "5000"], "the largest that works is 263")])
def test_what_is_too_large_or_too_long_is_one_short_line(arguments, message, data, capsys):
    extra = [] if "--data" in arguments or "--resume" in arguments else ["--data", data]
    err = refused(capsys, train.main, "text", *arguments, *extra)
    assert message in err
    assert len(err) < 450 and err.count("\n") == 1 and "Errno" not in err and "Config" not in err


@pytest.mark.parametrize("job, given, advice", [
    ("text", "--max-iters", "it is called --steps here"), ("text", "--max_iters=5", "--steps here"),
    ("text", "--learning-rate", "--lr here"), ("text", "--learning_rate=1e-3", "--lr here"),
    ("text", "--eval-iters", "--eval-batches here"), ("text", "--n_layer", "did you mean --n-layer?"),
    ("text", "--epochs", "--steps here"), ("images", "--steps", "--epochs here"),
    ("text", "--gradient-accumulation-steps", "-size here"), ("text", "--out_dir", "--out here"),
    ("text", "--warmup_iters=3", "--warmup here"), ("text", "--max-grad-norm", "--grad-clip here"),
    ("text", "--device", "no choice of a device"), ("text", "--device=cuda", "no choice of a device"),
    ("text", "--compile", "where Numba is installed"), ("sentences", "--d-model", "--n-embd here"),
    ("images", "--num-epochs", "--epochs here"), ("sentences", "--grad-clip", "is a flag of text")])
def test_names_of_other_programs_get_ours(job, given, advice, capsys):
    err = refused(capsys, train.main, job, given)
    assert f"unknown argument {given!r}; " in err and advice in err


def test_generate_knows_them_too(capsys):
    assert "did you mean --num-samples?" in refused(capsys, generate.main, "--num_samples", "3")
    assert "it is called --prompt here" in refused(capsys, generate.main, "--start", "x")


def test_a_line_is_short_and_printable():
    assert one_line("a b\nc\x1b") == r"a b c\x1b"
    assert one_line("héé \u20ac") == "héé \u20ac"
    assert len(one_line("word " * 500)) <= 400 and len(one_line("x" * 500)) <= 120


# --- clipping ---


def test_clipping_can_be_turned_off(data, capsys, monkeypatch):
    recorder = Recorder(nn.training.engines.clip_grad_norm)
    monkeypatch.setattr(nn.training.engines, "clip_grad_norm", recorder)
    for given in ("0", "0.5"):
        assert train.main(["text", "--data", data, *SMALL, "--grad-clip", given]) == 0
    assert [call[0][1] for call in recorder.calls] == [np.inf, 0.5]
    assert "must be a number >= 0, got '-1'" in refused(
        capsys, train.main, "text", "--grad-clip", "-1")


# --- what cannot be written ---


@pytest.mark.parametrize("arguments", [["text", "--data", "small.txt", *SMALL], ["--steps", "1"],
                                       ["--help"], ["text", "--help"]])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_standard_output_that_is_full_is_one_line(arguments, data):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, str(ROOT / "train.py"), *arguments], stdout=full,
                              stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (
        2, b"train.py: error: cannot write: No space left on device\n")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, str(ROOT / "train.py"), "--wings"],
                              stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("job, first", [("text", "best.npz"), ("sentences", "last.npz")])
def test_a_full_disk_is_reported_with_the_name_of_the_file(job, first, data, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(save.os, "fsync", full)
    err = refused(capsys, train.main, job, *(("--data", data, *SMALL) if job == "text" else
                                             ("--steps", "1")), "--out", "run")
    assert err == f"train.py: error: cannot write run/{first}: No space left on device\n"
    assert not list(Path("run").glob("*.npz"))


def test_a_file_system_that_is_full(folder, capsys):
    """The same without a pretence, where the user may mount a small one."""
    Path("disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "disk"],
                      capture_output=True).returncode:
        pytest.skip("mounting is not allowed")
    try:
        err = refused(capsys, train.main, "--steps", "1", "--out", "disk/run")
        assert err == "train.py: error: cannot write disk/run/last.npz: No space left on device\n"
        assert not Path("disk/run").exists()
    finally:
        subprocess.run(["umount", "disk"], check=True)
