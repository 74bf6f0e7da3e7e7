"""What an installation has: the packages, two commands, and no module named train or generate."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.checks import ROOT

pytest.importorskip("setuptools", minversion="70.1")        # which builds wheels by itself


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this project, built of a copy of it without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("tape", "nn"):
        shutil.copytree(ROOT / name, folder / "source" / name,
                        ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "train.py", "generate.py"):
        shutil.copy(ROOT / name, folder / "source" / name)
    pip(folder, "wheel", "--no-build-isolation", "./source", "--wheel-dir", ".")
    (found,) = folder.glob("*.whl")
    return found


def pip(folder, command, *arguments):
    """Run pip without an index."""
    done = subprocess.run([sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--no-index",
                           *arguments], cwd=folder, capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed")
    assert done.returncode == 0, done.stderr


def test_a_wheel_has_two_packages_and_two_commands(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        text = archive.read(entry_points).decode()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"nn", "tape"}
    assert text.split() == ["[console_scripts]", "tape-generate", "=", "nn.scripts.generate:main",
                            "tape-train", "=", "nn.scripts.train:main"]
    assert {"nn/py.typed", "tape/py.typed", "nn/scripts/train.py"} <= {*names}


@pytest.mark.skipif(os.name == "nt", reason="commands are .exe files there")
def test_the_commands_train_and_generate_in_any_folder(wheel, tmp_path):
    pip(tmp_path, "install", str(wheel), "--target", "site")

    def run(command, *arguments):
        return subprocess.run([tmp_path / "site/bin" / command, *arguments], cwd=tmp_path, text=True,
                              env={**os.environ, "PYTHONPATH": "site"}, capture_output=True)

    done = run("tape-train", "--steps", "400")
    assert done.returncode == 0, done.stderr
    assert "\n  tape-generate --checkpoint checkpoints/sentences-" in done.stdout.replace("\\\n   ", "")
    assert run("tape-generate", "--temperature", "0").stdout.startswith("the old sailor")
    assert run("tape-train", "--stesp").stderr == (
        "tape-train: error: unknown argument '--stesp'; did you mean --steps?\n")
