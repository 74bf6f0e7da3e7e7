"""A run that is stopped, or killed, and goes on ends in the same numbers as one that was left alone."""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import nn
import train
from nn.jobs import job as jobs_job, run as jobs_run, verify
from nn.jobs.verify import compared, progress_lines
from nn.training.checkpoint import load_training
from nn.training.resume import fingerprint, packed, set_streams, stream_states, unpacked
from tests.checkpoint_crafted import bombs, crafted
from tests.checkpoint_files import regions
from tests.checks import ROOT, refused, run_python

pytestmark = pytest.mark.usefixtures("folder")

TEXT = "the quick brown fox jumps over the lazy dog. " * 30
SMALL_TEXT = ("text", "--data", "t.txt", "--n-layer", "1", "--n-head", "2", "--n-embd", "8",
              "--dropout", "0.2", "--block-size", "8")

# Small trainings of each job and engine.
JOBS = {
    "sentences": ("--n-embd", "16", "--steps", "30", "--log-interval", "5"),
    "static": ("--engine", "static", "--n-embd", "16", "--steps", "30", "--log-interval", "5"),
    "text": (*SMALL_TEXT, "--steps", "30", "--eval-interval", "7", "--log-interval", "3"),
    "micro-batches": (*SMALL_TEXT, "--steps", "14", "--micro-batch-size", "5", "--checkpointing",
                      "--workers", "2"),
    "lstm": ("text", "--arch", "lstm", "--data", "t.txt", "--n-layer", "2", "--n-embd", "8",
             "--dropout", "0.2", "--steps", "12", "--eval-interval", "5"),
    "float64": (*SMALL_TEXT, "--steps", "14", "--eval-interval", "6", "--dtype", "float64"),
    "names": ("names", "--data", "t.txt", "--steps", "120", "--log-interval", "10"),
    "scalars": ("names", "--data", "n.txt", "--scalars", "--n-embd", "4", "--steps", "8",
                "--log-interval", "3"),
    "translate": ("translate", "--dates", "50", "--held-out", "4", "--n-embd", "8", "--n-head", "2",
                  "--n-layer", "1", "--steps", "15", "--eval-interval", "6", "--batch-size", "8"),
    "images": ("images", "--n-embd", "8", "--epochs", "4", "--batch-size", "20"),
    "images static": ("images", "--engine", "static", "--n-embd", "8", "--epochs", "4",
                      "--batch-size", "20")}


@pytest.fixture
def data(folder, images_folder):
    Path("t.txt").write_text(TEXT)
    Path("n.txt").write_text("abc\nbca\ncab\n")
    return folder


def arguments(job):
    return [*JOBS[job], *(["--data", "."] if job.startswith("images") else [])]


def stop_after(monkeypatch, step):
    """A signal arrives in this step."""
    update = nn.training.engines.TapeEngine.update, nn.training.engines.StaticEngine.update
    for kind, before in zip((nn.training.engines.TapeEngine, nn.training.engines.StaticEngine), update):
        def stopping(self, number, batch, lr, before=before):
            if number == step:
                signal.raise_signal(signal.SIGTERM)
            return before(self, number, batch, lr)
        monkeypatch.setattr(kind, "update", stopping)


@pytest.mark.parametrize("job", JOBS)
def test_n_steps_are_k_and_the_rest(job, data, monkeypatch, capsys):
    assert train.main([*arguments(job), "--out", "whole", "--log", "whole.csv"]) == 0
    lines = progress_lines(capsys.readouterr().out)
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        assert train.main([*arguments(job), "--out", "parts", "--log", "parts.csv"]) == 143
    before = progress_lines(capsys.readouterr().out)
    assert load_training("parts/last.npz").training.values["position"]["step"] == 7
    assert train.main(["--resume", "parts"]) == 0
    assert before + progress_lines(capsys.readouterr().out) == lines and lines
    assert sorted(os.listdir("whole")) == sorted(os.listdir("parts"))
    for name in {*os.listdir("whole")} - {"config.ini"}:
        one, other = (load_training(f"{folder}/{name}") for folder in ("whole", "parts"))
        assert compared(one, other) == []
    assert timeless("whole.csv") == timeless("parts.csv")
    assert len(timeless("whole.csv")) == len(lines) + 1


