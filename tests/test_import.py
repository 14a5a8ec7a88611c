"""Whoever does not train does not install what training needs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import sentence_transformers

TRAINING_ONLY = ("accelerate", "datasets", "pandas", "peft", "pyarrow", "xxhash")
SHOWING_ONLY = ("matplotlib", "rich")


def run_without(packages: tuple[str, ...], folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` where this package and all installed ones but ``packages`` can be imported."""
    site = folder / "site"
    site.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith((*packages, "sentence_transformers")):
            (site / entry.name).symlink_to(entry)
    paths = f"import sys; sys.path += [{str(Path(sentence_transformers.__file__).parents[1])!r}, {str(site)!r}]\n"
    return subprocess.run([sys.executable, "-I", "-S", "-c", paths + code], capture_output=True, text=True)


def test_inference_needs_no_package_that_only_training_brings(tmp_path: Path) -> None:
    """Without the packages of the extras, the library imports and the sampler's names are there."""
    absent = (*TRAINING_ONLY, *SHOWING_ONLY)
    code = (
        "from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer\n"
        "from sentence_transformers.base.sampler import BatchSamplers\n"
        f"missing = [name for name in {absent} if name not in sys.modules]\n"
        "print(BatchSamplers.NO_DUPLICATES.value, len(missing))"
    )
    done = run_without(absent, tmp_path, code)
    assert done.stdout.split() == ["no_duplicates", str(len(absent))], done.stderr


@pytest.mark.wide
def test_a_report_says_what_its_table_and_pictures_need(tmp_path: Path) -> None:
    """Without rich and matplotlib, the JSON and a plain table are printed; pictures name the extra to install."""
    (tmp_path / "words.csv").write_text("word\na\nb\n")
    code = (
        "from sentence_transformers.order.__main__ import main\n"
        f"for more in (['--json'], [], ['--json', '--pictures', 'nowhere']):\n"
        f"    print('status', main([{str(tmp_path / 'words.csv')!r}, *more]))"
    )
    done = run_without(SHOWING_ONLY, tmp_path, code)
    assert [line for line in done.stdout.splitlines() if "status" in line] == ["status 0", "status 0", "status 2"]
    assert '"order-report/2"' in done.stdout
    assert "matplotlib is missing, which --pictures needs. Install it with\n  pip install" in done.stderr
