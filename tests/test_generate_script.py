"""generate.py, run as a user runs it: every option from the command line, and how it ends."""

import io
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import generate
import nn
from nn.cli import cache_costs
from nn.cli.cache_costs import Costs
from nn.cli.insight import cells, print_score
from tests.checks import ROOT, peer, refused

LETTERS = "abcdefgh .\n"
TOKENIZER = nn.CharTokenizer(LETTERS)
SCRIPT = [sys.executable, str(ROOT / "generate.py")]


@pytest.fixture
def model(folder):
    """An untrained model whose tokens differ in probability, saved as the newest checkpoint."""
    model = nn.GPT(nn.GPTConfig(len(LETTERS), 12, 2, 2, 8), rng=1)
    for p in model.parameters():
        p.data = p.data + 0.5 * np.random.default_rng(p.size).standard_normal(p.shape, np.float32)
    nn.save_checkpoint("checkpoints/model.npz", model, TOKENIZER, {"prompt": "ab"})
    return model


@pytest.fixture
def said(model, capsys):
    """What generate.py prints: on stdout, and on stderr."""
    def say(*arguments):
        assert generate.main([str(a) for a in arguments]) == 0
        return capsys.readouterr()
    return say


def written(model, prompt, count=20, temperature=0.8, **options):
    ids = TOKENIZER.encode(prompt)
    tokens = nn.generate(model, ids, count, temperature, **{"rng": 0, **options})
    return TOKENIZER.decode([*ids, *tokens])


# --- writing ---


@pytest.mark.parametrize("flags, options", [
    ([], {}), (["--temperature", "0"], {"temperature": 0}),
    (["--temperature", 1.7], {"temperature": 1.7}), (["--top-k", 2], {"top_k": 2}),
    (["--top-p", 0.5], {"top_p": 0.5}), (["--min-p", 0.4], {"min_p": 0.4}),
    (["--repetition-penalty", 3], {"repetition_penalty": 3}), (["--seed", 9], {"rng": 9})])
def test_how_tokens_are_chosen(model, said, flags, options):
    out, err = said("--prompt", "bad", "--max-new-tokens", 20, *flags)
    assert out == written(model, "bad", **options) + "\n" and err == ""
    if options:
        assert out != written(model, "bad") + "\n"


def test_without_the_cache_the_text_is_the_same_and_computed_anew(model, said, monkeypatch):
    wanted = said("--max-new-tokens", 15).out
    lengths, embed = [], nn.Embedding.forward
    monkeypatch.setattr(nn.Embedding, "forward", lambda self, ids: (
        lengths.append(ids.shape[1]) or embed(self, ids)))
    assert said("--max-new-tokens", 15, "--no-cache").out == wanted
    assert lengths == [min(n, 12) for n in range(2, 17)]


def test_samples_are_the_same_however_many_and_are_told_apart_on_stderr(model, said):
    out, err = said("--num-samples", 3, "--max-new-tokens", 9, "--stop", "\n")
    assert re.findall(r"text \d of 3:", err) == ["text 1 of 3:", "text 2 of 3:", "text 3 of 3:"]
    texts = out.splitlines()
    assert len(set(texts)) == 3 and said("--num-samples", 2, "--max-new-tokens", 9, "--stop",
                                         "\n").out.splitlines() == texts[:2]


def test_a_text_ends_before_each_of_the_stop_texts(model, said):
    whole = written(model, "ab", 60)
    first, second = whole[20:22], whole[10:13]
    ends = [whole.index(stop, 2) for stop in (first, second)]
    assert said("--stop", first, "--stop", second, "--max-new-tokens", 60).out == whole[
        :min(ends)] + "\n"


def test_beams_are_those_of_beam_search_and_end_at_the_stop_text(model, said):
    ids = TOKENIZER.encode("bad")
    beams = nn.beam_search(model, ids, 8, 3, repetition_penalty=1.5)
    texts = ["bad" + TOKENIZER.decode(beam.tokens) for beam in beams]
    flags = ["--prompt", "bad", "--beams", 3, "--max-new-tokens", 8, "--repetition-penalty", 1.5]
    assert said(*flags).out == texts[0] + "\n"
    assert said(*flags, "--num-samples", 2, "--no-cache").out == "".join(t + "\n" for t in texts[:2])
    stop = texts[0][5:7]
    assert said(*flags, "--stop", stop).out == texts[0][:texts[0].index(stop, 3)] + "\n"


