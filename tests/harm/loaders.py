"""Cases: loaders that users build by themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from sentence_transformers import SentenceTransformerTrainer
from tests.harm import objects
from tests.harm.bench import BATCH_SIZE, Bench, pairs
from tests.harm.table import case


class PlainLoader(SentenceTransformerTrainer):
    """A loader of torch's, which accelerate never sees."""

    def get_train_dataloader(self) -> Any:
        """Shuffled by a generator of its own."""
        generator = torch.Generator().manual_seed(3)
        return DataLoader(
            self.train_dataset, BATCH_SIZE, shuffle=True, generator=generator, collate_fn=self.data_collator
        )


class PreparedLoader(PlainLoader):
    """The same, prepared by accelerate."""

    def get_train_dataloader(self) -> Any:
        """Sharded by accelerate."""
        return self.accelerator.prepare(super().get_train_dataloader())


class OwnSamplerLoader(SentenceTransformerTrainer):
    """A loader over a user's batch sampler."""

    def get_train_dataloader(self) -> Any:
        """Prepared by accelerate."""
        sampler = objects.Shuffled(self.train_dataset, BATCH_SIZE, True)
        return self.accelerator.prepare(
            DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)
        )


class WrappedLoader(SentenceTransformerTrainer):
    """The library's loader in a class of the user's."""

    def get_train_dataloader(self) -> Any:
        """Wrapped."""
        return objects.Batches(super().get_train_dataloader())


class ListOfBatches(SentenceTransformerTrainer):
    """Batches that are collated once."""

    def get_train_dataloader(self) -> Any:
        """A list."""
        rows = list(self.train_dataset)
        return [self.data_collator(rows[start : start + BATCH_SIZE]) for start in range(0, len(rows), BATCH_SIZE)]


class BatchesFromTheDataset(SentenceTransformerTrainer):
    """``batch_size=None``: the dataset itself yields batches."""

    def get_train_dataloader(self) -> Any:
        """Not prepared."""
        rows = list(self.train_dataset)
        batches = [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
        return DataLoader(batches, batch_size=None, collate_fn=self.data_collator)


class LenientLoader(SentenceTransformerTrainer):
    """Loses its ``set_epoch`` as a plain generator would."""

    def get_train_dataloader(self) -> Any:
        """An object with a length and an iterator."""
        loader = super().get_train_dataloader()

        class Plain:
            def __len__(self) -> int:
                return len(loader)

            def __iter__(self) -> Any:
                return iter(loader)

        return Plain()


@case(1)
def loader_is_torchs_own(bench: Bench) -> None:
    """Not prepared."""
    bench.train(cls=PlainLoader)


@case(1, 2)
def loader_is_torchs_own_prepared(bench: Bench) -> None:
    """With accelerate's seedable sampler."""
    bench.train(cls=PreparedLoader)


@case(1, 2)
def loader_has_an_own_sampler(bench: Bench) -> None:
    """Prepared."""
    bench.train(cls=OwnSamplerLoader)


@case(1, 2)
def loader_is_wrapped(bench: Bench) -> None:
    """It hands on what it does not know."""
    bench.train(cls=WrappedLoader)


@case()
def loader_is_a_list(bench: Bench) -> None:
    """It has nothing of a loader."""
    bench.train(cls=ListOfBatches)


@case()
def loader_takes_batches_from_the_dataset(bench: Bench) -> None:
    """It has no batch sampler."""
    bench.train(cls=BatchesFromTheDataset)


@case(1, 2)
def loader_takes_no_epoch(bench: Bench) -> None:
    """It has a length, and an iterator."""
    bench.train(cls=LenientLoader)


@case(1, 2)
def loader_has_a_user_s_dataset(bench: Bench) -> None:
    """A dataset that takes the epoch, as the field's do."""
    told = []

    class Dataset(objects.Listed):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    class Own(SentenceTransformerTrainer):
        def get_train_dataloader(self) -> Any:
            loader = DataLoader(Dataset(pairs()), BATCH_SIZE, drop_last=True, collate_fn=self.data_collator)
            return self.accelerator.prepare(loader)

    bench.train(cls=Own)
    bench.note(sorted(set(told)))


@case(1, 2)
def loader_is_replaced_for_evaluation(bench: Bench) -> None:
    """``get_eval_dataloader`` of a subclass."""

    class Own(SentenceTransformerTrainer):
        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            return self.accelerator.prepare(
                DataLoader(self.eval_dataset, BATCH_SIZE, collate_fn=self.data_collator, drop_last=True)
            )

    bench.train(cls=Own, more={"eval_dataset": pairs(8, 100)}, eval_strategy="epoch")


@case()
def loader_is_read_before_training(bench: Bench) -> None:
    """A look at its first batch, and its length."""
    trainer = bench.trainer(batch_sampler=objects.Shuffled)
    loader = trainer.get_train_dataloader()
    bench.note([len(loader), next(iter(loader))["label"].tolist()])
    trainer.train()
