"""Presets, files of settings, and the options of a model, from the command line."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import nn
import train
from nn.jobs import run, settings, text
from nn.jobs.settings import PRESETS
from nn.models.configuration import parameter_count
from nn.training.checkpoint import load_training
from tests.checks import refused

SMALL = ("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16", "--steps", "2")
INI = "[text]\nn-layer = 1\nn_head = 2\nn-embd = 16\nblock-size = 8\nsteps = 3\nlines = yes\n"
TOML = '[text]\nn-layer = 1\nn_head = 2\nn-embd = 16\nblock-size = 8\nsteps = 3\nlines = true\n'


@pytest.fixture
def data(folder):
    """The name of a small text."""
    (folder / "small.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    return "small.txt"


def saved(folder="checkpoints/latest"):
    """The settings that the last checkpoint of a run says it was trained with."""
    return load_training(Path(folder) / "last.npz").training.values["settings"]


def flags_of(name, *arguments):
    """What train.py makes of a preset and flags."""
    job, sources = settings.settings_of(None, ["--preset", name, *arguments], train.JOBS, train.DEFAULT)
    own = train.parser(job)
    given = [word for source, found in sources for word in own.arguments(found, source)]
    return own.parse([*given, *arguments])


# --- presets ---


def test_the_list_has_a_line_for_each_job_and_preset(capsys):
    assert train.main(["--list"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert [line[0] for line in lines] == [*train.JOBS, *PRESETS]
    assert "  sentences        memorise ten sentences.\n" in out
    assert max(map(len, out.split("\n"))) <= 80


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_flags_of_its_job(name):
    preset, found = PRESETS[name], flags_of(name)
    assert {key: getattr(found, key) for key in preset.settings} == preset.settings


def test_two_presets_are_the_defaults():
    for name in ("sentences", "shakespeare-cpu"):
        o, job = flags_of(name), train.JOBS[PRESETS[name].job]
        default = job.flags() if name == "sentences" else text.with_sizes(text.Flags())
        for field in fields(o):
            if field.name != "preset":
                assert getattr(o, field.name) == getattr(default, field.name), field.name


def test_baby_gpt_is_the_setting_of_nanogpt_and_llama_tiny_has_the_parts_of_llama():
    baby = text.configuration(text.with_sizes(flags_of("baby-gpt")), 65)
    assert (baby.n_layer, baby.n_head, baby.n_embd) == (6, 6, 384)
    assert (baby.block_size, baby.dropout) == (256, 0.2)
    assert round(parameter_count(baby) / 1e6, 1) == 10.7
    llama = text.configuration(text.with_sizes(flags_of("llama-tiny")), 65)
    assert (llama.norm_kind, llama.activation, llama.position, llama.bias, llama.tie_weights) == (
        "rms", "swiglu", "rotary", False, False)
    assert (llama.n_head, llama.n_kv_head) == (4, 2) and 7e5 < parameter_count(llama) < 9e5


@pytest.mark.parametrize("name", PRESETS)
def test_flags_win_over_a_preset_which_trains(name, data, capsys):
    job = PRESETS[name].job
    more = ["--data", data, "--block-size", "16", "--batch-size", "2"] if job == "text" else []
    assert train.main(["--preset", name, *more, "--steps", "1", "--n-layer", "1"]) == 0
    expected = {**PRESETS[name].settings, "steps": 1, "n_layer": 1}
    if job == "text":
        expected |= {"block_size": 16, "batch_size": 2}
    assert expected.items() <= saved().items()


# --- files ---


@pytest.mark.parametrize("name, content", [
    ("a.ini", INI), pytest.param("a.toml", TOML, marks=pytest.mark.skipif(
        sys.version_info < (3, 11), reason="tomllib is of Python 3.11"))])
def test_a_file_sets_flags_and_those_of_the_command_line_win(name, content, data, capsys):
    Path(name).write_text(content)
    more = ["--config", name, "--data", data, "--steps", "2", "--no-lines"]
    for job in ([], ["text"]):
        assert train.main([*job, *more]) == 0
        assert {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8, "steps": 2,
                "lines": False}.items() <= saved().items()


def test_a_file_wins_over_a_preset(data, capsys):
    Path("a.ini").write_text("[text]\nn-layer = 1\nsteps = 1\nblock-size = 8\n[names]\nsteps = 7\n")
    assert train.main(["--preset", "llama-tiny", "--config", "a.ini", "--data", data]) == 0
    expected = {"n_layer": 1, "steps": 1, "activation": "swiglu", "block_size": 8}
    assert expected.items() <= saved().items()


@pytest.mark.parametrize("arguments", [
    ["text", "--data", "small.txt", *SMALL, "--lines", "--no-tie-weights", "--grad-clip", "0"],
    ["--steps", "2", "--arch", "gelu", "--lr", "0.01"],
    ["names", "--data", "small.txt", "--steps", "2"],
    ["translate", "--steps", "2", "--dates", "20", "--held-out", "3", "--n-layer", "1"]])
def test_the_settings_of_a_run_are_beside_its_checkpoint_and_make_the_same_run(arguments, data, capsys):
    assert train.main([*arguments, "--out", "one"]) == 0
    assert train.main(["--config", "one/config.ini", "--out", "two"]) == 0
    assert saved("one") == saved("two")
    assert Path("one/config.ini").read_text() == Path("two/config.ini").read_text()
    first, second = (load_training(Path(name) / "last.npz").model.state_dict()
                     for name in ("one", "two"))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    capsys.readouterr()
    assert train.main(["--resume", "one"]) == 0             # a run that has ended, gone on with


def test_a_path_that_is_no_utf8_is_kept(data, capsys):
    odd = b"sm\xffall.txt".decode("utf-8", "surrogateescape")
    Path(data).rename(odd)
    assert train.main(["text", "--data", odd, *SMALL, "--out", "one"]) == 0
    assert train.main(["--config", "one/config.ini", "--out", "two"]) == 0


@pytest.mark.parametrize("name, content, message", [
    ("a.ini", "[text]\nlearning-rate = 1\n",
     "--config a.ini: unknown argument '--learning-rate=1'; it is called --lr here"),
    ("a.ini", "[text]\nstesp = 1\n",
     "--config a.ini: unknown argument '--stesp=1'; did you mean --steps?"),
    ("a.ini", "[text]\nsteps = none\n", "a.ini: argument --steps: must be an integer >= 1, got 'none'"),
    ("a.ini", "[text]\nlines = perhaps\n", "a.ini: lines must be true or false, got 'perhaps'"),
    ("a.ini", "[txet]\nsteps = 1\n", "a.ini: [txet] is no job; unknown 'txet'; did you mean 'text'?"),
    ("a.ini", "[text]\nsteps\n", "a.ini is no .ini file"), ("a.ini", "", "a.ini names no job"),
    ("a.ini", "steps = 1\n", "must begin with the name of a job in brackets, as [text]; line 1"),
    ("a.ini", "[names]\n[text]\n", "a.ini is for several jobs, [names] and [text]; name one: "),
    ("a.yaml", "text:", "--config: must be a .ini or .toml file, got 'a.yaml'"),
    ("a.toml", "[text", "a.toml"), ("a.toml", "steps = 1", "steps stands before one"),
    ("a.toml", "[text]\nsteps = [1]", "steps must be a number, a text, true or false")])
def test_a_file_that_cannot_be_used_is_refused(name, content, message, folder, capsys):
    if name.endswith("toml") and sys.version_info < (3, 11):
        message = "needs Python 3.11"
    Path(name).write_text(content)
    assert message in refused(capsys, train.main, "--config", name)


def test_before_python_3_11_a_toml_file_is_refused_in_words(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    Path("a.toml").write_text(TOML)
    assert "needs Python 3.11, which reads .toml files; write the same as an .ini file" in refused(
        capsys, train.main, "--config", "a.toml")


@pytest.mark.parametrize("arguments, message", [
    (["--preset", "baby-gtp"], "--preset: unknown 'baby-gtp'; did you mean 'baby-gpt'?"),
    (["--preset", "xyz"], "--preset: unknown 'xyz'; known: sentences, shakespeare-cpu, baby-gpt"),
    (["names", "--preset", "baby-gpt"], "--preset baby-gpt is of the job text, not of names: python "
                                        "train.py text ..."),
    (["names", "--config", "a.ini"], "a.ini has no section [names], but [text]"),
    (["--preset", "llama-tiny", "--config", "b.ini"], "b.ini has no section [text], but [names]"),
    (["--config", "missing.ini"], "missing.ini: No such file or directory")])
def test_a_source_that_does_not_fit_is_refused(arguments, message, folder, capsys):
    Path("a.ini").write_text(INI)
    Path("b.ini").write_text("[names]\nsteps = 1\n")
    assert message in refused(capsys, train.main, *arguments)


def test_a_run_that_is_older_than_a_flag_can_be_gone_on_with(data, capsys, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(run, "OWN", (*run.OWN, "norm", "bias", "position"))
        assert train.main(["text", "--data", data, *SMALL, "--out", "one"]) == 0
    assert "norm" not in saved("one")
    assert train.main(["--resume", "one"]) == 0
    assert "norm: 'pre' when saved, 'post' now" in refused(
        capsys, train.main, "--resume", "one", "--norm", "post")


# --- the options of the model ---


@pytest.mark.parametrize("given, expected", [
    (["--norm", "post"], {"norm": "post"}), (["--norm-kind", "rms"], {"norm_kind": "rms"}),
    (["--activation", "swiglu"], {"activation": "swiglu", "d_ff": 43}),
    (["--position", "rotary"], {"position": "rotary"}),
    (["--position", "alibi"], {"position": "alibi"}),
    (["--n-kv-head", "1"], {"n_kv_head": 1}), (["--d-ff", "20"], {"d_ff": 20}),
    (["--bias"], {"bias": True}), (["--no-tie-weights"], {"tie_weights": False}),
    ([], {"norm": "pre", "norm_kind": "layer", "activation": "gelu", "position": "learned",
          "n_kv_head": 2, "d_ff": 64, "bias": False, "tie_weights": True})])
def test_a_flag_of_the_model_reaches_its_configuration(given, expected, data, capsys):
    assert train.main(["text", "--data", data, *SMALL, *given]) == 0
    config = nn.load_checkpoint("checkpoints/latest/last.npz").model.config
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("arguments, message", [
    (["--arch", "lstm", "--norm", "post"], "--norm is not for --arch lstm, which has no attention"),
    (["--arch", "rnn", "--no-tie-weights"], "--tie-weights is not for --arch rnn"),
    (["--n-kv-head", "3"], "--n-kv-head must divide --n-head, got 3 and 2"),
    (["--n-embd", "18", "--n-head", "2", "--position", "rotary"], "must be even, got 18 / 2"),
    (["--activation", "tanh"], "--activation: invalid choice: 'tanh'")])
def test_a_model_that_cannot_be_is_refused(arguments, message, data, capsys):
    err = refused(capsys, train.main, "text", "--data", data, *(
        () if "--arch" in arguments else SMALL), *arguments)
    assert message in err


@pytest.mark.parametrize("job", train.JOBS)
def test_help_has_groups_and_a_default_for_every_flag(job, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        train.main([job, "--help"])
    out = capsys.readouterr().out
    headings = ["the model", "the optimiser", "the data", "the run", "what is shown"]
    found = re.findall(r"^(the .+|what is shown):$", out, re.MULTILINE)
    assert found == [heading for heading in headings if heading in found] and len(found) >= 4
    places = [out.index("\nthe model:\n")]
    for entry in re.split(r"\n(?=  --)", out[places[0]:])[1:]:
        assert re.search(r"\(default: .+\)|\(without PATH: ", " ".join(entry.split())), entry


@pytest.mark.parametrize("name", ["resume", "preset", "config", "replay", "overwrite"])
def test_what_concerns_one_call_is_refused_in_a_file(name, folder, capsys):
    (folder / "c.ini").write_text(f"[sentences]\n{name} = a\n")
    error = refused(capsys, train.main, "--config", "c.ini")
    assert f"{name} is no setting of a run, but of a call; give --{name}" in error


@pytest.mark.parametrize("suffix, text", [("ini", INI), ("toml", TOML)])
def test_a_file_may_begin_with_the_mark_of_utf_8(suffix, text, folder):
    from nn.cli.config_file import read_config
    for encoding in ("utf-8", "utf-8-sig"):
        (folder / f"{encoding}.{suffix}").write_text(text, encoding=encoding)
    assert read_config(Path(f"utf-8-sig.{suffix}")) == read_config(Path(f"utf-8.{suffix}"))
