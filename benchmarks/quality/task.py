"""The pairs of a seed, and how well a model finds the English name of a translation.

Guarantee: the same seed gives the same task wherever the same `babel` is installed; no translation that is asked for
was trained on, neither of its own name nor of another.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, distributed
from transformers import AutoTokenizer

from benchmarks.quality.arms import CORPUS, HELD_OUT, LENGTH, NAMES, NEGATIVES, TRAINED
from conformance.runs import MINILM
from examples.pairs import translations


@dataclass(frozen=True)
class Task:
    """Rows to train on, questions to ask, and the names among which the answers are."""

    rows: tuple[tuple[str, str], ...]  # (translation, English name)
    answers: dict[str, tuple[int, ...]]  # of each held-out translation, places in the corpus
    corpus: tuple[str, ...]  # the names of the rows come first


@lru_cache(maxsize=1)
def names_of() -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """The translations of each English name, and the English names of each translation; of short names alone."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    of_english, of_localized = defaultdict(list), defaultdict(set)
    pairs = list(dict.fromkeys(translations()))
    short = {text for text in {text for pair in pairs for text in pair} if len(tokenizer.encode(text)) <= LENGTH}
    for english, localized in pairs:
        if english in short and localized in short:
            of_english[english].append(localized)
            of_localized[localized].add(english)
    return of_english, of_localized


@lru_cache(maxsize=1)
def task_of(seed: int) -> Task:
    """Draw the task of a seed."""
    of_english, of_localized = names_of()
    generator = random.Random(seed)
    enough = [name for name in of_english if len(of_english[name]) >= TRAINED + HELD_OUT]
    corpus = generator.sample(enough, NAMES)
    drawn = {name: generator.sample(of_english[name], TRAINED + HELD_OUT) for name in corpus}
    corpus += generator.sample(sorted(of_english.keys() - drawn.keys()), CORPUS - NAMES)
    rows = [(localized, name) for name in drawn for localized in drawn[name][:TRAINED]]
    generator.shuffle(rows)
    seen = {localized for localized, _ in rows}
    places = {name: place for place, name in enumerate(corpus)}
    answers = {
        localized: tuple(sorted(places[english] for english in of_localized[localized] & places.keys()))
        for name in drawn
        for localized in drawn[name][TRAINED:]
        if localized not in seen
    }
    return Task(tuple(rows), answers, tuple(corpus))


def encode(model: Any, texts: list[str]) -> Tensor:
    """Embeddings of unit length; each process encodes its share of the texts."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    options: dict[str, Any] = {"batch_size": 64, "convert_to_tensor": True, "normalize_embeddings": True}
    own = model.encode(texts[rank::world], show_progress_bar=False, **options)
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, own)
    embeddings = own.new_empty(len(texts), own.shape[1])
    for start, part in enumerate(parts):
        embeddings[start::world] = part
    return embeddings


def retrieval(model: Any, task: Task) -> dict[str, float]:
    """Accuracy@1 and MRR of the held-out translations."""
    embeddings = encode(model, [*task.answers, *task.corpus])
    scores = embeddings[: len(task.answers)] @ embeddings[len(task.answers) :].T
    best = torch.stack([row[list(places)].max() for row, places in zip(scores, task.answers.values())])
    ranks = 1 + (scores > best[:, None]).sum(1)
    return {"accuracy": (ranks == 1).double().mean().item(), "mrr": (1 / ranks.double()).mean().item()}


def hard_negatives(model: Any, task: Task) -> list[list[str]]:
    """For each row, the wrong names of those trained on that `model` puts nearest to the translation."""
    names = task.corpus[:NAMES]
    embeddings = encode(model, [localized for localized, _ in task.rows] + list(names))
    scores = embeddings[: len(task.rows)] @ embeddings[len(task.rows) :].T
    _, of_localized = names_of()
    for row, (localized, _) in zip(scores, task.rows):
        row[[place for place, name in enumerate(names) if name in of_localized[localized]]] = -2
    return [[names[place] for place in places] for places in scores.topk(NEGATIVES).indices.tolist()]
