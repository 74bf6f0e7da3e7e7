"""The short form of the fuzzer of checkpoints: all that is crafted, and a part of the flips."""

import numpy as np
import pytest

from tests.checkpoint_fuzz import Judge, damages, flipped, main


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_damaged_checkpoint_loads_right_or_is_refused(tmp_path, version):
    judge = Judge(tmp_path, version, save=version >= 2)
    assert judge.look("none", judge.whole) == "right"
    for damage, data, note in damages(judge, np.random.default_rng(0), share=0.006):
        judge.look(damage, data, note)
    assert judge.failures == []
    assert judge.counts["crafted", "refused"] > 300
    assert judge.counts["bit in numbers", "right"] == 0


def test_the_fuzzer_notices_other_numbers_and_other_errors(tmp_path, monkeypatch):
    judge = Judge(tmp_path, 2, save=True)
    load = "tests.checkpoint_fuzz.nn.load_checkpoint"
    judge.original.model.norm.weight.data[0] += 1
    assert judge.look("none", judge.whole) == "FAILED"
    monkeypatch.setattr(load, lambda path: 1 / 0)
    assert judge.look("none", flipped(judge.whole, 0, 0)) == "FAILED"
    assert [text.split(": ")[2] for text in judge.failures] == ["other numbers",
                                                                "ZeroDivisionError"]


def test_the_command_says_how_it_ended(capsys, monkeypatch):
    monkeypatch.setattr("tests.checkpoint_fuzz.crafted", lambda version, bomb: [("nothing", b"")])
    assert main(["--share", "0.0005"]) == 0
    out = capsys.readouterr().out
    assert "format 1" in out and "format 2" in out and "bit in zip directory" in out
