"""The README's examples run and print what it says; its commands and its map are real."""

import re

import tape
from tests.checks import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_example_prints_what_is_shown(capsys):
    with tape.use_kernels("numpy"):          # the last digits of others may differ
        exec(blocks("python")[0], {})
    assert capsys.readouterr().out == blocks("text")[0]


def test_the_first_example_is_short():
    assert len(blocks("python")[0].splitlines()) <= 15


def test_the_model_example_learns():
    names = {}
    exec(blocks("python")[2], names)
    assert names["loss"].item() < 4.0        # ln 65 = 4.17


def test_the_program_on_the_static_graph_prints_what_is_shown(capsys):
    program = blocks("python")[3]
    exec(program, {})
    assert capsys.readouterr().out == blocks("text")[1]
    assert len(program.splitlines()) <= 40


def test_the_frozen_model_gives_the_eager_loss(capsys):
    exec(blocks("python")[4], {})
    assert capsys.readouterr().out == "True\n"


def test_the_rule_shown_is_the_rule_in_the_code():
    source = (ROOT / "tape/ops/arithmetic.py").read_text(encoding="utf-8")
    lines = blocks("python")[1].strip().rstrip(")").splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.strip() in source


def test_the_two_commands_are_there_once_each():
    assert re.findall("^pip install -e.*$", README, re.MULTILINE) == [
        "pip install -e . && python train.py", 'pip install -e ".[test]" && pytest']


def files_of_the_map(tree):
    """The paths of the .py files in a tree of folders, which are known by their indentation."""
    found, folders = [], []              # of each open folder its indentation and its path
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        parent = folders[-1][1] if folders else ""
        if folder := re.match(r"\s*(\w+/)", line):
            parent += folder.group(1)
            folders.append((indent, parent))
        found += [parent + name for name in re.findall(r"\w+\.py", line)]
    return found


def test_the_map_names_every_file_once_and_no_other():
    named = files_of_the_map(blocks("text")[-1])
    real = {path.relative_to(ROOT).as_posix() for pattern in ("tape/**/*.py", "nn/**/*.py", "*.py")
            for path in ROOT.glob(pattern) if not path.name.startswith("__")}
    assert sorted(named) == sorted(real)


def test_the_map_is_read_by_its_folders():
    tree = "a/   the first\n  b.py   c.py\n  d/\n    b.py  of d\n  e.py\nf.py\n"
    assert files_of_the_map(tree) == ["a/b.py", "a/c.py", "a/d/b.py", "a/e.py", "f.py"]


def test_the_table_of_the_eight_is_complete():
    from tape.gradcheck.cases import EIGHT
    assert re.findall(r"^\| `(\w+)`", README, re.MULTILINE) == list(EIGHT)


def test_the_figures_of_the_engine_are_those_of_its_files():
    def lines(*patterns):
        return sum(len(path.read_text(encoding="utf-8").splitlines())
                   for pattern in patterns for path in ROOT.glob(pattern))

    def stated(pattern):
        return int(re.search(pattern, README).group(1).replace(",", ""))
    first = [f"tape/{name}.py" for name in ("primitive", "ops/arithmetic", "dispatch", "engine")]
    engine = [f"tape/{folder}*.py" for folder in (
        "", "ops/", "transforms/", "kernels/", "kernels/numba/")]
    for said, counted in [(stated(r"These are ([\d,]+) lines"), lines(*first)),
                          (stated(r"the engine has some ([\d,]+)"), lines(*engine)),
                          (stated(r"`tape` has some ([\d,]+)"), len(tape.ops.__all__))]:
        assert abs(said - counted) < 0.05 * counted
