"""What every rank would do first, done once in the process that ranks are forked from.

The imports take ten seconds. Before it loads its first model, transformers compiles about 900 regular expressions,
which takes a third of the time of a short run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from transformers.utils import logging

import conformance.matrix  # noqa: F401
from conformance.runs import small_model
from sentence_transformers import SentenceTransformer

# A progress bar makes a lock that all ranks would share: one that is killed while it holds it would stop the others.
logging.disable_progress_bar()
with tempfile.TemporaryDirectory() as folder:
    SentenceTransformer(small_model(Path(folder)), device="cpu")
logging.enable_progress_bar()
