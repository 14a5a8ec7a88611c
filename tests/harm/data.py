"""Cases: kinds of datasets, and how they are stored and read."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, concatenate_datasets
from datasets.distributed import split_dataset_by_node

from sentence_transformers import SentenceTransformerTrainer
from tests.harm import objects
from tests.harm.bench import Bench, pairs
from tests.harm.table import case

FEATURES = pairs(1).features


@case(1, 2)
def data_is_transformed(bench: Bench) -> None:
    """``set_transform``, always the same."""
    data = pairs()
    data.set_transform(lambda rows: {**rows, "anchor": [text.upper() for text in rows["anchor"]]})
    bench.train(data=data, batch_sampler="no_duplicates")


@case(1, 2)
def data_is_transformed_at_random(bench: Bench) -> None:
    """Field case 15: the draws differ by rank and from read to read."""
    generator = np.random.default_rng(bench.rank)
    data = pairs()
    data.set_transform(lambda rows: {**rows, "anchor": [f"a{generator.integers(100)}" for _ in rows["anchor"]]})
    bench.train(data=data, batch_sampler=objects.Shuffled)


@case(2)
def data_is_transformed_at_random_without_duplicates(bench: Bench) -> None:
    """Field case 15: with ``no_duplicates``; the values that it looks at are not those that it hands out."""
    generator = np.random.default_rng(bench.rank)
    data = pairs()
    data.set_transform(lambda rows: {**rows, "anchor": [f"a{generator.integers(10**9)}" for _ in rows["anchor"]]})
    bench.train(data=data, batch_sampler="no_duplicates")


@case()
def columns_are_made_by_a_transform(bench: Bench) -> None:
    """To try (3015): what is stored is none of what the batch has."""
    data = Dataset.from_dict({"number": list(range(24))})
    data.set_transform(
        lambda rows: {
            "anchor": [f"a{row}" for row in rows["number"]],
            "positive": [f"p{row}" for row in rows["number"]],
            "label": rows["number"],
        }
    )
    bench.train(data=data, batch_sampler=objects.Shuffled)


@case()
def data_has_a_format(bench: Bench) -> None:
    """Labels as tensors of torch."""
    bench.train(data=pairs().with_format("torch", columns=["label"], output_all_columns=True))


@case()
def data_has_the_numpy_format(bench: Bench) -> None:
    """Labels as NumPy's numbers, with a sampler that reads values."""
    data = pairs().with_format("numpy", columns=["label"], output_all_columns=True)
    bench.train(data=data, batch_sampler="no_duplicates")


@case(1, 2)
def data_is_concatenated(bench: Bench) -> None:
    """Of three parts."""
    bench.train(data=concatenate_datasets([pairs(8), pairs(8, 8), pairs(8, 16)]), batch_sampler="no_duplicates")


@case(1, 2)
def data_is_selected(bench: Bench) -> None:
    """By row numbers, shuffled, and sharded."""
    data = pairs(60).shuffle(seed=5).select(range(48)).shard(2, 0)
    bench.train(data=data, batch_sampler="no_duplicates")


@case()
def data_is_filtered_and_mapped(bench: Bench) -> None:
    """With a batch size of its own."""
    data = pairs(48).filter(lambda row: row["label"] % 2 == 0).map(lambda row: row, batch_size=5)
    bench.train(data=data, batch_sampler="no_duplicates")


@case(1, 2)
def data_is_loaded_from_disk(bench: Bench) -> None:
    """Memory-mapped."""
    folder = bench.stored("stored", lambda path: pairs().shuffle(seed=5).save_to_disk(path))
    bench.train(data=datasets.load_from_disk(folder), batch_sampler="no_duplicates")


@case(2)
def rank_0_prepares_and_the_others_load(bench: Bench) -> None:
    """Field case 1: equal rows, stored in two ways."""
    prepared = pairs().shuffle(seed=5)
    folder = bench.stored("stored", prepared.save_to_disk)
    data = prepared if bench.rank == 0 else datasets.load_from_disk(folder)
    bench.train(data=data, batch_sampler="no_duplicates")


@case(2)
def rank_0_prepares_with_another_batch_size(bench: Bench) -> None:
    """Field case 1: ``map`` in other chunks, and concatenated from other parts."""
    if bench.rank == 0:
        data = pairs().map(lambda row: row, batch_size=3)
    else:
        data = concatenate_datasets([pairs(10), pairs(14, 10)])
    bench.train(data=data, batch_sampler=objects.Shuffled)


@case(2)
def ranks_read_other_row_groups(bench: Bench) -> None:
    """Field case 1: one Parquet file, in chunks of other sizes."""
    folder = bench.stored(
        "stored", lambda path: (path.mkdir(), pairs().to_parquet(path / "rows.parquet", batch_size=5))
    )
    whole = Dataset.from_parquet(str(folder / "rows.parquet"), cache_dir=str(bench.folder / f"cache{bench.rank}"))
    bench.train(data=whole if bench.rank else pairs(), batch_sampler="no_duplicates")


@case(1, 2)
def dataset_is_used_by_two_trainers(bench: Bench) -> None:
    """One after the other."""
    data = DatasetDict({"one": pairs(12), "other": pairs(12, 100)})
    for _ in range(2):
        bench.train(data=data, batch_sampler=objects.Shuffled, multi_dataset_batch_sampler=objects.Weighted)


