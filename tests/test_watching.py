"""What a training says: its costs, its log, its plot, its samples, the line on a terminal."""

import csv
import io
import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import nn
import tape
import train
from nn.cli.curves import draw_curves
from nn.data.dates import date_pairs
from nn.jobs import text, translate
from nn.jobs.verify import compared
from nn.jobs.watching import sample_of, shown
from nn.training.checkpoint import load_training
from nn.training.costs import costs
from nn.training.engines import TapeEngine
from nn.training.history import History, LogFile, Row
from nn.training.progress import Progress
from tests.checks import refused
from tests import test_resume
from tests.test_resume import JOBS, SMALL_TEXT, arguments, stop_after, timeless

data = test_resume.data             # the fixture: a folder with small files
RUN = (*SMALL_TEXT, "--steps", "30", "--eval-interval", "5", "--log-interval", "3")


# --- costs ---


def text_engine(arch, micro=None, dropout=0.0, **sizes):
    o = text.with_sizes(text.Flags(arch=arch, dropout=dropout, **sizes))
    model = text.make_model(o, 65)
    return TapeEngine(model, nn.AdamW(model.parameters(), lr=0.1), micro_batch_size=micro)


@pytest.mark.parametrize("layers, heads, width, length", [
    (1, 2, 8, 16), (3, 4, 32, 48), (2, 1, 16, 256)])
def test_the_operations_of_a_gpt_are_those_of_palms_formula(layers, heads, width, length):
    engine = text_engine("gpt", n_layer=layers, n_head=heads, n_embd=width, block_size=length)
    idx = np.zeros((3, length), int)
    matrices = sum(p.size for name, p in engine.model.named_parameters()
                   if p.ndim == 2 and "position" not in name)
    found = costs(engine, (idx, idx))
    assert found.flops == found.examples * (6 * matrices + 12 * layers * width * length)
    assert found.examples == 3 * length and found.kind == "token"


def seq2seq_engine():
    training, held_out = date_pairs(50, 5, 0)
    translator = translate.Translator(translate.Flags(n_embd=16), training + held_out)
    model = translator.model
    return TapeEngine(model, nn.Adam(model.parameters(), lr=0.1)), translator.batch(training[:8])


def vision_engine():
    model = nn.VisionTransformer(nn.VisionConfig((8, 8), 2, 10, 1, 2, 8), rng=0)
    images = np.random.default_rng(0).random((5, 8, 8), np.float32)
    return TapeEngine(model, nn.SGD(model.parameters(), lr=0.1)), (images, np.arange(5))


@pytest.mark.parametrize("make", [
    *(lambda arch=arch: (text_engine(arch, n_embd=16, n_layer=2, dropout=0.1),
                         (np.zeros((2, 64), int),) * 2) for arch in text.SIZES),
    seq2seq_engine, vision_engine], ids=[*text.SIZES, "seq2seq", "vision"])
def test_costs_are_those_of_a_step_that_is_run(make):
    engine, batch = make()
    before = {name: rng.bit_generator.state for name, rng in engine.streams.items()}
    found = costs(engine, batch)
    assert {name: rng.bit_generator.state for name, rng in engine.streams.items()} == before
    with tape.measure() as cost:
        _, loss = engine.model(*batch)
    assert found.flops == cost.flops + cost.backward_flops > 0
    assert found.activations == cost.bytes_kept > 0
    loss.backward()
    parameters = engine.model.parameters()
    assert found.weights == sum(p.data.nbytes for p in parameters)
    assert found.gradients == sum(p.grad.nbytes for p in parameters)
    engine.optimizer.step()
    assert found.optimizer == sum(a.nbytes for a in engine.optimizer.state_dict().values())


def test_micro_batches_keep_less_and_compute_the_same():
    batch = (np.zeros((8, 64), int),) * 2
    whole, part = (costs(text_engine("gpt", micro, n_embd=16), batch) for micro in (None, 2))
    assert part.flops == whole.flops and 3.5 < whole.activations / part.activations <= 4


