"""train.py and generate.py, run as a user runs them: what they print, write and refuse."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import generate
import nn
import tape
import train
from nn.cli.script import command
from nn.data.text import python_help_text
from nn.jobs import run, text
from nn.jobs.sentences import SENTENCES
from nn.training import engines
from tests.checks import ROOT, Recorder, refused


def small_text(folder, length=2000):
    path = folder / "small.txt"
    path.write_text(("the quick brown fox jumps over the lazy dog. héé\n" * 100)[:length],
                    encoding="utf-8")
    return str(path)


SMALL = ("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16")


@pytest.mark.parametrize("seed", range(5))
def test_the_default_run_memorises_ten_of_ten(seed, folder, capsys):
    assert train.main(["--seed", str(seed)]) == 0
    out = capsys.readouterr().out
    assert "memorised 10/10" in out
    for sentence in SENTENCES:
        assert f"= {sentence}\n" in out
    assert "61,120 parameters, 120 tokens a step" in out and "ln 87 = 4.466 nats per token" in out


def test_the_ten_sentences_begin_with_different_words_and_share_many():
    words = [sentence.split() for sentence in SENTENCES]
    assert len({w[0] for w in words}) == len(words) == 10
    assert sum(map(len, words)) > len({w for sentence in words for w in sentence}) + 20


def test_generate_recites_from_the_checkpoint_that_the_default_run_wrote(folder, capsys):
    train.main([])
    printed = capsys.readouterr().out
    assert re.search(r"  python generate.py \\\n"
                     r"    --checkpoint checkpoints/sentences-\d{8}-\d{6}/last.npz \\\n"
                     r'    --prompt "the old" --temperature 0\n$', printed)
    assert generate.main(["--prompt", "the old", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == SENTENCES[0] + "\n"


def test_log_lines_have_a_fixed_format(folder, capsys):
    train.main(["--steps", "6", "--log-interval", "2"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    pattern = r"step +\d+/6   loss +\d+\.\d{4}   +[\d,]+ tokens/s   \d+:\d\d left"
    assert all(re.fullmatch(pattern, line) for line in lines)


def test_five_steps_on_a_text_and_generate(folder, capsys):
    arguments = ["text", "--data", small_text(folder), *SMALL, "--steps", "5", "--eval-interval", "2"]
    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    assert re.search(r"1,800 characters to train on, 200 to\s+validate on", out)
    assert re.search(r"/best.npz \\\n    --temperature 0.8\n$", out)
    assert len(re.findall(r"   val \d", out)) == 3
    assert {p.name for p in Path("checkpoints/latest").iterdir()} == {
        "last.npz", "best.npz", "config.ini"}
    assert generate.main(["--prompt", "the ", "--max-new-tokens", "7", "--seed", "1"]) == 0
    generated = capsys.readouterr().out
    assert generated.startswith("the ") and len(generated) == 4 + 7 + 1


def test_the_validation_interval_does_not_change_the_training(folder, capsys):
    weights = []
    for interval in ("1", "4"):
        train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "4", "--dropout", "0.1",
                    "--eval-interval", interval, "--out", interval])
        weights.append(nn.load_checkpoint(Path(interval) / "last.npz").model.state_dict())
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


def test_training_learns(folder, capsys):
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "150",
                "--warmup", "5"])
    loss = float(re.search(r"validation loss (\d\.\d+)", capsys.readouterr().out).group(1))
    assert 0.5 < loss < 2.0   # letter frequencies alone give 3.0


def test_validation_loss_is_the_mean_over_all_tokens():
    """Rows of 4, 4 and 2 tokens: an average of averages would be another number."""
    model = nn.GPT(nn.GPTConfig(5, 4, 1, 1, 8, dropout=0.5), rng=0)
    ids = np.array([0, 1, 2, 3, 4, 0, 2, 4, 1, 3, 0])
    total = 0.0
    for start in (0, 4, 8):
        row = ids[start:start + 5]
        with nn.evaluating(model):
            logits = model(row[None, :-1])[0].data[0].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        total -= np.log(p[np.arange(len(row) - 1), row[1:]]).sum()
    assert text.validation_loss(model, model, ids) == pytest.approx(total / 10, rel=1e-5)


def test_what_validates_is_never_trained_on_and_every_flag_reaches_its_place(
        folder, monkeypatch, capsys):
    recorders = {}
    for owner, name in [(text, "random_batch"), (text, "validation_loss"), (nn, "AdamW"),
                        (engines, "clip_grad_norm"), (nn, "decay_groups"), (nn, "warmup_cosine"),
                        (nn, "GPTConfig")]:
        recorders[name] = Recorder(getattr(owner, name))
        monkeypatch.setattr(owner, name, recorders[name])
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "20", "--batch-size", "3",
                "--dropout", "0.25", "--lr", "0.002", "--warmup", "2", "--weight-decay", "0.3",
                "--grad-clip", "0.7", "--seed", "5", "--workers", "2", "--eval-batches", "7"])
    whole = Path(small_text(folder)).read_text(encoding="utf-8")
    tokenizer = nn.CharTokenizer.from_text(whole)
    (ids, batch, block, seed, step), _ = recorders["random_batch"].calls[6]
    assert tokenizer.decode(ids) == whole[:1800] and (batch, block, seed, step) == (3, 16, 5, 7)
    (run, model, held_out, sample), _ = recorders["validation_loss"].calls[0]
    assert isinstance(run, nn.DataParallel) or tape.kernels_in_use() == "numba"
    assert getattr(run, "workers", 2) == sample - 5 == 2 and tokenizer.decode(held_out) == whole[1800:]
    assert recorders["GPTConfig"].calls[0][1] == {
        "vocab_size": len(tokenizer), "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16,
        "dropout": 0.25, "bias": False, "norm": "pre", "norm_kind": "layer", "activation": "gelu",
        "position": "learned", "tie_weights": True, "d_ff": 0, "n_kv_head": 0}
    assert recorders["decay_groups"].calls[0][0][1] == 0.3
    assert [call[0][1] for call in recorders["clip_grad_norm"].calls] == [0.7] * 20
    rates = [call[1] for call in recorders["warmup_cosine"].calls]
    assert rates[0] == {"peak": 0.002, "warmup": 2, "total": 20, "floor": 0.0002}
    assert [call[0][0] for call in recorders["warmup_cosine"].calls] == list(range(20))


def test_flags_of_generate_reach_it_and_dropout_is_off(folder, monkeypatch, capsys):
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "2", "--dropout", "0.9"])
    capsys.readouterr()
    generate.main(["--prompt", "the", "--temperature", "0.5", "--top-k", "3", "--seed", "4",
                   "--max-new-tokens", "5"])
    best = nn.load_checkpoint("checkpoints/latest/best.npz")
    model, tokenizer = best.model, best.tokenizer
    tokens = nn.generate(model, tokenizer.encode("the"), 5, 0.5, 3, 4)
    assert capsys.readouterr().out == f"the{tokenizer.decode(tokens)}\n"
    model.train()
    assert list(nn.generate(model, [1], 8, temperature=0)) == list(
        nn.generate(model, [1], 8, temperature=0))


def test_an_interrupted_run_saves_what_it_has(folder, monkeypatch, capsys):
    def interrupt(self, step, batch, lr):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return 1.0

    monkeypatch.setattr(engines.TapeEngine, "update", interrupt)
    assert train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "9"]) == 143
    assert nn.load_checkpoint("checkpoints/latest/last.npz").info["step"] == 3
    assert re.fullmatch(r"\ntrain.py: stopped by SIGTERM after step 3, saved; to go on:\n  python "
                        r"train.py text --resume checkpoints/text-\d+-\d+\n", capsys.readouterr().err)


def test_a_validation_loss_that_is_not_finite_saves_nothing(folder, monkeypatch, capsys):
    monkeypatch.setattr(text, "validation_loss", lambda *_: float("nan"))
    err = refused(capsys, train.main, "text", "--data", small_text(folder), *SMALL, "--steps", "1")
    assert "validation loss is nan at step 1" in err
    assert not list(Path("checkpoints").glob("*"))


def test_best_is_replaced_only_by_better(folder, monkeypatch, capsys):
    losses = iter([3.0, 2.0, 2.5])
    monkeypatch.setattr(text, "validation_loss", lambda *_: next(losses))
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "3", "--eval-interval", "1"])
    best, last = (nn.load_checkpoint(f"checkpoints/latest/{n}.npz").info
                  for n in ("best", "last"))
    assert best["step"] == 2 and last["step"] == 3
    assert "after 3 steps" in (out := capsys.readouterr().out) and "the best was 2.0000" in out


def test_the_last_weights_are_saved_at_each_validation(folder, monkeypatch, capsys):
    recorder = Recorder(run.save_checkpoint)
    monkeypatch.setattr(run, "save_checkpoint", recorder)
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "5", "--eval-interval", "2"])
    steps = [info["step"] for (path, _, _, info, _), _ in recorder.calls if path.name == "last.npz"]
    assert steps == [2, 4, 5]


def test_the_default_text_comes_with_python():
    found = python_help_text()
    assert len(found) > 100_000 and "statement" in found


def test_generate_is_fixed_by_its_seed_and_takes_the_newest_checkpoint(folder, capsys):
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "2"])
    capsys.readouterr()
    texts = []
    for seed in ("1", "1", "2"):
        generate.main(["--seed", seed, "--max-new-tokens", "30", "--top-k", "5"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


# --- mistakes: one sentence on stderr, status 2 ---


@pytest.mark.parametrize("arguments, message", [
    (["--stesp", "3"], "unknown argument '--stesp'; did you mean --steps?"),
    (["--step", "3"], "unknown argument '--step'; did you mean --steps?"),
    (["txet"], "unknown job 'txet'; did you mean 'text'?"),
    (["--data", "F"], "--data is a flag of text and images and names, not of train.py [sentences]"),
    (["text", "--engine", "static"], "is a flag of sentences and images, not of train.py text"),
    (["--steps", "10", "text"], "unknown argument 'text'; the job comes first: train.py text ..."),
    (["--wings", "5"], "unknown argument '--wings'; known: "),
    (["--steps", "0"], "argument --steps: must be an integer >= 1, got '0'"),
    (["--lr", "nan"], "argument --lr: must be a number > 0, got 'nan'"),
    (["--n-head", "7"], "--n-head must divide --n-embd, got 7 and 64"),
    (["text", "--data", "missing.txt"], "there is no file missing.txt"),
    (["text", "--data", "."], ". is a folder without text files"),
    (["names", "--data", "."], "is a folder"),
    (["text", "--dropout", "1"], "must be a number >= 0 and < 1, got '1'"),
    (["--steps", "1", "--out", "new.npz"], "--out: must name a folder, in which last.npz is written"),
    (["--steps", "1", "--out", "/dev/null"], "--out: /dev/null must be a folder, but is a device"),
    (["text", "--data", ""], "the name of the text is empty"),
    (["--seed", "-1"], "argument --seed: must be an integer >= 0, got '-1'"),
])
def test_train_refuses_in_words(arguments, message, folder, capsys):
    assert message in refused(capsys, train.main, *arguments)


@pytest.mark.parametrize("content, message", [
    (b"", "is empty"), (b" \n ", "is empty"),
    (b"abc\xff\xfe", "is not UTF-8 text: byte 0xff at position 3"),
    (b"ab" * 100, "for a block size of 64: the largest that works is 19"),
    (b"a", "use a longer text"),
])
def test_texts_that_cannot_be_trained_on(content, message, folder, capsys):
    (folder / "x.txt").write_bytes(content)
    assert message in refused(capsys, train.main, "text", "--data", "x.txt")


def test_a_folder_that_cannot_be_written_to(folder, capsys):
    (folder / "file").touch()
    err = refused(capsys, train.main, "--steps", "1", "--out", "file/x")
    assert "--out: cannot make the folder file/x: Not a directory" in err


@pytest.mark.parametrize("arguments", [[], ["--engine", "static"], ["text", "--data", "small.txt"],
                                       ["--help"], ["text", "--help"], ["images", "--help"],
                                       ["names", "--help"], ["translate", "--help"],
                                       ["translate", "--dates", "9", "--held-out", "9"]])
def test_output_fits_a_terminal_of_80_columns(arguments, folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    small_text(folder)
    try:
        train.main([*arguments, "--steps", "1", "--n-layer", "1"])
    except SystemExit:
        pass
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@given(st.lists(st.integers(1, 90).map("-".__mul__), min_size=1, max_size=8))
def test_a_command_breaks_between_flags_and_reads_as_one_line(parts):
    lines = command("python x.py", *parts).split(" \\\n")
    assert " ".join(line.strip() for line in lines) == " ".join(["python x.py", *parts])
    assert all(len(line) <= 77 or line.strip() in parts for line in lines)
    for line, after in zip(lines, lines[1:]):           # no sooner than it must
        assert len(f"{line} {after.split()[0]} \\") > 79


def test_training_that_diverges_stops_with_a_sentence(folder, capsys):
    err = refused(capsys, train.main, "--lr", "1e30")
    assert re.search(r"(loss is nan|not finite).*", err) and "--lr" in err


@pytest.mark.parametrize("arguments, message", [
    (["--checkpoint", "missing.npz"], "there is no checkpoint at missing.npz"),
    (["--checkpoint", str(ROOT / "setup.cfg")], "setup.cfg is not a checkpoint"),
    ([], "no checkpoint in checkpoints"),
    (["--checkpoint", "."], ". is a folder; name a file in it"),
    (["--temperature", "-1"], "must be a number >= 0, got '-1'"),
    (["--promt", "x"], "did you mean --prompt?"),
    (["the old"], 'unknown argument \'the old\'; did you mean --prompt "the old"?'),
])
def test_generate_refuses_in_words(arguments, message, folder, capsys):
    assert message in refused(capsys, generate.main, *arguments)


def test_a_prompt_with_an_unknown_character_or_none_at_all(folder, capsys):
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "1"])
    capsys.readouterr()
    assert "character 'Q' at position 1" in refused(capsys, generate.main, "--prompt", "tQ")
    assert "at least one token" in refused(capsys, generate.main, "--prompt", "")


def test_help_shows_defaults(folder, capsys):
    for main, arguments, shown in [(train.main, ["--help"], "default: 500"),
                                   (train.main, ["text", "--help"], "default: 2000"),
                                   (generate.main, ["--help"], "default: 0.8")]:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0 and shown in capsys.readouterr().out


def test_as_processes_with_another_encoding_and_a_reader_that_leaves(folder):
    train.main(["text", "--data", small_text(folder), *SMALL, "--steps", "1"])
    script = [sys.executable, str(ROOT / "generate.py"), "--max-new-tokens", "300"]
    done = subprocess.run(script, capture_output=True, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stderr == b""
    head = subprocess.Popen([*script[:-1], "30000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    head.stdout.read(1)
    head.stdout.close()
    assert head.stderr.read() == b"" and head.wait() == 141
    head.stderr.close()
