"""The set-up names what is missing, with the line to type, before it changes anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
HOME = Path(__file__).parents[1]
TOOLS = ("bash", "sh", "sed", "head", "cat", "cut", "sha256sum", "dirname", "nproc", "java", "gcc", "g++", "make")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with everything that the set-up needs, and nothing else."""
    for tool in TOOLS:
        os.symlink(shutil.which(tool) or "/nonexistent", tmp_path / tool)
    os.symlink(sys.executable, tmp_path / "python3.11")
    return tmp_path


def setup(path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "PYTHON": str(path / "python3.11")}
    command = [path / "bash", "requirements/setup.sh", ".venv-not-there"]
    return subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("java", "sudo apt-get install openjdk-17-jre-headless"),
        ("g++", "sudo apt-get install build-essential"),
        ("python3.11", "sudo apt-get install python3.11"),
    ],
)
def test_missing_prerequisite_is_one_sentence_with_the_line_to_type(path: Path, missing: str, line: str) -> None:
    (path / missing).unlink()
    done = setup(path)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (HOME / ".venv-not-there").exists()


def test_a_folder_with_a_blank_is_refused(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "my shop" / "requirements"
    copy.mkdir(parents=True)
    shutil.copy(HOME / "requirements" / "setup.sh", copy)
    done = subprocess.run([path / "bash", copy / "setup.sh"], env={"PATH": str(path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "my shop' has a blank in it" in done.stderr


def test_old_java_is_named(path: Path) -> None:
    (path / "java").unlink()
    (path / "java").write_text(f"#!{path}/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    (path / "java").chmod(0o755)
    done = setup(path)
    assert done.returncode == 2
    assert "is 11" in done.stderr