@pytest.mark.parametrize("job", JOBS)
def test_costs_stand_in_a_block_of_80_columns(job, data, capsys):
    assert train.main([*arguments(job), "--seconds", "0.001"]) == 0
    printed = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(printed) if line.startswith("memory of a step"))
    block = printed[:printed.index("", start)]
    assert max(map(len, block)) <= 80
    rows = [line for line in block if re.match(r"  (for|weights|gradients|opt|act|together)", line)]
    known = job not in ("static", "images static", "scalars")
    assert len(rows) == (7 if known else 4) and {line.index(".", 40) for line in rows} == {50}
    assert ("without its results" in printed[start]) is not known


# --- the log ---


def test_a_log_has_what_the_lines_say_and_more(data, capsys):
    assert train.main([*RUN, "--log", "a/b.csv"]) == 0
    lines = re.findall(r"^step +(\d+)/30   loss +(\S+)(?:   val (\S+))?",
                       capsys.readouterr().out, re.MULTILINE)
    with open("a/b.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "validation_loss", "learning_rate", "gradient_norm",
                             "tokens", "seconds"]
    assert [(r["step"], f"{float(r['loss']):.4f}", r["validation_loss"] and
             f"{float(r['validation_loss']):.4f}") for r in rows] == lines
    assert [int(r["tokens"]) for r in rows] == [int(r["step"]) * 12 * 8 for r in rows]
    rate = nn.warmup_cosine(29, peak=3e-3, warmup=3, total=30, floor=3e-4)
    assert float(rows[-1]["learning_rate"]) == pytest.approx(rate, rel=1e-12)
    assert all(0 < float(r["gradient_norm"]) < 100 for r in rows)
    seconds = [float(r["seconds"]) for r in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_the_gradient_norm_is_that_before_clipping():
    engine = text_engine("gpt", n_embd=8, n_layer=1)
    engine.grad_clip = 1e-3
    batch = (np.arange(64)[None] % 65,) * 2
    twin = text_engine("gpt", n_embd=8, n_layer=1).model
    twin(*batch)[1].backward()
    engine.update(1, batch, 0.1)
    whole = np.sqrt(sum(np.sum(np.square(p.grad, dtype=float)) for p in twin.parameters()))
    assert engine.grad_norm == pytest.approx(whole, rel=1e-5) and whole > 0.01


def test_after_a_kill_the_log_has_neither_a_gap_nor_a_duplicate(data, capsys):
    """The run was killed after more lines than were saved: the checkpoint is of an earlier step."""
    assert train.main([*RUN, "--out", "whole", "--log", "whole.jsonl"]) == 0
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, 11)
        assert train.main([*RUN, "--out", "parts", "--log", "parts.jsonl"]) == 143
    saved = Path("parts/last.npz").read_bytes()
    assert train.main(["--resume", "parts"]) == 0
    Path("parts/last.npz").write_bytes(saved)
    with open("parts.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 33')                         # a line that the kill cut
    assert train.main(["--resume", "parts"]) == 0
    whole, parts = ([{**json.loads(line), "seconds": 0}
                     for line in Path(f"{name}.jsonl").read_text().splitlines()]
                    for name in ("whole", "parts"))
    assert whole == parts and whole[0]["validation_loss"] is None and whole[1]["step"] == 5


def test_a_log_that_is_first_asked_for_by_resume_is_complete(data, capsys):
    assert train.main([*RUN, "--out", "a", "--log", "whole.csv"]) == 0
    before = Path("whole.csv").read_text()
    assert train.main(["--resume", "a", "--log", "other.csv"]) == 0
    assert Path("other.csv").read_text() == before


def test_other_files_are_not_replaced_by_a_log(data, capsys):
    Path("mine.csv").write_text("mine")
    for more in ([], ["--out", "b"]):
        assert "mine.csv exists and is not the log of this run" in refused(
            capsys, train.main, *RUN, *more, "--log", "mine.csv")
    assert train.main([*RUN, "--out", "a"]) == 0
    assert "exists and is not" in refused(capsys, train.main, "--resume", "a", "--log", "mine.csv")
    assert Path("mine.csv").read_text() == "mine"
    assert train.main([*RUN, "--out", "a", "--overwrite", "--log", "mine.csv"]) == 0
    assert timeless("mine.csv")[0].startswith("step,loss")
    assert "must end in .csv or .jsonl, got 'a.txt'" in refused(
        capsys, train.main, *RUN, "--log", "a.txt")
    assert "leave --out, --resume, --replay, --seconds, --log, --plot out" in refused(
        capsys, train.main, *RUN, "--log", "c.csv", "--verify-resume")
    assert not Path("checkpoints").exists() and not Path("b").exists()


def test_a_history_that_does_not_fit_is_refused_and_none_is_a_beginning(data, capsys):
    history = History()
    history.load({})
    assert history.rows == [] and history.arrays()["history"].shape == (0, 6)
    row = Row(3, 2.5, math.nan, 0.1, math.nan, 96, 1.25)
    history.add(row)
    other = History("tokens")
    other.load(history.arrays())
    np.testing.assert_equal(other.rows, [row])
    assert [type(x) for x in other.rows[0]] == [int, *[float] * 4, int, float]
    for table, seconds in ((np.zeros((2, 6)), np.zeros(1)), (np.full((1, 6), np.nan), np.zeros(1)),
                           (np.zeros((1, 5)), np.zeros(1)), (np.zeros(6), np.zeros(()))):
        with pytest.raises(ValueError, match="its history must be numbers"):
            history.load({"history": table, "history.seconds": seconds})
    log = LogFile(data / "x.csv", other)
    log.close()
    assert (data / "x.csv").read_text().splitlines()[1] == "3,2.5,,0.1,,96,1.25"


# --- the limits ---


def test_a_target_loss_ends_a_run_that_goes_on_with_a_lower_one(data, capsys):
    assert train.main([*RUN, "--out", "whole"]) == 0
    rows = load_training("whole/last.npz").training.arrays["history"]
    measured = rows[~np.isnan(rows[:, 2])]
    target = f"{measured[2, 2] + 1e-6:.7f}"                              # at step 15
    capsys.readouterr()
    assert train.main([*RUN, "--out", "a", "--target-loss", target, "--log", "a.csv"]) == 0
    printed = capsys.readouterr().out
    reason = (r"^ended after step 15 of 30: the validation loss \S+ is at most \S+\n"
              r"to go on beyond that:\n  python train.py text --resume a$\n"
              r"with another --target-loss: a run that goes on keeps the one that it has$")
    assert re.search(reason, printed, re.MULTILINE)
    assert "after 15 steps, over all" in printed and load_training("a/last.npz").info["step"] == 15
    assert train.main(["--resume", "a"]) == 0                              # nothing is left to do
    assert "ended after step 15 of 30" in capsys.readouterr().out
    assert train.main(["--resume", "a", "--target-loss", "0"]) == 0
    assert compared(*(load_training(f"{name}/last.npz") for name in ("whole", "a"))) == []
    assert timeless("a.csv")[-1].startswith("30,")


def test_patience_counts_evaluations_over_resumes(data, monkeypatch, capsys):
    flags = [*SMALL_TEXT, "--steps", "9", "--eval-interval", "1", "--patience", "3", "--out", "a"]
    given = iter([3.0, 2.0, 2.5, 2.0, 2.1, 1.0])
    monkeypatch.setattr("nn.jobs.text.validation_loss", lambda *_: next(given))
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        assert train.main(flags) == 143
    assert train.main(["--resume", "a"]) == 0
    assert "ended after step 5 of 9: no validation loss below 2.0000 in 3 evaluations\n" in (
        capsys.readouterr().out)
    assert train.main(["--resume", "a"]) == 0                  # not one step more
    assert load_training("a/last.npz").info["step"] == 5
    best = nn.load_checkpoint("a/best.npz").info
    assert (best["step"], best["validation_loss"]) == (2, 2.0)


def test_patience_is_the_same_where_a_kill_came_between_the_best_and_the_last(
        data, monkeypatch, capsys):
    losses = {1: 3.0, 2: 2.5, 3: 2.4, 4: 2.6, 5: 2.7, 6: 2.0}
    flags = [*SMALL_TEXT, "--steps", "6", "--eval-interval", "1", "--patience", "2", "--out", "a"]

    def run(words, step):
        given = iter([losses[i] for i in range(step + 1, 7)])
        monkeypatch.setattr("nn.jobs.text.validation_loss", lambda *_: next(given))
        return train.main(words)
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert run(flags, 0) == 143
    saved = Path("a/last.npz").read_bytes()
    assert run(["--resume", "a"], 2) == 0
    assert "ended after step 5 of 6" in capsys.readouterr().out
    Path("a/last.npz").write_bytes(saved)                    # best.npz is that of step 3
    assert run(["--resume", "a"], 2) == 0
    assert "ended after step 5 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("job", JOBS)
def test_seconds_end_each_job_saved_and_it_goes_on_to_the_same_result(job, data, capsys):
    assert train.main([*arguments(job), "--out", "whole"]) == 0
    assert train.main([*arguments(job), "--out", "a", "--seconds", "0.0001"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ended after step 1 of \d+: 0.0001 seconds of training are over$", printed,
                     re.MULTILINE)
    assert load_training("a/last.npz").training.values["position"]["step"] == 1
    assert train.main(["--resume", "a"]) == 0               # the seconds before count
    assert load_training("a/last.npz").training.values["position"]["step"] == 1
    assert train.main(["--resume", "a", "--seconds", "1e6"]) == 0
    assert "ended after" not in capsys.readouterr().out.rpartition("ended after step 1 ")[2]
    assert compared(*(load_training(f"{name}/last.npz") for name in ("whole", "a"))) == []


def test_limits_of_a_validation_loss_are_for_jobs_that_have_one(data, capsys):
    message = refused(capsys, train.main, "images", "--patience", "3")
    assert "--patience is a flag of text, not of train.py images" in message


def test_a_checkpoint_from_before_the_limits_goes_on(data, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        assert train.main([*RUN, "--out", "a"]) == 143
    found = load_training("a/last.npz")
    for name in ("stale", "seconds"):
        del found.training.values["position"][name]
    for name in ("target_loss", "patience", "seconds", "log", "plot", "sample"):
        del found.training.values["settings"][name]
    for name in ("history", "history.seconds"):
        del found.training.arrays[name]
    nn.save_checkpoint("a/last.npz", found.model, found.tokenizer, found.info, found.training)
    assert train.main(["--resume", "a", "--log", "a.csv"]) == 0
    assert timeless("a.csv")[1].startswith("9,") and timeless("a.csv")[-1].startswith("30,")


# --- samples ---


@pytest.mark.parametrize("job", ["text", "lstm", "names", "scalars"])
def test_samples_do_not_change_the_training(job, data, monkeypatch, capsys):
    assert train.main([*arguments(job), "--out", "plain"]) == 0
    assert "  | " not in capsys.readouterr().out
    assert train.main([*arguments(job), "--out", "a", "--sample", "20"]) == 0
    whole = capsys.readouterr().out
    assert compared(*(load_training(f"{name}/last.npz") for name in ("plain", "a"))) == []
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        assert train.main([*arguments(job), "--out", "parts", "--sample", "20"]) == 143
    assert train.main(["--resume", "parts"]) == 0
    samples = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  |")]
    assert samples == [line for line in whole.splitlines() if line.startswith("  |")] and samples


@pytest.mark.parametrize("info", [{"prompt": "a"}, {"prompt": "", "start": "\n", "stop": 0}])
def test_a_sample_has_as_many_characters_and_the_same_each_time(info):
    model = nn.GPT(nn.GPTConfig(3, 4, 1, 1, 4), rng=0)
    tokenizer = nn.CharTokenizer(["\n", "a", "b"])
    found = sample_of(model, tokenizer, info, 30, (0, 0, 3))
    assert found == sample_of(model, tokenizer, info, 30, (0, 0, 3))
    assert found != sample_of(model, tokenizer, info, 30, (1, 0, 3))
    inner = "\n".join(line[4:] for line in found.split("\n"))
    assert 20 < len(inner) <= 30 and set(inner) == {"\n", "a", "b"}


def test_a_sample_is_shown_in_lines_that_fit_and_steer_no_terminal():
    assert shown("a\x1b[2Jb\n\nc" + "x" * 100 + "\n") == (
        "  | a\ufffd[2Jb\n  |\n  | c" + "x" * 73 + "\n  | " + "x" * 27)


# --- the plot ---


@pytest.mark.parametrize("job", ["text", "static", "names", "images"])
def test_a_plot_is_drawn_at_the_end_and_when_stopped_and_again_by_resume(
        job, data, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    with monkeypatch.context() as patched:
        stop_after(patched, 20 if job == "names" else 12)
        assert train.main([*arguments(job), "--out", "a", "--plot", "p/a.png"]) == 143
    assert Path("p/a.png").read_bytes().startswith(b"\x89PNG")
    os.remove("p/a.png")
    assert train.main(["--resume", "a", "--plot", "b.svg"]) == 0
    assert "<svg" in Path("b.svg").read_text(encoding="utf-8") and not Path("p/a.png").exists()
    capsys.readouterr()
    assert "the name must end in one of" in refused(
        capsys, train.main, "--resume", "a", "--plot", "b.xyz")


def test_a_plot_has_labels_units_and_the_numbers_of_the_history(monkeypatch, tmp_path):
    figure_module = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure_module.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    history = History("tokens")
    for step in range(1, 5):
        history.add(Row(step * 10, 4.0 / step, 5.0 / step if step % 2 == 0 else math.nan, 0.1 * step,
                        1.0, step * 100, step * 120.0))
    draw_curves(tmp_path / "a.png", history, {"ln V": 4.1})
    by_step, by_time, rates = drawn[0].axes
    assert (by_step.get_xlabel(), by_step.get_ylabel()) == ("step", "loss in nats per token")
    assert by_time.get_xlabel() == "time of training and evaluations in minutes"
    assert rates.get_ylabel() == "learning rate"
    training, validation, stick = by_step.lines
    assert training.get_xydata().tolist() == [[10, 4], [20, 2], [30, 4 / 3], [40, 1]]
    assert validation.get_xydata().tolist() == [[20, 2.5], [40, 1.25]]
    assert list(stick.get_ydata()) == [4.1, 4.1]
    assert list(by_time.lines[0].get_xdata()) == [2, 4, 6, 8]
    assert rates.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == [
        "training, mean since the point before", "validation", "ln V: 4.100"]


# --- the terminal ---


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize("library", [True, False], ids=["tqdm", "no tqdm"])
@pytest.mark.parametrize("job", ["text", "names", "images", "sentences"])
def test_the_line_on_a_terminal_is_on_stderr_and_removed(
        job, library, data, monkeypatch, capsys):
    if library:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("nn.training.progress.PULSE", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    assert train.main([*arguments(job)]) == 0
    printed = capsys.readouterr().out
    assert "\r" not in printed and "\x1b" not in printed
    pieces = [piece for piece in re.split("[\r\n]", terminal.getvalue()) if piece.strip()]
    name = "epoch" if job == "images" else "step"
    assert len(pieces) > 4 and all(re.match(rf"{name} +[\d.]+/\d+   loss  \d\.\d{{4}}   \d+:\d\d left",
                                            piece) for piece in pieces)
    assert all(("%" in piece) is library and len(piece) <= 76 for piece in pieces)
    assert not re.split("[\r\n]", terminal.getvalue().rstrip("\r"))[-1].strip()


def test_without_a_terminal_there_are_lines_alone(data, capsys):
    assert train.main([*RUN]) == 0
    assert capsys.readouterr().err == ""


def test_the_line_is_drawn_at_most_ten_times_a_second(monkeypatch):
    terminal, now = Terminal(), [0.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr("nn.training.progress.time.perf_counter", lambda: now[0])
    with Progress(1000, 1) as progress:
        for step in range(1, 1001):
            now[0] += 0.001
            progress.pulse(step, 1.0)
    assert terminal.getvalue().count("step") in (9, 10)
