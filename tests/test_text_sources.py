"""Texts of files, folders and standard input, read in pieces: whatever the pieces are."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
import train
from nn.data import text as texts
from nn.data.text import open_source, read_text, text_source
from nn.jobs import text
from tests.checks import ROOT, Recorder, peer, refused


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(texts, "PIECE", 7)


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from("ab \n\tüß😀\u0301"), min_size=1), st.integers(1, 9))
def test_the_pieces_of_a_text_are_the_text(text, size):
    before, texts.PIECE = texts.PIECE, size
    try:
        pieces = list(text_source(text, "x").pieces())
    finally:
        texts.PIECE = before
    assert "".join(pieces) == text and all(pieces)
    assert [word for piece in pieces for word in piece.split()] == text.split()


@pytest.mark.usefixtures("small_pieces")
def test_words_are_not_cut_and_neither_are_characters(tmp_path):
    text = "ein  Fuß, größer\nals   der 😀 andere\n" * 9
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    pieces = list(open_source(tmp_path / "a").pieces())
    assert "".join(pieces) == text == read_text(tmp_path / "a") and len(pieces) > 9
    assert [word for piece in pieces for word in piece.split()] == text.split()


@pytest.mark.usefixtures("small_pieces")
def test_a_long_text_without_spaces_comes_in_small_pieces():
    text = "语言" * 30_000
    pieces = list(text_source(text, "x").pieces())
    assert "".join(pieces) == text and max(map(len, pieces)) < 10_020


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("data, byte, place", [
    (b"abc\xff\xfe", "ff", 3), (b"\xef\xbb\xbfabc\xff", "ff", 6), (b"a" * 100 + b"\xc3", "c3", 100),
    (b"\xc3\xa4" * 8 + b"\xe2\x82", "e2", 16), (b"a" * 6 + b"\xf0\x9f\x98x", "f0", 6)])
def test_what_is_not_utf_8_is_named_with_its_place(data, byte, place, tmp_path):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ValueError, match=f"a is not UTF-8 text: byte 0x{byte} at position {place}$"):
        list(open_source(tmp_path / "a").pieces())


def test_of_a_folder_the_text_files_are_joined_in_the_order_of_their_paths(tmp_path):
    files = {"b.txt": "second", "a.md": "first", "sub/c": "third", ".hidden": "no", ".git/x": "no",
             "sub/empty.txt": "", "image.png": "\0\x01", "checkpoints/text/config.ini": "of a run",
             "run/config.ini": "of a run", "run/last.npz": "no"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("größer".encode("latin-1"))
    source = open_source(tmp_path)
    assert source.text() == "first\n\nsecond\n\nthird"
    assert source.described == f"3 files of {tmp_path}: a.md, b.txt, {os.path.join('sub', 'c')}"
    assert source.size == len("firstsecondthird") and len(source.paths) == 3
    (tmp_path / "d.txt").write_text("fourth", encoding="utf-8")
    assert open_source(tmp_path).described.endswith("a.md, b.txt, d.txt and 1 more")


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder without text files; give a text file, or"):
        open_source(tmp_path)


@pytest.mark.parametrize("limit", [3, 2 ** 20])             # kept in a file, and in memory
def test_standard_input_can_be_read_again(limit, monkeypatch):
    monkeypatch.setattr(texts, "IN_MEMORY", limit)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("grün\nrot".encode())))
    source = open_source("-")
    assert source.text() == source.text() == "grün\nrot" and source.size == 9
    assert source.described == "standard input" and source.paths == ()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_can_be_read_again_too(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("from a pipe",))
    writer.start()
    source = open_source(tmp_path / "pipe")
    writer.join()
    assert source.text() == source.text() == "from a pipe"


@pytest.mark.usefixtures("small_pieces")
def test_documents_are_the_lines_that_are_not_empty():
    text = "\n anna \r\n\n  \nbo\nchristina-maria\n\ndora"
    found = [line for lines in text_source(text, "x").documents() for line in lines]
    assert found == ["anna", "bo", "christina-maria", "dora"]


def test_the_digest_is_of_the_content_and_of_where_files_end(tmp_path):
    for name, content in [("a", "one"), ("b", "two")]:
        (tmp_path / name).write_text(content)
    first = open_source(tmp_path).digest()
    (tmp_path / "a").write_text("onet")
    (tmp_path / "b").write_text("wo")
    second = open_source(tmp_path).digest()
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    assert first != second and first == open_source(tmp_path).digest()


# --- from the command line ---

SMALL = ("--n-layer", "1", "--n-head", "2", "--n-embd", "8", "--block-size", "8", "--steps", "2",
         "--batch-size", "2")


def trained(*arguments, given=b""):
    """What `train.py text` prints with these arguments and this standard input."""
    return subprocess.run([sys.executable, str(ROOT / "train.py"), "text", *SMALL, *arguments],
                          input=given, capture_output=True)


def test_train_reads_standard_input_and_folders(folder):
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("the cat sat on the mat. " * 20)
    run = trained("--data", "-", given=b"the cat sat on the mat. " * 20)
    assert run.returncode == 0 and b"text: standard input\n" in run.stdout
    from_stdin = nn.load_checkpoint("checkpoints/latest/last.npz").model.state_dict()
    assert b"text: 1 file of texts: a.txt\n" in trained("--data", "texts").stdout
    from_folder = nn.load_checkpoint("checkpoints/latest/last.npz").model.state_dict()
    assert all(np.array_equal(from_stdin[name], from_folder[name]) for name in from_stdin)
    run = trained("--data", "-")
    assert run.returncode == 2 and run.stderr == b"train.py: error: standard input is empty\n"


def test_lines_are_documents_and_generation_stops_at_their_end(folder):
    names = "\n".join(["anna", "bo"] * 30)
    learned = ("--data", "-", "--lines", "--steps", "300", "--n-embd", "16", "--warmup", "5")
    assert trained(*learned, given=names.encode()).returncode == 0
    found = nn.load_checkpoint("checkpoints/latest/last.npz")
    end = found.tokenizer.ids["\n"]
    assert found.info["start"] == "\n" and found.info["prompt"] == "" and found.info["stop"] == end
    made = {found.tokenizer.decode(nn.generate(found.model, [end], 20, rng=seed, stop=end))
            for seed in range(20)}
    assert {"anna", "bo"} <= made and max(map(len, made)) < 10


def test_a_tokenizer_is_learned_and_travels_in_the_checkpoint(folder):
    peer("tokenizers")
    text = ("the cat sat on the mat. " * 40).encode()
    for kind, made, size in [("word", nn.WordTokenizer, 5), ("bpe", nn.BPETokenizer, 260)]:
        run = trained("--data", "-", "--tokenizer", kind, "--vocab-size", str(size), given=text)
        assert run.returncode == 0 and run.stderr == b""
        found = nn.load_checkpoint("checkpoints/latest/last.npz")
        assert type(found.tokenizer) is made and len(found.tokenizer) == size
        prompt = found.tokenizer.encode(found.info["prompt"])
        assert len(prompt) and prompt.max() < found.model.config.vocab_size


@pytest.mark.parametrize("arguments, message", [
    (["--tokenizer", "syllable"], b"the tokenizer must be char, word, bpe or"),
    (["--tokenizer", "none.json"], b"there is no file none.json"),
    (["--vocab-size", "9"], b"--vocab-size is for the tokenizers word and bpe; got 'char'"),
    (["--tokenizer", "bpe", "--vocab-size", "9"], b"--vocab-size must be at least 257")])
def test_what_no_tokenizer_can_be_is_refused(arguments, message, folder):
    peer("tokenizers")
    run = trained("--data", "-", *arguments, given=b"the cat sat on the mat. " * 40)
    assert run.returncode == 2 and message in run.stderr and run.stderr.count(b"\n") == 1


def test_without_the_library_byte_pairs_are_refused(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    error = refused(capsys, train.main, "text", *SMALL, "--tokenizer", "bpe")
    assert '--tokenizer: byte-pair encoding needs the library tokenizers, which is not' in error


def test_a_validation_is_on_a_sample_and_at_the_end_on_all(folder, monkeypatch, capsys):
    recorder = Recorder(text.validation_loss)
    monkeypatch.setattr(text, "validation_loss", recorder)
    (folder / "a.txt").write_text("abcdefgh " * 1000)
    for sample, calls in [("2", [2, 2, None]), ("40", [40, 40])]:
        recorder.calls.clear()
        train.main(["text", "--data", "a.txt", *SMALL, "--eval-interval", "1",
                    "--eval-batches", sample])
        assert [[*given, None][3] for given, _ in recorder.calls] == calls
        out = capsys.readouterr().out
        assert ("on 2 batches" in out) == (sample == "2") and "over all 900 characters" in out


def test_the_log_says_once_which_yardsticks_are_passed(folder, monkeypatch, capsys):
    losses = iter([3.5, 2.1, 2.0, -0.1])            # nothing real is below the last
    monkeypatch.setattr(text, "validation_loss", lambda *_: next(losses))
    (folder / "a.txt").write_text("abcdefgh " * 100)
    train.main(["text", "--data", "a.txt", *SMALL, "--steps", "4", "--eval-interval", "1"])
    out = capsys.readouterr().out
    marks = [line for line in out.splitlines() if "validation below" in line]
    assert marks == ["  validation below ln V (2.197), unigram entropy (2.197)",
                     "  validation below bigram entropy (0.000)"]
    assert "nothing (ln 9)" in out and out.index("nothing (ln 9)") < out.index("step 1/4")


def test_a_tokenizer_json_is_used_as_it_is(folder):
    peer("tokenizers")
    made = nn.BPETokenizer.from_texts(["hello world, hello words"], 265)
    Path("own.json").write_text(json.dumps(made.to_dict()["vocabulary"]), encoding="utf-8")
    for more in ([], ["--lines"]):
        run = trained("--data", "-", "--tokenizer", "own.json", *more, given=b"hello words\n" * 40)
        assert run.returncode == 0, run.stderr
        found = nn.load_checkpoint("checkpoints/latest/last.npz")
        assert found.tokenizer.to_dict() == made.to_dict()
        assert found.info.get("stop") == (made.ids["<|endoftext|>"] if more else None)


def test_lines_need_a_token_for_their_end(folder):
    peer("tokenizers")
    state = nn.BPETokenizer.from_texts(["hello"], 257).to_dict()["vocabulary"]
    state["model"]["vocab"]["the end"] = state["model"]["vocab"].pop("<|endoftext|>")
    Path("own.json").write_text(json.dumps({**state, "added_tokens": []}), encoding="utf-8")
    run = trained("--data", "-", "--tokenizer", "own.json", "--lines", given=b"hello\n" * 40)
    assert run.returncode == 2 and b"own.json has no token for the end of a document" in run.stderr
