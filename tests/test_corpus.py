"""Texts as tokens, in memory and in files that are mapped into it; and the yardsticks of a text."""

import itertools
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import nn
from nn.data import corpus as module
from nn.data import text as texts
from nn.data import yardsticks
from nn.data.corpus import read_corpus
from nn.data.text import open_source, text_source
from nn.data.token_files import TokenFile, cache_folder, known_digest, token_dtype, unfinished
from nn.data.yardsticks import Passed, Yardsticks
from tests.checks import ROOT, peer

TEXT = "the quick brown fox jumps over\nthe lazy dog. héé 😀\n" * 40
NAMES = "\n".join(f"name{i:03d}" for i in range(100))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Every text is a large one, read in small pieces, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(texts, "PIECE", 50)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    return tmp_path / "cache" / "tape-nn"


def file_of(folder, text=TEXT, age=3600):
    """A source: a file that was changed so many seconds ago."""
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8", newline="")
    os.utime(path, (time.time() - age,) * 2)
    return open_source(path)


def names_in(folder):
    return sorted(path.name.split("-")[0] + path.suffix for path in folder.iterdir())


# --- what trains and what validates ---


def test_the_first_nine_tenths_of_a_text_train():
    found = read_corpus(text_source(TEXT, "x"))
    cut = int(0.9 * len(TEXT))
    assert found.tokenizer.vocabulary == sorted(set(TEXT)) and found.file is None
    assert found.training.dtype == np.int64
    assert found.tokenizer.decode(found.training) == TEXT[:cut]
    assert found.tokenizer.decode(found.validation) == TEXT[cut:]


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_of_lines_every_tenth_document_validates_and_each_ends(kind):
    if kind == "bpe":
        peer("tokenizers")
    found = read_corpus(text_source(NAMES, "x"), kind, lines=True)
    end = found.tokenizer.ids[found.tokenizer.end]

    def documents(ids):
        assert ids[0] == end == ids[-1]
        ends = np.flatnonzero(ids == end)
        return [found.tokenizer.decode(ids[a + 1:b]) for a, b in zip(ends, ends[1:])]

    assert documents(found.validation) == [f"name{i:03d}" for i in range(9, 100, 10)]
    assert documents(found.training) == [f"name{i:03d}" for i in range(100) if i % 10 != 9]


def test_a_smaller_part_of_a_large_text_validates(monkeypatch):
    monkeypatch.setattr(module, "_VALIDATION", 64)
    assert len(read_corpus(text_source(TEXT, "x")).validation) == 64
    found = read_corpus(text_source(NAMES, "x"), lines=True)        # 799 bytes: every 13th
    held = found.tokenizer.decode(found.validation).split()
    assert held == [f"name{i:03d}" for i in range(12, 100, 13)]


@pytest.mark.parametrize("arguments, message", [
    (("syllable",), "must be char, word, bpe or the name of a file tokenizer.json; got 'syllable'"),
    (("char", 5), "vocab_size is for the tokenizers word and bpe; got 'char', whose"),
    (("x.json", 5), "vocab_size is for the tokenizers word and bpe"),
    (("missing.json",), "there is no file missing.json")])
