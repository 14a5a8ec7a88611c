"""Whoever does not train does not install what training needs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import sentence_transformers

TRAINING_ONLY = ("accelerate", "datasets", "pandas", "pyarrow", "xxhash")


def test_inference_needs_no_package_that_only_training_brings(tmp_path: Path) -> None:
    """Without the packages of the ``train`` extra, the library imports and the sampler's names are there."""
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith((*TRAINING_ONLY, "sentence_transformers")):
            (tmp_path / entry.name).symlink_to(entry)
    code = (
        f"import sys; sys.path += [{str(Path(sentence_transformers.__file__).parents[1])!r}, {str(tmp_path)!r}]\n"
        "from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer\n"
        "from sentence_transformers.base.sampler import BatchSamplers\n"
        f"missing = [name for name in {TRAINING_ONLY} if name not in sys.modules]\n"
        "print(BatchSamplers.NO_DUPLICATES_PLANNED.value, len(missing))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["no_duplicates_planned", str(len(TRAINING_ONLY))], done.stderr
