"""The rooms of nn: who may import whom, and the lists to which new models and tokenizers are added."""

import ast
import doctest
import importlib
from dataclasses import dataclass

import numpy as np
import pytest

import nn
import tape
from nn.data.tokenizers import TOKENIZERS, Tokenizer, tokenizer_from_dict
from nn.models.registry import MODELS, Kind, name_of
from tests.checks import ROOT

FILES = sorted(ROOT.glob("nn/*/**/*.py"))

# Which rooms each room imports from, besides itself.
FLOORS = {
    "layers": set(),
    "models": {"layers"},
    "data": set(),
    "training": {"data", "models", "layers"},
    "generation": {"data", "models", "layers"},
    "cli": {"training", "generation", "data", "models", "layers"},
    "jobs": {"cli", "training", "generation", "data", "models", "layers"},
    "scripts": {"jobs", "cli", "training", "generation", "data", "models", "layers"},
}


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """(module, name) of each import that runs; the name is None in ``import module``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_a_room_imports_only_from_the_rooms_below(path):
    room = path.relative_to(ROOT / "nn").parts[0]
    found = {module.split(".")[1] for module, _ in imports(path) if module.startswith("nn.")}
    assert found <= FLOORS[room] | {room}
    assert room == "jobs" or "nn" not in {module for module, _ in imports(path)}


@pytest.mark.parametrize("path", FILES + [ROOT / "train.py", ROOT / "generate.py"], ids=dotted)
def test_only_public_names_of_tape_are_imported(path):
    for module, name in imports(path):
        if module.split(".")[0] == "tape":
            assert module in ("tape", "tape.lazy")
            assert name is None or name in tape.__all__


def test_every_room_is_a_package_and_says_what_lives_there():
    folders = {path.parent for path in FILES}
    assert {folder.name for folder in folders} == {*FLOORS, "static", "checkpoint"}
    for folder in folders:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))


def test_the_examples_in_docstrings_run():
    with tape.use_kernels("numpy"):          # others keep less for the backward pass
        results = {path: doctest.testmod(importlib.import_module(dotted(path))) for path in FILES}
    assert [path for path, result in results.items() if result.failed] == []
    assert results[ROOT / "nn/layers/module.py"].attempted > 0


def test_the_public_names_are_there_once():
    assert sorted(set(nn.__all__)) == nn.__all__
    assert all(hasattr(nn, name) for name in nn.__all__)


# --- the lists ---


@dataclass(frozen=True)
class BiasConfig:
    """The smallest configuration: a vector."""

    vocab_size: int

    def parameter_shapes(self):
        yield "bias", (self.vocab_size,)


class Bias(nn.Module):
    """The smallest model: a vector."""

    def __init__(self, config, rng=None):
        self.config = config
        self.bias = nn.Parameter(np.random.default_rng(rng).standard_normal(config.vocab_size))


class Bytes(Tokenizer):
    """A token is a byte: needs a state of another form than a vocabulary that is a list of texts."""

    kind = "byte"

    def __init__(self):
        super().__init__([chr(i) for i in range(256)])

    def to_dict(self):
        return {"kind": self.kind, "vocabulary": None}

    @classmethod
    def from_dict(cls, state):
        return cls()


def test_the_names_of_models_and_tokenizers_in_files_stay_what_they_are():
    assert MODELS == {"GPT": (nn.GPTConfig, nn.GPT),
                      "VisionTransformer": (nn.VisionConfig, nn.VisionTransformer),
                      "RecurrentLM": (nn.RecurrentConfig, nn.RecurrentLM),
                      "Seq2SeqTransformer": (nn.Seq2SeqConfig, nn.Seq2SeqTransformer)}
    assert TOKENIZERS == {"character": nn.CharTokenizer, "word": nn.WordTokenizer,
                          "bpe": nn.BPETokenizer}


def test_a_model_and_a_tokenizer_that_are_listed_travel_in_checkpoints(tmp_path, monkeypatch):
    model = Bias(BiasConfig(256), rng=0)
    with pytest.raises(TypeError, match="a GPT or a .* or a Seq2SeqTransformer, got Bias"):
        nn.save_checkpoint(tmp_path / "a.npz", model)
    monkeypatch.setitem(MODELS, "Bias", Kind(BiasConfig, Bias))
    monkeypatch.setitem(TOKENIZERS, "byte", Bytes)
    path = nn.save_checkpoint(tmp_path / "a.npz", model, Bytes())
    found = nn.load_checkpoint(path)
    assert type(found.model) is Bias and type(found.tokenizer) is Bytes
    np.testing.assert_array_equal(found.model.bias.data, model.bias.data, strict=True)
    assert nn.newest_checkpoint(tmp_path, "Bias") == path
    monkeypatch.delitem(MODELS, "Bias")
    with pytest.raises(nn.CheckpointError, match="there is no model 'Bias' here; known: GPT, Vision"):
        nn.load_checkpoint(path)


def test_the_name_of_a_model_is_that_of_its_kind():
    class MyGPT(nn.GPT):
        pass
    assert name_of(MyGPT(nn.GPTConfig(5, 4, 1, 1, 4), rng=0)) == "GPT"
    assert name_of(nn.Linear(2, 3)) is None


@pytest.mark.parametrize("state, message", [
    ({"kind": "syllable", "vocabulary": []}, r"one of \['bpe', 'character', 'word'\], got 'syllable'"),
    ({"kind": ["word"], "vocabulary": []}, "kind must be one of"),
    ({"kind": "word"}, "a dict with a kind and a vocabulary"),
    ({"kind": "word", "vocabulary": [1]}, "the vocabulary must be a list of texts")])
def test_the_state_of_no_known_tokenizer_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        tokenizer_from_dict(state)
