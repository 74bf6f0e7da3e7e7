"""python -m nn.attention_cost with small lengths: the table, what is skipped, and the picture."""

import re
import sys

import numpy as np
import pytest

import tape
from nn import attention_cost
from nn.attention_cost import Costs, measure
from tests.checks import ROOT, refused, run_python

SMALL = ("--heads", "2", "--width", "16", "--repeats", "1")
ROW = r"^ +{} +[\d,.]+ ms +([\d,.]+) MiB +[\d,.]+ ms +([\d,.]+) MiB +(\d\.\de-0[678])$"


def memory_in(out, length):
    plain, blockwise, _ = re.search(ROW.format(length), out, re.MULTILINE).groups()
    return float(plain), float(blockwise)


def test_a_row_for_each_length_and_how_memory_grows(capsys):
    assert attention_cost.main([*SMALL, "--lengths", "1024", "256", "512", "256", "2048"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Causal attention, 2 heads of 8, float32, forward and backward\n")
    assert [int(n.replace(",", "")) for n in re.findall(r"^ +([\d,]+) +\d.*e-0\d$", out, re.M)] == [
        256, 512, 1024, 2048]
    for length in ("256", "512", "1,024", "2,048"):
        plain, blockwise = memory_in(out, length)
        assert blockwise < plain
    assert memory_in(out, "2,048")[0] > 16 * memory_in(out, "2,048")[1]
    power = dict(re.findall(r"(\w+): memory grows as length\^([\d.]+), fitted from 256 tokens on", out))
    assert float(power["plain"]) > 1.75 and float(power["blockwise"]) < 1.1


def test_memory_is_the_same_at_every_run_and_all_there_is():
    """The weights, and besides less than twenty arrays as large as q."""
    shape = (2, 300, 8)
    measure(tape.causal_attention, shape, 1)
    _, _, first = measure(tape.causal_attention, shape, 1)
    found, seconds, again = measure(tape.causal_attention, shape, 1)
    assert abs(first - again) < 1000 and seconds > 0
    weights = 2 * 300 * 300 * 4
    assert weights < again < weights + 20 * 2 * 300 * 8 * 4
    assert [x.shape for x in found] == [shape] * 4


def test_the_exponent_is_that_of_a_power():
    costs = Costs(memory={n: 3 * n ** 2 for n in (8, 100, 200, 800)})
    assert costs.exponent() == (pytest.approx(2), 100)
    assert Costs(memory={10: 5}).exponent() is None


def test_the_plain_form_is_left_out_where_it_would_not_fit(capsys):
    limit = ("--memory-limit", "0.001", "--lengths", "64", "400")
    assert attention_cost.main([*SMALL, *limit]) == 0
    out = capsys.readouterr().out
    assert re.search(ROW.format(64), out, re.MULTILINE)
    assert re.search(r"^ +400 +- +- +[\d.]+ ms +[\d.]+ MiB +-  plain skipped: needs about 1.2 MiB, may "
                     r"take 1.0 MiB$", out, re.MULTILINE)
    assert "plain: memory" not in out and "blockwise: memory grows" in out


def test_without_the_flag_the_limit_is_the_memory_that_is_free(monkeypatch, capsys):
    assert 10 * 2 ** 20 < attention_cost.free_memory()
    monkeypatch.setattr(attention_cost, "free_memory", lambda: 0)
    assert attention_cost.main([*SMALL, "--lengths", "16"]) == 0
    assert "may take 0.0 MiB" in capsys.readouterr().out


def test_forms_that_differ_end_in_an_error(monkeypatch, capsys):
    monkeypatch.setitem(attention_cost.FORMS, "blockwise",
                        lambda q, k, v: tape.attention(q, k, v, causal=True) * (1 + 1e-4))
    assert attention_cost.main([*SMALL, "--lengths", "16"]) == 1
    assert re.search(r"the two differ by \d\.\de-04: that is not rounding", capsys.readouterr().err)


@pytest.mark.parametrize("flags, message", [
    (["--heads", "3"], "--heads must divide --width, got 3 and 128"),
    (["--lengths", "8", "0"], "argument --lengths: must be an integer >= 1, got '0'"),
    (["--save", "cost.xyz"], "--save: the name must end in one of "),
    (["--length", "8"], "did you mean --lengths?")])
def test_a_mistake_ends_in_one_line(flags, message, folder, capsys):
    if "--save" in flags:
        pytest.importorskip("matplotlib")
    assert message in refused(capsys, attention_cost.main, *flags)


def test_without_matplotlib_the_message_says_how_to_get_it(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    error = refused(capsys, attention_cost.main, "--save", "cost.png")
    assert "--save: pictures are drawn by matplotlib, which is not installed: pip install" in error


def test_the_picture_has_both_forms_with_units(folder, monkeypatch, capsys):
    figures = pytest.importorskip("matplotlib.figure")
    seen = []
    save = figures.Figure.savefig
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *a, **k: (
        seen.append(self), save(self, *a, **k)))
    flags = ("--lengths", "64", "128", "300", "--memory-limit", "0.0006", "--save", "new/cost.png")
    assert attention_cost.main([*SMALL, *flags]) == 0
    assert (folder / "new/cost.png").read_bytes().startswith(b"\x89PNG")
    assert "saved new/cost.png" in capsys.readouterr().out
    labels = []
    for axes in seen[0].axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert [t.get_text() for t in axes.get_xticklabels()] == ["64", "128", "300"]
        assert [[*line.get_xdata()] for line in axes.lines] == [[64, 128], [64, 128, 300]]
        assert all(np.isfinite(line.get_ydata()).all() for line in axes.lines)
        assert [t.get_text().split(",")[0] for t in axes.get_legend().get_texts()] == [
            "plain", "blockwise"]
        labels += [axes.get_xlabel(), axes.get_ylabel()]
    length = "length of the sequence (tokens)"
    assert labels == [length, "time (ms)", length, "peak memory (MiB)"]


def test_it_runs_as_a_module():
    result = run_python("-m", "nn.attention_cost", *SMALL, "--lengths", "8")
    assert result.returncode == 0 and result.stderr == ""
    assert re.search(ROW.format(8), result.stdout, re.MULTILINE)


def test_the_readme_shows_the_memory_that_is_measured():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| [\d,.]+ m?s \| ([\d,]+) MiB \| [\d,.]+ m?s \| ([\d.]+) MiB \|$",
                      readme, re.MULTILINE)
    assert [row[0] for row in rows] == ["512", "2,048", "8,192"]
    length, *shown = rows[0]
    for form, memory in zip(attention_cost.FORMS.values(), shown, strict=True):
        _, _, peak = measure(form, (4, int(length), 32), 1)
        assert peak / 2 ** 20 == pytest.approx(float(memory), rel=0.1)