def timeless(path):
    """The lines of a log without the last column, the seconds."""
    return [line.rpartition(",")[0] for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("job", ["text", "images static"])
def test_verify_resume_proves_it_and_finds_a_difference(job, data, monkeypatch, capsys):
    assert train.main([*arguments(job), "--verify-resume"]) == 0
    assert re.search(r"the same to the last bit: \d+ steps, and \d+ \+ \d+;", capsys.readouterr().out)
    assert not Path("checkpoints").exists()
    engine = nn.training.engines.TapeEngine if job == "text" else nn.training.engines.StaticEngine
    monkeypatch.setattr(engine, "load_state_dict", lambda self, state: None)
    assert train.main([*arguments(job), "--verify-resume"]) == 1
    assert "not the same: " in capsys.readouterr().out


def test_the_evaluation_and_save_intervals_do_not_change_the_training(data, capsys):
    for name, intervals in {"a": ("3", "2"), "b": ("50", "50")}.items():
        assert train.main([*SMALL_TEXT, "--steps", "11", "--out", name, "--eval-interval",
                           intervals[0], "--save-interval", intervals[1]]) == 0
    one, other = (load_training(f"{name}/last.npz") for name in "ab")
    assert set(compared(one, other)) <= {"position", "history"}


def test_changed_settings_and_data_are_refused_and_listed(data, capsys):
    assert train.main([*arguments("text"), "--out", "a"]) == 0
    capsys.readouterr()
    before = Path("a/last.npz").read_bytes()
    message = refused(capsys, train.main, "text", "--resume", "a", "--lr", "0.5", "--steps", "40")
    assert "lr: 0.003 when saved, 0.5 now; steps: 30 when saved, 40 now." in message
    assert "that run is of the job text" in refused(capsys, train.main, "names", "--resume", "a")
    assert "leave --out" in refused(capsys, train.main, "--resume", "a", "--out", "b")
    Path("t.txt").write_text(TEXT[1:] + "t")
    assert "the data are not those that it was" in refused(capsys, train.main, "--resume", "a")
    assert Path("a/last.npz").read_bytes() == before


def test_steps_may_grow_where_the_rate_does_not_depend_on_them(data, capsys):
    for name, steps in (("whole", "30"), ("parts", "13")):
        assert train.main([*JOBS["sentences"], "--steps", steps, "--out", name]) == 0
    assert train.main(["--resume", "parts", "--steps", "30"]) == 0
    differing = compared(*(load_training(f"{name}/last.npz") for name in ("whole", "parts")))
    assert differing == ["history"]                        # which has the line of step 13
    assert "steps: 30 when saved, 29 now" in refused(
        capsys, train.main, "--resume", "parts", "--steps", "29")


def weights_of(path):
    return nn.load_checkpoint(path).model.state_dict()


def test_checkpointing_of_blocks_gives_the_same_weights_and_may_change(data, monkeypatch):
    flags = [*SMALL_TEXT, "--steps", "12"]
    assert train.main([*flags, "--out", "plain"]) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert train.main([*flags, "--out", "less"]) == 143
    assert train.main(["--resume", "less", "--checkpointing"]) == 0
    for name, array in weights_of("plain/last.npz").items():
        np.testing.assert_array_equal(array, weights_of("less/last.npz")[name])


def test_micro_batches_are_the_same_to_rounding_and_may_not_change(data, monkeypatch, capsys):
    flags = [*SMALL_TEXT[:-4], "--steps", "3"]             # without dropout
    assert train.main([*flags, "--out", "whole"]) == 0
    assert train.main([*flags, "--out", "parts", "--micro-batch-size", "5"]) == 0
    for name, array in weights_of("whole/last.npz").items():
        np.testing.assert_allclose(array, weights_of("parts/last.npz")[name], rtol=0, atol=1e-4)
    assert "micro_batch_size: 5 when saved, 4 now" in refused(
        capsys, train.main, "--resume", "parts", "--micro-batch-size", "4")


def test_a_flag_that_an_older_version_did_not_have_had_its_default(data, monkeypatch):
    with monkeypatch.context() as patch:
        of_now = jobs_run._settings
        patch.setattr(jobs_run, "_settings", lambda o: {
            name: value for name, value in of_now(o).items() if name not in ("lines", "seed")})
        stop_after(patch, 5)
        assert train.main([*SMALL_TEXT, "--steps", "9", "--out", "a"]) == 143
    assert train.main(["--resume", "a"]) == 0


def test_checkpointing_is_for_models_with_blocks(data, capsys):
    assert "--checkpointing is not for --arch lstm" in refused(
        capsys, train.main, "text", "--data", "t.txt", "--arch", "lstm", "--checkpointing")


@pytest.mark.parametrize("flag", ["--resumes", "--replays=x"])
def test_a_flag_that_only_begins_like_one_is_unknown(flag, data, capsys):
    assert f"unknown argument '{flag}'; did you mean {flag[:8]}?" in refused(capsys, train.main, flag)


def test_a_run_goes_on_with_as_many_workers_as_it_chose(kernel_set, data, monkeypatch, capsys):
    monkeypatch.setattr(jobs_job, "ENOUGH", 0)
    flags, cores = [*SMALL_TEXT, "--steps", "12"], "nn.jobs.job.available_cores"
    with monkeypatch.context() as patch:
        patch.setattr(cores, lambda: 2)
        assert train.main([*flags, "--out", "whole"]) == 0
        stop_after(patch, 5)
        assert train.main([*flags, "--out", "parts"]) == 143
    capsys.readouterr()
    monkeypatch.setattr(cores, lambda: 3)
    assert train.main(["--resume", "parts"]) == 0
    assert {"numpy": "2 processes, each with one BLAS thread\n" if sys.platform.startswith("linux") else
            "2 threads, each with one BLAS thread\n", "numba": "compiled kernels in 2 threads\n"
            }[kernel_set] in capsys.readouterr().out
    assert not compared(load_training("whole/last.npz"), load_training("parts/last.npz"))
    assert "workers: 2 when saved, 1 now" in refused(
        capsys, train.main, "--resume", "parts", "--workers", "1")


def test_a_copy_of_a_checkpoint_in_the_folder_of_another_run_is_refused(data, capsys):
    for name in "ab":
        assert train.main([*SMALL_TEXT, "--steps", "3", "--out", name]) == 0
    Path("b/copy.npz").write_bytes(Path("a/last.npz").read_bytes())
    assert "b/copy.npz lies in a folder with a run, whose last.npz" in refused(
        capsys, train.main, "--resume", "b/copy.npz")
    Path("c").mkdir()
    Path("b/copy.npz").rename("c/copy.npz")
    assert train.main(["--resume", "c/copy.npz"]) == 0


def test_a_best_that_was_deleted_is_written_anew_and_else_not_named(data, monkeypatch, capsys):
    flags = [*SMALL_TEXT, "--steps", "8", "--eval-interval", "4", "--out", "a"]
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert train.main(flags) == 143
    Path("a/best.npz").unlink()
    assert train.main(["--resume", "a"]) == 0
    assert Path("a/best.npz").exists()
    Path("a/best.npz").unlink()
    capsys.readouterr()
    assert train.main(["--resume", "a"]) == 0               # it is complete
    assert "saved a/last.npz" in capsys.readouterr().out


def test_a_training_does_not_end_because_latest_cannot_be_set(data, monkeypatch, capsys):
    of_now = os.replace

    def replace(source, target):
        if Path(target).name == "latest":
            raise PermissionError(13, "Permission denied")
        of_now(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert train.main([*SMALL_TEXT, "--steps", "3"]) == 0
    assert re.search(r"note: checkpoints/latest does not lead to checkpoints/text-\d+-\d+: Permission "
                     r"denied\n", capsys.readouterr().err)
    assert sorted(Path("checkpoints").rglob("*.npz")) and not [*Path("checkpoints").glob(".latest*")]


def test_a_disk_that_is_full_is_reported_with_the_file(data):
    pytest.importorskip("resource", reason="the size of files cannot be limited here")
    limited = ("import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)); "
               f"sys.path.insert(0, {str(ROOT)!r}); import train; "
               f"sys.exit(train.main({[*SMALL_TEXT, '--steps', '3', '--out', 'a']}))")
    done = run_python("-c", limited, cwd=data)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "train.py: error: cannot write a/best.npz: File too large\n" in done.stderr


def interrupted_at(monkeypatch, call, what):
    """Calls of `engine.update`, of which one does something besides."""
    of_now, calls = nn.training.engines.TapeEngine.update, []

    def update(self, *given):
        calls.append(1)
        if len(calls) == call:
            what()
        return of_now(self, *given)

    monkeypatch.setattr(nn.training.engines.TapeEngine, "update", update)


@pytest.mark.parametrize("call", [3, 20 + 1, 20 + 18 + 1])
def test_verify_resume_ends_with_a_signal_in_each_of_its_parts(call, data, monkeypatch, capsys):
    monkeypatch.setattr(verify, "stop_at", lambda share, steps: 18)
    monkeypatch.setattr(jobs_run, "stop_at", lambda share, steps: 18)
    interrupted_at(monkeypatch, call, lambda: signal.raise_signal(signal.SIGINT))
    assert train.main([*SMALL_TEXT, "--steps", "20", "--verify-resume"]) == 130
    assert capsys.readouterr().err == "\ntrain.py: stopped; nothing is proved\n"


def test_a_folder_that_was_removed_is_made_again_unless_another_run_has_it(data, monkeypatch, capsys):
    flags = [*SMALL_TEXT, "--steps", "12", "--save-interval", "4", "--out", "a"]
    with monkeypatch.context() as patch:
        interrupted_at(patch, 6, lambda: shutil.rmtree("a"))
        assert train.main(flags) == 0
    assert Path("a/last.npz").exists()

    def replaced():
        shutil.rmtree("a")
        Path("a").mkdir()
        Path("a/last.npz").write_text("of another")

    with monkeypatch.context() as patch:
        interrupted_at(patch, 6, replaced)
        assert "the folder a was removed while this run wrote to it" in refused(
            capsys, train.main, *flags, "--overwrite")
    assert Path("a/last.npz").read_text() == "of another"


def test_commands_to_copy_name_a_folder_with_a_space(data, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert train.main([*SMALL_TEXT, "--steps", "9", "--out", "my run"]) == 143
    *_, command = capsys.readouterr().err.strip().partition("to go on:\n  python train.py ")
    assert "--resume 'my run'; to" in refused(capsys, train.main, *SMALL_TEXT, "--out", "my run")
    assert train.main(shlex.split(command)) == 0
    assert "--checkpoint 'my run/best.npz'" in capsys.readouterr().out


def test_of_changed_data_no_flags_are_blamed(data, capsys):
    assert train.main([*SMALL_TEXT, "--steps", "3", "--out", "a"]) == 0
    Path("t.txt").write_text(TEXT[::-1])
    message = refused(capsys, train.main, "--resume", "a")
    assert "it was trained on. Restore the data, or begin a new run\n" in message


def test_what_verify_resume_cannot_prove_is_refused(data, capsys):
    assert "give --data a file rather than -" in refused(
        capsys, train.main, "text", "--data", "-", "--verify-resume")
    assert "train at least two" in refused(
        capsys, train.main, *SMALL_TEXT, "--steps", "1", "--verify-resume")


def test_best_is_replaced_only_by_better_over_resumes(data, monkeypatch, capsys):
    losses = iter([3.0, 2.0, 2.5, 1.9, 2.2])
    monkeypatch.setattr("nn.jobs.text.validation_loss", lambda *_: next(losses))
    flags = [*SMALL_TEXT, "--steps", "5", "--eval-interval", "1", "--out", "a"]
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert train.main(flags) == 143
    os.replace("a/last.npz", "last")
    with monkeypatch.context() as patched:
        patched.setattr("nn.jobs.text.validation_loss", lambda *_: 2.1)
        os.replace("last", "a/last.npz")
        stop_after(patched, 3)
        assert train.main(["--resume", "a"]) == 143
    assert nn.load_checkpoint("a/best.npz").info["step"] == 2
    assert train.main(["--resume", "a"]) == 0
    assert nn.load_checkpoint("a/best.npz").info["step"] == 5      # losses 2.5, 1.9
    assert nn.load_checkpoint("a/best.npz").info["validation_loss"] == 1.9


def test_a_checkpoint_without_a_training_is_refused(capsys):
    nn.save_checkpoint("a.npz", nn.GPT(nn.GPTConfig(2, 4, 1, 1, 4), rng=0))
    assert "a.npz holds a model without the state of its training" in refused(
        capsys, train.main, "--resume", "a.npz")


def test_the_state_of_many_parameters_is_packed_into_one_array():
    state = {"t.0": np.array(3), "m.0": np.ones((2, 2)), "t.1": np.array(4), "m.1": np.zeros(3)}
    found = packed(state)
    assert {name: array.shape for name, array in found.items()} == {"t": (2,), "m": (7,)}
    again = unpacked(found, state)
    assert list(again) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(again[name], array)
    with pytest.raises(ValueError, match="the state of the optimiser must be the arrays"):
        unpacked({"t": found["t"], "m": found["m"][1:]}, state)


def test_generators_go_on_where_they_were():
    rng = np.random.default_rng(3)
    rng.random(5, np.float32)
    states, wanted = stream_states({"a": rng}), rng.random(9)
    other = np.random.default_rng(0)
    set_streams({"a": other}, states)
    np.testing.assert_array_equal(other.random(9), wanted)
    for wrong in ({}, 3, {"a": 3}, {"a": {"bit_generator": "MT19937"}},
                  {"a": {**states["a"], "state": {"state": -1, "inc": 2 ** 300}}}):
        with pytest.raises(ValueError, match="random stream"):
            set_streams({"a": other}, wrong)


def test_the_fingerprint_is_of_texts_and_of_arrays_with_their_shape_and_dtype():
    x = np.arange(6.0)
    found = [fingerprint("ab"), fingerprint("a", "b"), fingerprint(x), fingerprint(x.reshape(2, 3)),
             fingerprint(x.astype(np.float32)), fingerprint(x.astype(np.float32), "ab")]
    assert len(set(found)) == 6 and fingerprint(x.copy()) == found[2]


# --- as processes ---

KILLED = {"sentences": ("--n-embd", "16", "--steps", "400", "--save-interval", "7"),
          "text": (*SMALL_TEXT, "--steps", "700", "--eval-interval", "150", "--save-interval", "5"),
          "names": ("names", "--data", "t.txt", "--n-embd", "8", "--steps", "700",
                    "--save-interval", "9")}


def process(*words):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(ROOT / "train.py"), *words], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("job", KILLED)
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_was_left_alone(job, data):
    """SIGKILL seven times for each of three jobs; then to the end."""
    rng = random.Random(job)
    whole = process(*KILLED[job], "--out", "whole")
    kills = 0
    while kills < 7:
        begun = Path("parts/last.npz").exists()
        run = process(*(["--resume", "parts"] if begun else [*KILLED[job], "--out", "parts"]))
        run.stdout.readline()                       # it has begun; the rest of its start is killed too
        time.sleep(rng.uniform(0, 0.15))
        run.kill()
        run.communicate()
        kills += run.returncode == -signal.SIGKILL
        assert run.returncode in (0, -signal.SIGKILL)
    assert process(*(["--resume", "parts"] if Path("parts/last.npz").exists() else
                     [*KILLED[job], "--out", "parts"])).communicate()[1] == b""
    assert whole.communicate()[1] == b"" and whole.returncode == 0
    for name in {*os.listdir("whole")} - {"config.ini"}:
        assert compared(*(load_training(f"{folder}/{name}") for folder in ("whole", "parts"))) == []
    assert sorted(os.listdir("whole")) == sorted(os.listdir("parts"))


@pytest.mark.parametrize("name, status", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_saves_before_the_first_evaluation_and_says_how_to_go_on(name, status, data):
    run = process(*SMALL_TEXT, "--steps", "100000", "--eval-interval", "100000", "--log-interval", "1")
    while not run.stdout.readline().startswith(b"step"):
        pass
    run.send_signal(getattr(signal, name))
    run.send_signal(getattr(signal, name))
    out, err = run.communicate()
    assert run.returncode == status and b"Traceback" not in err
    found = re.fullmatch(r"\ntrain.py: stopped by (\w+) after step (\d+), saved; to go on:\n  python "
                         r"train.py text --resume (checkpoints/text-\d+-\d+)\n", err.decode())
    assert found.group(1) == name
    assert load_training(f"{found.group(3)}/last.npz").info["step"] == int(found.group(2))


def test_ctrl_c_during_the_imports_ends_without_a_traceback():
    code = """
import runpy, signal, sys

class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "numpy":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder)
sys.argv = ["train.py"]
runpy.run_path("train.py", run_name="__main__")
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


# --- numbers that are not finite ---


@pytest.mark.parametrize("engine", ["tape", "static"])
def test_a_step_that_gives_nan_is_kept_and_run_again(engine, folder, capsys):
    error = refused(capsys, train.main, "--engine", engine, "--lr", "1e30", "--out", "a",
                    "--save-interval", "1")
    assert ("the loss is nan at step 2, of which nothing was saved. python train.py sentences "
            "--replay a/replay.npz shows where it arises; try a lower --lr") in error
    assert nn.load_checkpoint("a/last.npz").info["step"] == 1           # the last good one
    kept = load_training("a/replay.npz").training
    assert kept.arrays["batch.0"].shape == (10, 13) and kept.values["position"]["step"] == 1
    assert train.main(["--replay", "a/replay.npz"]) == 0
    out = capsys.readouterr().out
    assert "step 2 again: the loss is nan at step 2" in out
    assert ("first: module 'blocks.0.attention.query' (Linear) gives inf at (0, 0, 0) of shape "
            "(10, 13, 64)\n" if engine == "tape" else
            "a static graph, of whose parts nothing is known") in out
    assert "has no batch" in refused(capsys, train.main, "--replay", "a/last.npz")


def test_a_replay_has_the_dropout_of_the_step(folder, monkeypatch, capsys):
    """The loss is infinite where dropout left the last feature: the same elements are dropped again."""
    Path("t.txt").write_text(TEXT)
    seen = []
    gradients = nn.training.engines.TapeEngine._gradients

    def failing(self, step, batch):
        loss = gradients(self, step, batch)
        seen.append(loss)
        if step == 3:
            raise nn.training.engines.Diverged("the loss is nan at step 3")
        return loss
    monkeypatch.setattr(nn.training.engines.TapeEngine, "_gradients", failing)
    assert "--replay a/replay.npz" in refused(
        capsys, train.main, *SMALL_TEXT, "--steps", "5", "--out", "a")
    assert train.main(["--replay", "a/replay.npz"]) == 0
    assert len(seen) == 4 and seen[3] == seen[2]


# --- damaged checkpoints ---


def test_a_damaged_checkpoint_ends_in_one_line_and_status_2(data, capsys):
    assert train.main([*arguments("text"), "--out", "a"]) == 0
    capsys.readouterr()
    whole, rng = Path("a/last.npz").read_bytes(), np.random.default_rng(0)
    damaged = [whole[:int(n)] for n in rng.integers(0, len(whole), 30)]
    places = regions(whole)
    inside = np.concatenate([np.arange(*place) for place in places["numbers"] + places["JSON header"]])
    for position in rng.choice(inside, 60):
        damaged.append(whole[:position] + bytes([whole[position] ^ 1 << int(rng.integers(8))])
                       + whole[position + 1:])
    damaged += [b"", b"hello", Path(train.__file__).read_bytes()]
    damaged += [data for _, data in crafted(3, 2 ** 24)][::9] + [data for _, data in bombs(3, 2 ** 26)]
    for number, content in enumerate(damaged):
        Path("a/last.npz").write_bytes(content)
        tracemalloc.start()
        status = train.main(["--resume", "a"])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        err = capsys.readouterr().err
        assert status == 2 and err.count("\n") == 1 and len(err) < 700, number
        assert peak < 10 * len(content) + 2 ** 23, number