def test_pieces_are_flushed_as_they_come(model, monkeypatch):
    out = io.StringIO()
    seen = []
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(out, "flush", lambda: seen.append(out.getvalue()))
    assert generate.main(["--max-new-tokens", "5"]) == 0
    assert [len(text) for text in seen[:6]] == [2, 3, 4, 5, 6, 7]


def test_explain_shows_probability_rank_and_the_runners_up(model, said):
    out, _ = said("--prompt", "bad", "--max-new-tokens", 4, "--explain")
    head, *rows, _ = out[out.index("\n\ntoken ") + 2:].splitlines()
    assert head.split() == ["token", "probability", "rank", "runners-up"] and len(rows) == 4
    assert all(len(line) <= 80 for line in out.splitlines())
    ids = TOKENIZER.encode("bad").tolist()
    for row, token in zip(rows, list(nn.generate(model, ids, 4, 0.8, rng=0)), strict=True):
        with nn.evaluating(model):
            logits = model(np.array([ids]))[0].data[0, -1].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum()
        shown = {" ": "\u2423", "\n": "\\n"}.get(LETTERS[token], LETTERS[token])
        name, share, rank = row.split()[:3]
        assert (name, int(rank)) == (shown, 1 + int((p > p[token]).sum()))
        assert float(share[:-1]) == pytest.approx(100 * p[token], abs=0.006)
        others = [i for i in np.argsort(-p) if i != token][:3]
        assert [float(s[:-1]) for s in row.split()[4::2]] == pytest.approx(100 * p[others], abs=0.06)
        ids.append(token)


def test_columns_of_wide_and_combining_characters():
    assert [cells(text, 4) for text in ("ab", "abcde", "日本", "日本語", "e\u0301a")] == [
        "ab  ", "abc~", "日本", "日~ ", "e\u0301a  "]


# --- the prompt ---


def test_a_prompt_from_a_file_without_its_last_line_end(model, said, folder):
    (folder / "p.txt").write_bytes(b"bad\ncab\r\n")
    assert said("--prompt-file", "p.txt", "--max-new-tokens", 20).out == written(
        model, "bad\ncab") + "\n"


def run(*arguments, **options):
    return subprocess.run([*SCRIPT, *arguments], capture_output=True, timeout=60, **options)


def test_what_is_piped_is_the_prompt_but_for_nothing_at_all(model):
    flags = ["--max-new-tokens", "20"]
    for more in ([], ["--prompt-file", "-"]):
        assert run(*flags, *more, input=b"bad\n").stdout.decode() == written(model, "bad") + "\n"
    assert run(*flags, input=b"").stdout == run(*flags, stdin=subprocess.DEVNULL).stdout == (
        written(model, "ab") + "\n").encode()
    assert run(*flags, "--prompt", "cab", input=b"bad").stdout.decode() == written(model, "cab") + "\n"
    wrong = run(*flags, input=b"ab\xff")
    assert (wrong.returncode, wrong.stdout) == (2, b"") and wrong.stderr.endswith(
        b"standard input is not UTF-8 text: byte 0xff at position 2\n")


def test_a_long_prompt_slides_and_says_so(model, said):
    prompt = "bad cab. feed a hedgehag"
    out, err = said("--prompt", prompt, "--max-new-tokens", 20)
    assert out == written(model, prompt) + "\n"
    assert err == "the prompt has 24 tokens, of which the model sees the last 12\n"


def test_interactive_asks_until_the_end_of_input(model, said, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("bad\n\nQ\ncab\n"))
    out, err = said("--interactive", "--max-new-tokens", 20)
    assert out == written(model, "bad") + "\n" + written(model, "cab") + "\n"
    assert err.count("> ") == 5 and "--prompt: character 'Q' at position 0" in err