@case()
def datasets_delegate(bench: Bench) -> None:
    """Field case 19: wrappers that hand on what they do not know, to the default sampler."""
    bench.train(data={"one": objects.Delegating(pairs(12)), "other": objects.Delegating(pairs(12, 100))})


@case()
def datasets_delegate_to_an_own_sampler(bench: Bench) -> None:
    """The same, with a sampler of the user's."""
    data = {"one": objects.Delegating(pairs(12)), "other": objects.Delegating(pairs(12, 100))}
    bench.train(data=data, batch_sampler=objects.Shuffled)


class WithoutCard(SentenceTransformerTrainer):
    """Makes no model card, which asks a dataset for what only the Hub's have."""

    def add_model_card_callback(self, default_args_dict: Any) -> None:
        """As the library documents."""


@case(1, 2)
def datasets_are_torch_s(bench: Bench) -> None:
    """Field case 19: ``torch.utils.data`` datasets in a dict."""
    bench.train(cls=WithoutCard, data={"one": objects.Listed(pairs(12)), "other": objects.Listed(pairs(12, 100))})


@case()
def evaluation_sets_are_torch_s(bench: Bench) -> None:
    """Field case 19: to evaluate on."""
    evaluated = {"one": objects.Listed(pairs(4, 100)), "other": objects.Delegating(pairs(4, 200))}
    more = {"eval_dataset": evaluated}
    bench.train(cls=WithoutCard, batch_sampler=objects.Shuffled, more=more, eval_strategy="epoch")


@case()
def placeholders_are_negatives(bench: Bench) -> None:
    """To try (1178, 3743): ``""`` in a third of the rows."""
    data = pairs().add_column("negative", ["" if row % 3 == 0 else f"p{100 + row}" for row in range(24)])
    bench.train(data=data.select_columns(["anchor", "positive", "negative", "label"]), batch_sampler="no_duplicates")


@case()
def values_repeat(bench: Bench) -> None:
    """Each anchor in two rows."""
    data = pairs().remove_columns("anchor").add_column("anchor", [f"a{row // 2}" for row in range(24)])
    bench.train(data=data.select_columns(["anchor", "positive", "label"]), batch_sampler="no_duplicates")


@case()
def small_dataset_of_several(bench: Bench) -> None:
    """Field case 16: one of two datasets has no whole batch, which are not asked for."""
    data = {"small": pairs(3), "large": pairs(24, 100)}
    bench.train(data=data, batch_sampler=objects.Shuffled, multi_dataset_batch_sampler="round_robin")


def stream(rows: int = 24, shards: int = 1) -> IterableDataset:
    """The pairs, as they lie."""
    return pairs(rows).to_iterable_dataset(num_shards=shards)


@case()
def stream_is_read(bench: Bench) -> None:
    """As it lies."""
    bench.train(data=stream(), max_steps=9)


@case()
def stream_is_shuffled(bench: Bench) -> None:
    """Through a buffer, over two epochs."""
    bench.train(data=stream().shuffle(seed=7, buffer_size=8), max_steps=9)


@case()
def stream_is_generated(bench: Bench) -> None:
    """By a function of the user's."""
    data = IterableDataset.from_generator(lambda: iter(pairs()), features=FEATURES)
    bench.train(data=data, max_steps=9)


@case()
def stream_skips_and_takes(bench: Bench) -> None:
    """To try (accelerate 4080)."""
    bench.train(data=stream().skip(4).take(16), max_steps=6)


@case()
def stream_has_workers(bench: Bench) -> None:
    """To try (datasets 6673): workers that stay for three passes."""
    bench.train(
        data=stream(24, 2).shuffle(seed=7, buffer_size=8),
        max_steps=15,
        dataloader_num_workers=2,
        dataloader_persistent_workers=True,
    )


@case(2)
def stream_is_split_by_hand(bench: Bench) -> None:
    """To try (3547): each rank has its part, and nothing is dispatched."""
    data = split_dataset_by_node(stream(48, 4), bench.rank, bench.world_size)
    bench.train(data=data, max_steps=4, accelerator_config={"dispatch_batches": False})


@case()
def stream_is_evaluated_on(bench: Bench) -> None:
    """After each epoch of a dataset of the other kind."""
    bench.train(batch_sampler=objects.Shuffled, more={"eval_dataset": stream(8)}, eval_strategy="epoch")


@case()
def several_losses_and_prompts(bench: Bench) -> None:
    """By the name of the dataset."""
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss

    model = bench.model()
    losses = {"one": MultipleNegativesRankingLoss(model), "other": CosineSimilarityLoss(model)}
    scored = pairs(12).remove_columns("label").add_column("label", [float(row) for row in range(12)])
    bench.train(
        data={"one": pairs(12, 100), "other": scored},
        more={"model": model, "loss": losses},
        batch_sampler=objects.Shuffled,
        prompts={"one": {"anchor": "same"}, "other": "none"},
    )


@case()
def columns_are_reserved(bench: Bench) -> None:
    """Refused, by the library."""
    bench.train(data=pairs().rename_column("positive", "return_loss"))
