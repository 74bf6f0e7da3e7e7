"""Programs written for PyTorch and ported line by line, in tests/programs/.

They train here; with the same weights and batches their losses are those of PyTorch; few lines differ;
and each of these, left as it was, fails with an error that has a word of what to write.
"""

import contextlib
import difflib
import importlib
import io
import re

import numpy as np
import pytest

from tests.checks import ROOT, peer

FOLDER = ROOT / "tests/programs"
LINES = {"gpt": 29, "classifier": 12, "rnn": 18}          # how many differ, imports included
# How a program starts that is ported by a change of its imports alone.
RENAMED = [("torch.nn.functional.", "nn.functional."), ("torch.nn.", "nn."), ("torch.", "tape."),
           ("F.", "nn.functional.")]


def text(name, kind):
    return (FOLDER / f"{name}_{kind}.py").read_text(encoding="utf-8")


def program(name, kind):
    return importlib.import_module(f"tests.programs.{name}_{kind}")


def differences(name):
    """(place, PyTorch's lines, place, ours) wherever the programs differ; line by line if they pair."""
    theirs, ours = text(name, "pytorch").splitlines(), text(name, "from_pytorch").splitlines()
    matcher = difflib.SequenceMatcher(None, theirs, ours, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            continue
        if b - a == d - c:
            yield from ((i, [theirs[i]], j, [ours[j]]) for i, j in zip(range(a, b), range(c, d)))
        else:
            yield a, theirs[a:b], c, ours[c:d]


@pytest.mark.parametrize("name", LINES)
def test_few_lines_differ(name):
    changed = sum(max(len(theirs), len(ours)) for _, theirs, _, ours in differences(name))
    assert changed == LINES[name] < 30
    assert "torch" not in text(name, "from_pytorch").lower()


def test_the_gpt_is_a_whole_program():
    assert len(text("gpt", "pytorch").splitlines()) >= 275
    assert "masked_fill" in text("gpt", "pytorch") and ".apply(" in text("gpt", "from_pytorch")


@pytest.mark.parametrize("name, steps, below", [("gpt", 40, 2.6), ("classifier", 300, 0.7),
                                                ("rnn", 60, 1.7)])
def test_the_port_learns(name, steps, below, capsys):
    losses = program(name, "from_pytorch").main(steps)
    assert len(losses) == steps and np.mean(losses[-5:]) < below < losses[0]
    assert "loss" in capsys.readouterr().out


@pytest.mark.parametrize("name, steps", [("gpt", 8), ("classifier", 20), ("rnn", 8)])
def test_from_the_same_weights_the_losses_are_pytorchs(name, steps, monkeypatch):
    torch = peer("torch")
    theirs, ours = program(name, "pytorch"), program(name, "from_pytorch")
    their_model, model = theirs.make_model(), ours.make_model()
    state = {}
    for key, value in their_model.state_dict().items():
        module = their_model.get_submodule(key.rpartition(".")[0])
        turned = isinstance(module, torch.nn.Linear) and key.endswith(".weight")
        state[key] = value.numpy().T if turned else value.numpy()
    state.pop("lm_head.weight", None)                   # tied
    model.load_state_dict(state)

    def batches(module, convert):
        state = np.random.default_rng(0)
        source = getattr(module, "data", None)

        def draw(*_):
            if source is None:
                rows = state.integers(0, len(module.X), 32)
                return module.X[rows], module.Y[rows]
            rows = state.integers(0, len(source) - 16, (8, 1)) + np.arange(16)
            return source[convert(rows)], source[convert(rows + 1)]
        monkeypatch.setattr(module, "get_batch", draw)
    batches(theirs, torch.from_numpy)
    batches(ours, np.asarray)
    with contextlib.redirect_stdout(io.StringIO()):
        expected, found = theirs.train(their_model, steps), ours.train(model, steps)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


# --- each line that differs, left as it was ---


def renamed(line):
    for old, new in RENAMED:
        line = re.sub(rf"(?<![\w.]){re.escape(old)}", new, line)
    return line


def unported():
    """(program, PyTorch's lines, ours, the program with these lines left as they were)."""
    for name in LINES:
        for _, theirs, j, ours in differences(name):
            if "import" in theirs[0]:
                continue
            lines = text(name, "from_pytorch").splitlines()
            left = [renamed(line) for line in theirs]
            if left == ours:                    # ported by the name of the module alone
                continue
            lines[j:j + len(ours)] = left
            yield name, theirs, ours, "\n".join(lines)


UNPORTED = list(unported())


def words(lines):
    """The words of some lines, and their dotted names."""
    joined = "\n".join(lines)
    return set(re.findall(r"\w+", joined)) | set(re.findall(r"\w+(?:\.\w+)+", joined))


@pytest.mark.parametrize("name, theirs, ours, source", UNPORTED,
                         ids=[f"{row[0]}: {row[1][-1].strip()}" for row in UNPORTED])
def test_a_line_that_is_left_fails_with_a_word_of_what_to_write(name, theirs, ours, source):
    names = {"__name__": "unported"}
    with contextlib.redirect_stdout(io.StringIO()):
        with pytest.raises((AttributeError, TypeError, ValueError)) as caught:
            exec(compile(source, f"{name}.py", "exec", dont_inherit=True), names)
            names["main"](2)
    message = str(caught.value)
    assert (words(ours) - words(theirs)) & words([message]), message
