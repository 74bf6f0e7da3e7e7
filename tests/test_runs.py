"""The folders of runs: made, found, locked, never taken over without being asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import generate
import nn
import train
from nn.training import runs
from nn.training.runs import RunError, RunFolder, checkpoint_at, given_folder, new_folder, set_latest
from tests.checks import ROOT, refused

ONE_STEP = ("--steps", "1", "--n-embd", "8")

pytestmark = pytest.mark.usefixtures("folder")


def test_each_run_has_a_folder_of_its_own_and_latest_is_the_newest(monkeypatch, capsys):
    monkeypatch.setattr(runs.time, "strftime", lambda form: "20260131-174500")
    for name in ("sentences-20260131-174500", "sentences-20260131-174500-2"):
        assert train.main([*ONE_STEP]) == 0
        assert os.readlink("checkpoints/latest") == name
        assert f"saved checkpoints/{name}/last.npz" in capsys.readouterr().out
    assert sorted(os.listdir("checkpoints")) == [
        "latest", "sentences-20260131-174500", "sentences-20260131-174500-2"]


def test_without_links_latest_is_a_text_file(monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError("a privilege is missing")
    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert train.main([*ONE_STEP]) == 0
    (run,) = Path("checkpoints").glob("sentences-*")
    assert Path("checkpoints/latest").read_text() == run.name
    assert checkpoint_at(Path("latest")) == run / "last.npz"
    assert train.main(["--resume", "--steps", "2"]) == 0
    assert nn.load_checkpoint(run / "last.npz").info["step"] == 2


def test_a_folder_that_holds_a_run_is_refused_with_the_remedy(capsys):
    assert train.main([*ONE_STEP, "--out", "a/b"]) == 0
    before = Path("a/b/last.npz").read_bytes()
    capsys.readouterr()
    message = refused(capsys, train.main, *ONE_STEP, "--out", "a/b", "--seed", "1")
    assert "--out: a/b holds a run already. To go on with it: --resume a/b; to" in message
    assert Path("a/b/last.npz").read_bytes() == before and not Path("checkpoints").exists()
    assert train.main([*ONE_STEP, "--out", "a/b", "--seed", "1", "--overwrite"]) == 0
    assert Path("a/b/last.npz").read_bytes() != before


def test_settings_that_lie_in_the_folder_are_not_replaced(capsys):
    Path("a").mkdir()
    Path("a/config.ini").write_text("[sentences]\nsteps = 1\n")
    message = refused(capsys, train.main, "--config", "a/config.ini", "--out", "a")
    assert "--out: a holds a config.ini, which this run would replace" in message
    assert Path("a/config.ini").read_text() == "[sentences]\nsteps = 1\n" and len(os.listdir("a")) == 1
    Path("b").mkdir()
    Path("b/replay.npz").write_bytes(b"x")
    assert "b holds a replay.npz" in refused(capsys, train.main, *ONE_STEP, "--out", "b")
    assert train.main([*ONE_STEP, "--out", "a", "--overwrite"]) == 0
    assert "n-embd" in Path("a/config.ini").read_text()


@pytest.mark.parametrize("make, message", [
    (lambda path: path.write_text("x"), "must be a folder, but is a file"),
    (lambda path: path.symlink_to("nowhere"), "is a link that leads to nothing"),
    (os.mkfifo, "must be a folder, but is a device or pipe")])
def test_what_is_no_folder_is_refused_and_left_alone(make, message, capsys):
    for name, arguments in (("x", ["--out", "x"]), ("checkpoints", [])):
        make(Path(name))
        before = os.lstat(name)
        assert message in refused(capsys, train.main, *ONE_STEP, *arguments)
        assert os.lstat(name)[:8] == before[:8]


def test_a_folder_in_the_place_of_the_link_is_refused(capsys):
    Path("checkpoints/latest").mkdir(parents=True)
    assert "latest must be a link" in refused(capsys, train.main, *ONE_STEP)
    assert "is the link to the newest" in refused(
        capsys, train.main, *ONE_STEP, "--out", "checkpoints/latest")


def test_a_folder_is_locked_while_a_run_writes_to_it_and_the_lock_of_a_killed_one_is_none(capsys):
    train.main([*ONE_STEP, "--out", "a"])
    code = ("import sys, time; from pathlib import Path; from nn.training.runs import RunFolder\n"
            "folder = RunFolder(Path('a')); print('locked', flush=True); time.sleep(60)")
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert other.stdout.readline() == b"locked\n"
    assert "another run is writing to a" in refused(
        capsys, train.main, "--resume", "a", "--steps", "2")
    Path("a/.last.npz.77.tmp").touch()
    other.kill()
    other.communicate()
    assert train.main(["--resume", "a", "--steps", "2"]) == 0
    assert sorted(os.listdir("a")) == ["config.ini", "last.npz"]      # the rest is removed


def test_a_run_that_saved_nothing_leaves_no_folder_and_the_link_as_it_was(capsys):
    train.main([*ONE_STEP])
    before = os.readlink("checkpoints/latest")
    with new_folder_closed() as path:
        assert path.exists()
    assert not path.exists() and os.readlink("checkpoints/latest") == before


class new_folder_closed:
    def __enter__(self):
        self.folder = new_folder("x")
        return self.folder.path

    def __exit__(self, *_):
        self.folder.close()


def test_an_empty_folder_that_was_there_stays(capsys):
    Path("a").mkdir()
    assert "try a lower --lr" in refused(capsys, train.main, "--lr", "1e30", "--out", "a")
    assert os.listdir("a") == ["replay.npz"]
    os.remove("a/replay.npz")
    given_folder(Path("a")).close()
    given_folder(Path("b")).close()
    assert os.listdir() == ["a"]


def test_the_link_is_not_touched_for_folders_elsewhere():
    Path("elsewhere").mkdir()
    set_latest(Path("elsewhere"))
    assert not Path("checkpoints").exists()


def test_where_there_are_no_locks_runs_work_without(monkeypatch):
    monkeypatch.setattr(runs, "fcntl", None)
    first, second = given_folder(Path("a")), RunFolder(Path("a"))
    first.close()
    second.close()


@pytest.mark.parametrize("path, message", [
    ("latest", "no checkpoint at checkpoints/latest; python train.py begins a run"),
    ("nowhere", "no checkpoint at nowhere"), (".", "last.npz: the run ended before it saved one")])
def test_what_cannot_be_gone_on_with_is_said(path, message, capsys):
    with pytest.raises(RunError, match=message):
        checkpoint_at(Path(path))
    assert message in refused(capsys, train.main, "--resume", path)


def test_generate_takes_the_best_weights_of_the_newest_run(capsys):
    for name, seed in (("b", 0), ("a", 1)):
        model = nn.GPT(nn.GPTConfig(2, 4, 1, 1, 4), rng=seed)
        for which in ("best", "last"):
            path = nn.save_checkpoint(f"checkpoints/{name}/{which}.npz", model, nn.CharTokenizer("ab"))
            os.utime(path, (seed * 10 + (which == "last"),) * 2)
    Path("checkpoints/a/replay.npz").touch()
    Path("checkpoints/latest").symlink_to("b")
    assert nn.newest_checkpoint("checkpoints") == Path("checkpoints/a/best.npz")
    assert generate.main(["--max-new-tokens", "1"]) == 0