# --- looking ---


@pytest.mark.parametrize("start", ["", "\n"])
def test_score_is_the_mean_loss_the_perplexity_and_bits_per_character(model, said, folder, start):
    nn.save_checkpoint("checkpoints/model.npz", model, TOKENIZER, {"start": start})
    text = "bad cab."
    (folder / "t.txt").write_text(text)
    out, err = said("--score", "t.txt")
    ids = TOKENIZER.encode(start + text)
    loss = model(ids[None, :-1], ids[None, 1:])[1].item()                # one window
    count = len(ids) - 1
    assert f"{count} tokens, {count} characters" in out and err == ""
    assert f"{loss:.4f} nats per token" in out and f"perplexity   {np.exp(loss):.3f}" in out
    assert f"bits         {loss / np.log(2):.4f} per character" in out


def test_attention_drawn_in_characters(model, said):
    from nn.generation.insight import attention_weights
    out, _ = said("--prompt", "bad cab", "--show-attention", "text")
    assert all(len(line) <= 80 for line in out.splitlines())
    weights = attention_weights(model, TOKENIZER.encode("bad cab"))
    maps = re.findall(r"block (\d), heads 1 to 2, from left to right\n((?:.+\n){7})", out)
    assert [number for number, _ in maps] == ["1", "2"]
    for (_, lines), heads in zip(maps, weights):
        for i, line in enumerate(lines.splitlines()):
            assert line[0] == "bad\u2423cab"[i]
            for head, at in zip(heads, (2, 10)):
                for j in range(i + 1):
                    assert line.ljust(80)[at + j] == " .:-=+*#%@"[min(int(head[i, j] * 10), 9)]


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_attention_as_a_picture(model, said, folder, name):
    peer("matplotlib")
    _, err = said("--prompt", "bad cab", "--show-attention", name)
    assert err == f"saved {name}\n"
    content = (folder / name).read_bytes()
    if name == "a.png":
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
    else:
        assert b"block 2, head 2" in content and b"query: the token that reads" in content


def test_the_costs_of_the_cache_as_a_table_and_a_picture(folder, capsys):
    peer("matplotlib")
    assert generate.main(["--compare-cache", "--lengths", "64", "16", "32", "--plot", "c.svg"]) == 0
    out, err = capsys.readouterr()
    rows = re.findall(r"^ +(\d+)(?: +[\d.]+ m?s){4} +[\d.]+$", out, re.M)
    assert rows == ["1", "16", "32", "64"] and "T and T^2 with the cache, T^2 and T^3 without" in out
    assert all(len(line) <= 80 for line in out.splitlines()) and err == "saved c.svg\n"
    content = (folder / "c.svg").read_bytes()
    assert b"length of the text, T (tokens)" in content and b"time of a token (s)" in content


def test_the_sum_and_the_exponent_of_known_costs():
    lengths = [1, 10, 20, 40, 80]
    linear, square = (Costs(lengths, [2 + 3 * (n ** p - 1) for n in lengths]) for p in (1, 2))
    assert linear.whole() == pytest.approx([2 + 2 * (n - 1) + 1.5 * (n - 1) ** 2 for n in lengths])
    assert linear.exponent() == pytest.approx(1, abs=0.06)
    assert square.exponent() == pytest.approx(2, abs=0.01)
    assert Costs([1, 2], [1.0, 1.0]).exponent() is None
    assert [cache_costs.shown(s) for s in (2e-4, 0.5, 12, 36000)] == [
        "0.20 ms", "500.00 ms", "12.00 s", "10.0 h"]


# --- mistakes, and other ends ---