def test_what_is_no_tokenizer_is_refused(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_corpus(text_source(TEXT, "x"), *arguments)


@pytest.mark.parametrize("text, message", [(" \n", "x is empty"), ("a", "too few for any block size")])
def test_a_text_without_tokens_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_corpus(text_source(text, "x"))


# --- large texts ---


@pytest.mark.parametrize("kind, lines", list(itertools.product(
    ["char", "word", "bpe"], [False, True])))
def test_a_large_text_has_the_same_tokens_as_in_memory(kind, lines, cache, monkeypatch, tmp_path):
    if kind == "bpe":
        peer("tokenizers")
    source = file_of(tmp_path)
    large = read_corpus(source, kind, lines=lines)
    again = read_corpus(source, kind, lines=lines)
    monkeypatch.setattr(module, "IN_MEMORY", 2 ** 24)
    small = read_corpus(source, kind, lines=lines)
    for found in (large, again):
        assert isinstance(found.training, np.memmap) and found.training.dtype == np.uint16
        assert found.file.parent == cache
        np.testing.assert_array_equal(found.training, small.training)
        np.testing.assert_array_equal(found.validation, small.validation)
        assert found.tokenizer.to_dict() == small.tokenizer.to_dict()
        assert found.digest == small.digest and found.yardsticks == small.yardsticks
    assert names_in(cache) == ["known.txt", "tokens.bin", "tokens.json"]


def test_the_second_time_only_sizes_and_times_are_read(cache, tmp_path, monkeypatch):
    source = file_of(tmp_path)
    first = read_corpus(source)
    monkeypatch.setattr(texts.Source, "pieces", None)              # cannot be called
    monkeypatch.setattr(texts.Source, "digest", None)
    np.testing.assert_array_equal(read_corpus(source).training, first.training)


@pytest.mark.parametrize("age, read", [(3600, 1), (0, 2)])
def test_a_file_that_just_changed_is_read_whatever_its_time(age, read, cache, tmp_path, monkeypatch):
    source, calls = file_of(tmp_path, age=age), []
    digest = texts.Source.digest
    monkeypatch.setattr(texts.Source, "digest", lambda *given: calls.append(1) or digest(*given))
    assert len({known_digest(source, cache_folder()) for _ in range(2)}) == 1
    assert len(calls) == read


def test_a_file_that_was_changed_and_given_its_old_time_is_read(cache, tmp_path):
    source = file_of(tmp_path, age=3600)
    (path,) = source.paths
    before, state = known_digest(source, cache_folder()), path.stat()
    time.sleep(0.02)                            # longer than a tick of the file system's clock
    text = path.read_bytes()
    path.write_bytes(text[::-1])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert known_digest(source, cache_folder()) != before


def test_other_content_tokenizers_and_sizes_have_files_of_their_own(cache, tmp_path):
    vocabularies = []
    for text, arguments in [(TEXT, ["char"]), (TEXT + "Q", ["char"]), (TEXT, ["word"]),
                            (TEXT, ["word", 3]), (TEXT, ["char", None, True])]:
        vocabularies.append(len(read_corpus(file_of(tmp_path, text), *arguments).tokenizer))
    assert names_in(cache).count("tokens.bin") == 5
    assert vocabularies[1] == vocabularies[0] + 1 and vocabularies[3] == 3


def test_the_same_content_elsewhere_is_recognised(cache, tmp_path):
    first = read_corpus(file_of(tmp_path))
    (tmp_path / "other").mkdir()
    assert read_corpus(file_of(tmp_path / "other")).file == first.file


def test_a_tokenizer_json_is_known_by_its_content(cache, tmp_path):
    peer("tokenizers")
    found, path = [], tmp_path / "own.json"
    for size in (270, 280, 270):
        made = nn.BPETokenizer.from_texts([TEXT], size)
        path.write_text(json.dumps(made.to_dict()["vocabulary"]), encoding="utf-8")
        found.append(read_corpus(file_of(tmp_path), str(path)))
    assert found[0].file == found[2].file != found[1].file
    assert [len(one.tokenizer) for one in found] == [270, 280, 270]
    with pytest.raises(FileNotFoundError, match="there is no file .*none.json"):
        read_corpus(file_of(tmp_path), str(tmp_path / "none.json"))


@pytest.mark.parametrize("spoil", [
    lambda folder: next(folder.glob("*.json")).unlink(),
    lambda folder: next(folder.glob("*.json")).write_text("{"),
    lambda folder: os.truncate(next(folder.glob("*.bin")), 10)])
def test_what_is_not_whole_is_made_again(spoil, cache, tmp_path):
    first = read_corpus(file_of(tmp_path))
    training = np.array(first.training)
    spoil(cache)
    np.testing.assert_array_equal(read_corpus(file_of(tmp_path)).training, training)


def test_a_text_that_changes_while_it_is_read_is_refused_and_nothing_is_kept(cache, tmp_path):
    source = file_of(tmp_path)

    def report(what, share):
        if what == "making tokens":
            os.utime(source.paths[0])

    with pytest.raises(ValueError, match="text.txt was changed while it was read; start again"):
        read_corpus(source, report=report)
    assert "tokens.json" not in names_in(cache)


def test_a_failure_leaves_nothing_unfinished(cache, tmp_path):
    with pytest.raises(ValueError, match="not UTF-8 text: byte 0xff at position 2,000"):
        path = tmp_path / "bad"
        path.write_bytes((b"ab " * 700)[:2000] + b"\xff")
        read_corpus(open_source(path))
    assert not list(cache.glob("*.unfinished"))


def test_a_full_disk_is_named_with_the_file(cache, tmp_path):
    with pytest.raises(OSError, match="cannot write .*x.bin: No space left.*XDG_CACHE_HOME"):
        with unfinished(cache_folder() / "x.bin"):
            raise OSError(28, "No space left on device")
    assert names_in(cache) == []


def test_ids_of_large_vocabularies_have_four_bytes():
    assert [token_dtype(n) for n in (2, 2 ** 16, 2 ** 16 + 1)] == [np.uint16, np.uint16, np.uint32]


WRITE_FOR_EVER = """
import itertools, sys, numpy as np
from nn.data.token_files import TokenFile, cache_folder
ids = np.arange(50_000)
def parts():
    for i in itertools.count():
        if i == 3: print("writing", flush=True)
        yield ids, ids[:100]
TokenFile(cache_folder(), "x").write(parts(), np.dtype(np.uint16))
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(cache, tmp_path):
    pytest.importorskip("fcntl")
    process = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER], stdout=subprocess.PIPE, cwd=ROOT,
                               env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    process.stdout.readline()
    place = TokenFile(cache_folder(), "y")
    place.write([(np.arange(3), np.arange(0))], np.dtype(np.uint16))
    assert len(list(cache.glob("*.unfinished"))) == 1
    process.kill()
    process.communicate()
    assert place.read() is None                                   # nothing says that it is whole
    place.finish({}, 3, np.dtype(np.uint16))
    assert not list(cache.glob("*.unfinished"))
    assert place.read()[0].tolist() == [0, 1, 2] and names_in(cache) == ["tokens.bin", "tokens.json"]


READ = """
import sys
from nn.data import corpus
from nn.data.text import open_source
corpus.IN_MEMORY = 0
print(corpus.read_corpus(open_source(sys.argv[1])).training.tolist())
"""


def test_processes_that_write_at_once_read_the_same(cache, tmp_path):
    path = file_of(tmp_path).paths[0]
    runs = [subprocess.Popen([sys.executable, "-c", READ, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
            for _ in range(3)]
    printed = {run.communicate()[0].decode().strip() for run in runs}
    assert printed == {str(read_corpus(file_of(tmp_path)).training.tolist())}
    assert names_in(cache)[-2:] == ["tokens.bin", "tokens.json"]


# --- yardsticks ---


def slow(ids, size):
    """The three losses from dictionaries, as they are defined."""
    n = len(ids)
    one = {a: ids.count(a) / n for a in set(ids)}
    pairs = list(zip(ids, ids[1:]))
    bigram = 0.0
    for a, b in pairs:
        given_a = [y for x, y in pairs if x == a]
        bigram -= math.log(given_a.count(b) / len(given_a)) / len(pairs)
    return math.log(size), -sum(p * math.log(p) for p in one.values()), bigram


@pytest.mark.parametrize("table", [0, 2 ** 22])                # counted sparsely, and in a table
@pytest.mark.parametrize("chunk", [1, 7, 2 ** 20])
def test_the_yardsticks_are_the_entropies(table, chunk, monkeypatch):
    monkeypatch.setattr(yardsticks, "_TABLE", table)
    monkeypatch.setattr(yardsticks, "_CHUNK", chunk)
    ids = np.random.default_rng(0).integers(0, 5, 60)
    for dtype in (np.int64, np.uint16):
        found = yardsticks.yardsticks(ids.astype(dtype), 9)
        np.testing.assert_allclose(found, slow(ids.tolist(), 9), rtol=1e-12)


def test_of_many_pairs_that_are_sorted_the_first_are_counted(monkeypatch):
    ids = np.random.default_rng(0).integers(0, 5, 60)
    monkeypatch.setattr(yardsticks, "_SORTED", 30)
    whole, first = yardsticks.yardsticks(ids, 5), yardsticks.yardsticks(ids[:30], 5)
    monkeypatch.setattr(yardsticks, "_TABLE", 24)
    assert yardsticks.yardsticks(ids, 5) == first != whole


def test_yardsticks_of_texts_whose_entropies_are_known():
    coin = yardsticks.yardsticks(np.array([0, 1] * 500 + [0]), 2)
    assert coin.unigram == pytest.approx(math.log(2), abs=1e-5) and coin.bigram == pytest.approx(0)
    same = yardsticks.yardsticks(np.zeros(9, np.int64), 300_000)
    assert same == (pytest.approx(math.log(300_000)), 0, 0)


def test_a_yardstick_is_told_once_when_it_is_passed():
    passed = Passed(Yardsticks(4.0, 3.0, 2.0))
    assert passed.by(4.5) == "" == passed.by(4.0)
    assert passed.by(2.5) == "  validation below ln V (4.000), unigram entropy (3.000)"
    assert passed.by(3.5) == passed.by(2.2) == ""
    assert passed.by(1.0) == "  validation below bigram entropy (2.000)"
    assert passed.by(0.5) == ""


def test_the_table_is_aligned():
    first, *rows = Yardsticks(4.174, 3.3, 12.25).table(65).splitlines()
    assert len(rows) == 3 and {len(row) for row in rows} == {len(rows[0])} and len(first) < 80
    assert rows[0].split()[-1] == "4.174" and "ln 65" in rows[0]


def test_a_corpus_says_how_to_generate_from_it():
    assert read_corpus(text_source(TEXT, "x")).generating(False) == {"prompt": "\n"}
    assert read_corpus(text_source("b a " * 99, "x")).generating(False) == {"prompt": "b"}
    assert read_corpus(text_source("b a " * 99, "x"), "word").generating(False) == {"prompt": "b"}
    names = read_corpus(text_source(NAMES, "x"), lines=True)
    assert names.generating(True) == {"prompt": "", "start": "\n", "stop": names.tokenizer.ids["\n"]}
    assert isinstance(names.tokenizer, nn.CharTokenizer)
