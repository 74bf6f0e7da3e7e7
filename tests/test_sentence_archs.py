"""The architectures of train.py sentences: each recites what the README's table says."""

import re

import pytest

import nn
import train
from nn.jobs.sentences import ARCHS, SENTENCES
from tests.checks import refused
from tests.systems import ROWS

TABLE = {row.flags.arch: row for row in ROWS if row.job == "sentences" and row.flags.engine == "tape"}


@pytest.mark.parametrize("arch", ARCHS)
def test_a_few_steps_of_each(arch, folder, capsys):
    assert train.main(["sentences", "--arch", arch, "--steps", "5"]) == 0
    out = capsys.readouterr().out
    assert f"; {arch}, engine tape" in out
    config = nn.load_checkpoint("checkpoints/latest/last.npz").model.config
    assert {name: getattr(config, name) for name in ARCHS[arch]} == ARCHS[arch]


@pytest.mark.parametrize("arch", [name for name in ARCHS if name != "decoder"])    # see test_scripts.py
def test_each_recites_what_the_readme_says(arch, folder, capsys):
    pattern = r"(\d+) of 10 sentences, loss (\S+) nats"
    recited, loss = re.fullmatch(pattern, TABLE[arch].reached).groups()
    train.main(["--arch", arch])
    out = capsys.readouterr().out
    assert f"memorised {recited}/{len(SENTENCES)}" in out and recited == "10"
    assert float(re.findall(r"500/500 +loss +(\S+)", out)[0]) == pytest.approx(float(loss), rel=0.15)


def test_flags_go_before_the_architecture(folder, capsys):
    train.main(["--arch", "gelu", "--n-layer", "1", "--n-head", "2", "--n-embd", "8", "--steps", "1"])
    config = nn.load_checkpoint("checkpoints/latest/last.npz").model.config
    assert (config.n_layer, config.n_head, config.n_embd, config.activation) == (1, 2, 8, "gelu")


@pytest.mark.parametrize("arguments, message", [
    (["--arch", "geul"], "--arch: invalid choice: 'geul'"),
    (["--arch", "gelu", "--engine", "static"], "static is for --arch decoder alone, got --arch gelu"),
    (["--arch", "single-head", "--n-head", "5"], "--n-head must divide --n-embd, got 5 and 64")])
def test_what_does_not_fit_is_refused(arguments, message, folder, capsys):
    assert message in refused(capsys, train.main, *arguments)