@pytest.mark.parametrize("arguments, message", [
    (["--score", "x", "--top-k", "3"], "--top-k is not for --score: leave one of them out"),
    (["--compare-cache", "--prompt", "a"], "--prompt is not for --compare-cache"),
    (["--show-attention", "text", "--seed", "1"], "--seed is not for --show-attention"),
    (["--beams", "2", "--temperature", "1"], "--temperature is not for --beams"),
    (["--beams", "2", "--explain"], "--explain is not for --beams"),
    (["--beams", "2", "--num-samples", "3"], "--num-samples must be at most --beams, got 3 and 2"),
    (["--interactive", "--prompt", "a"], "--prompt is not for --interactive"),
    (["--prompt", "a", "--prompt-file", "b"], "--prompt-file is not for --prompt"),
    (["--plot", "a.png"], "--plot and --lengths are of --compare-cache: add it, or"),
    (["--top-p", "0"], "--top-p: must be a number > 0 and <= 1"), (["--min-p", "2"], "--min-p"),
    (["--repetition-penalty", "0"], "must be a number > 0"), (["--beams", "0"], "integer >= 1"),
    (["--num-samples", "0"], "integer >= 1"),
    (["--lengths", "1"], "--lengths: must be an integer >= 2"),
    (["--prompt", "Q"], "--prompt: character 'Q' at position 0"),
    (["--stop", ""], "--stop: the text must have at least one character"),
    (["--prompt-file", "none"], "there is no file none"),
    (["--score", "none"], "there is no file none"),
    (["--prompt-file", "."], ". is a folder; give a text file"),
    (["--score", "one"], "--score: the text must have at least two tokens, got one"),
    (["--show-attention", "a.xyz"], "--show-attention: the name must end in one of"),
    (["--checkpoint", "link.npz"], "there is no checkpoint at link.npz"),
    (["--checkpoint", "folder.npz"], "folder.npz is a folder; name a file in it")])
def test_it_refuses_in_one_line(model, arguments, message, folder, capsys):
    if "a.xyz" in arguments:
        peer("matplotlib")
    (folder / "one").write_text("a")
    (folder / "link.npz").symlink_to("nowhere")
    (folder / "folder.npz").mkdir()
    assert message in refused(capsys, generate.main, *arguments)


def test_dangling_links_and_folders_among_the_checkpoints_are_passed_over(model, said, folder):
    (folder / "checkpoints/link.npz").symlink_to("nowhere")
    (folder / "checkpoints/folder.npz").mkdir()
    assert said("--max-new-tokens", 20).out == written(model, "ab") + "\n"


def test_a_recurrent_net_has_no_attention_to_show(folder, capsys):
    nn.save_checkpoint("checkpoints/r.npz", nn.RecurrentLM(nn.RecurrentConfig(11, 4), rng=0), TOKENIZER)
    assert "must be a GPT, got a RecurrentLM, which has no attention" in refused(
        capsys, generate.main, "--show-attention", "text")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("flags", [["--max-new-tokens", "20"], ["--show-attention", "text"]])
def test_output_that_cannot_be_written_is_one_line(model, flags):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*SCRIPT, *flags], stdin=subprocess.DEVNULL, stdout=full,
                              stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2
    assert done.stderr == b"generate.py: error: cannot write: No space left on device\n"


def test_ctrl_c_ends_in_one_line_and_with_its_status(model):
    process = subprocess.Popen([*SCRIPT, "--max-new-tokens", "1000000"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == b"\ngenerate.py: stopped\n"


def test_help_has_every_flag_in_groups_with_its_default_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        generate.main(["--help"])
    out = capsys.readouterr().out
    for words in ("the text:", "how tokens are chosen:", "instead of writing:", "(default: 0.8)",
                  "(default: 200)", "--repetition-penalty R"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80 and generate.parser().parse([]) == generate.Flags()


def test_the_script_is_short():
    assert len((ROOT / "nn/scripts/generate.py").read_text().splitlines()) < 150


def test_score_of_a_text_without_a_whole_character_besides_the_first_token(model, capsys, monkeypatch):
    tokenizer = nn.CharTokenizer(LETTERS)
    monkeypatch.setattr(tokenizer, "decode", lambda ids: "")         # as of the bytes of one character
    print_score(SimpleNamespace(model=model, tokenizer=tokenizer, start=""), tokenizer.encode("ab"))
    out = capsys.readouterr().out
    assert "1 token, 0 characters" in out and "bits         of no whole character" in out
