"""Cases: batch samplers, the library's and users' own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler, NoDuplicatesBatchSampler
from torch.utils.data import BatchSampler, RandomSampler, WeightedRandomSampler

from sentence_transformers import SentenceTransformerTrainer
from tests.harm import objects
from tests.harm.bench import BATCH_SIZE, Bench, pairs
from tests.harm.table import case


@case(1, 2)
def sampler_is_the_default(bench: Bench) -> None:
    """Nothing is set."""
    bench.train()


@case(1, 2)
def sampler_is_no_duplicates(bench: Bench) -> None:
    """By name."""
    bench.train(batch_sampler="no_duplicates")


@case()
def sampler_is_no_duplicates_hashed(bench: Bench) -> None:
    """By name."""
    bench.train(batch_sampler="no_duplicates_hashed")


@case(1, 2)
def sampler_groups_by_label(bench: Bench) -> None:
    """Labels that occur four times each."""
    data = pairs().remove_columns("label").add_column("label", [row // 4 for row in range(24)])
    bench.train(data=data, batch_sampler="group_by_label")


@case(1, 2)
def sampler_is_a_class(bench: Bench) -> None:
    """As the documentation says: the class, not an instance."""
    bench.train(batch_sampler=objects.Shuffled)


@case()
def sampler_is_a_function(bench: Bench) -> None:
    """A function with the arguments that the documentation names."""

    def build(
        dataset: Any, batch_size: int, drop_last: bool, valid_label_columns: Any, generator: Any, seed: int
    ) -> Any:
        return objects.Shuffled(dataset, batch_size, drop_last, seed)

    bench.train(batch_sampler=build)


@case(1, 2)
def sampler_is_a_lambda(bench: Bench) -> None:
    """Which cannot be pickled."""
    bench.train(batch_sampler=lambda dataset, **kwargs: objects.Shuffled(dataset, **kwargs))


@case()
def sampler_is_a_partial(bench: Bench) -> None:
    """Of a class, with an argument of its own."""
    bench.train(batch_sampler=partial(objects.Holding, held=None))


@case()
def sampler_is_built_by_an_override(bench: Bench) -> None:
    """``get_batch_sampler`` of a subclass."""

    class Own(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> Any:
            return objects.Shuffled(dataset, batch_size, drop_last)

    bench.train(cls=Own)


@case()
def sampler_is_made_anew_from_no_duplicates(bench: Bench) -> None:
    """A subclass of the library's that changes nothing."""

    class Own(NoDuplicatesBatchSampler):
        pass

    bench.train(batch_sampler=Own)


@case(1, 2)
def sampler_holds_settings_with_attributes(bench: Bench) -> None:
    """Field case 2: a name that is missing is a KeyError."""
    held = objects.AttrDict(buckets=[[0, 8]])
    bench.train(batch_sampler=partial(objects.Holding, held=held))


@case(1, 2)
def sampler_passes_the_epoch_on_with_the_total(bench: Bench) -> None:
    """Field case 3: ``set_epoch(epoch, total)`` of an object that the sampler owns."""
    built = []
    bench.train(batch_sampler=lambda *args, **kwargs: built.append(objects.Scheduling(*args, **kwargs)) or built[-1])
    bench.note(sorted({call[1] for call in built[0].schedule.calls}))


@case(1, 2)
def sampler_holds_a_lazy_client(bench: Bench) -> None:
    """Field case 4: whatever is asked of it raises."""
    bench.train(batch_sampler=partial(objects.Holding, held=objects.LazyClient()))


@case()
def sampler_holds_a_list_of_lazy_clients(bench: Bench) -> None:
    """The same, in a list."""
    bench.train(batch_sampler=partial(objects.Holding, held=[objects.LazyClient()]))


@case(1, 2)
def sampler_holds_a_raising_property(bench: Bench) -> None:
    """Field case 4: a property that is not there yet."""
    bench.train(batch_sampler=partial(objects.Holding, held=objects.RaisingProperty()))


@case(1, 2)
def sampler_is_its_own_iterator(bench: Bench) -> None:
    """Field case 11: ``__iter__`` begins anew and returns self."""
    bench.train(batch_sampler=objects.OwnIterator)


@case(1, 2)
def sampler_looks_itself_up_by_its_type(bench: Bench) -> None:
    """Field case 20: ``SETTINGS[type(self)]``, and ``type(self) is …``."""
    bench.train(batch_sampler=objects.ByType)


@case(1, 2)
def sampler_takes_no_new_attribute(bench: Bench) -> None:
    """Nothing can be put on it."""
    bench.train(batch_sampler=objects.Slotted)


@case(1, 2)
def sampler_is_its_own_child(bench: Bench) -> None:
    """A chain of samplers that has no end."""
    bench.train(batch_sampler=objects.OfItself)


@case(1, 2)
def sampler_answers_anything(bench: Bench) -> None:
    """It has every attribute, and so have those."""
    bench.train(batch_sampler=objects.AnsweringAnything)


@case(1, 2)
def sampler_is_sequential(bench: Bench) -> None:
    """Field case 25: two epochs in the same order, on purpose."""
    bench.train(batch_sampler=objects.Sequential)


@case(1, 2)
def sampler_does_not_shuffle_unless_told(bench: Bench) -> None:
    """Field case 9: ``if self.shuffle:``, which is False."""
    bench.train(batch_sampler=objects.Flagged)


@case()
def sampler_shuffles_by_argsort(bench: Bench) -> None:
    """Field case 9: nobody has to guess that it shuffles."""
    bench.train(batch_sampler=objects.Argsorted)


@case(1, 2)
def sampler_yields_more_than_it_promises(bench: Bench) -> None:
    """One batch more than its length."""
    bench.train(batch_sampler=partial(objects.Misjudging, more=1))


@case(1, 2)
def sampler_yields_fewer_than_it_promises(bench: Bench) -> None:
    """One batch fewer than its length."""
    bench.train(batch_sampler=partial(objects.Misjudging, more=-1))


@case(1, 2)
def sampler_fails_to_take_the_epoch(bench: Bench) -> None:
    """Its own error is what is seen."""
    bench.train(batch_sampler=objects.Failing)


@case()
def sampler_keeps_its_child_to_itself(bench: Bench) -> None:
    """It takes the epoch, and its child, which could, is its own business."""
    built = []
    bench.train(batch_sampler=lambda *args, **kwargs: built.append(objects.Told(*args, **kwargs)) or built[-1])
    bench.note(sorted(set(built[0].told)))


@case(1, 2)
def sampler_is_torchs_own(bench: Bench) -> None:
    """torch's batch sampler over its random one, which takes no epoch, with a generator of its own."""

    def build(dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> BatchSampler:
        generator = torch.Generator().manual_seed(11)
        return BatchSampler(RandomSampler(dataset, generator=generator), batch_size, drop_last)

    bench.train(batch_sampler=build)


@case()
def sampler_is_weighted(bench: Bench) -> None:
    """torch's, with a weight for each row."""

    def build(dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> BatchSampler:
        weights = [1.0 + row % 3 for row in range(len(dataset))]
        generator = torch.Generator().manual_seed(11)
        return BatchSampler(WeightedRandomSampler(weights, len(dataset), generator=generator), batch_size, drop_last)

    bench.train(batch_sampler=build)


@case()
def sampler_is_used_by_two_trainers(bench: Bench) -> None:
    """One object, in one trainer after the other."""
    sampler = objects.Shuffled(pairs(), BATCH_SIZE, False)
    for _ in range(2):
        bench.train(batch_sampler=lambda *args, **kwargs: sampler)


@case()
def sampler_is_used_by_two_trainers_at_once(bench: Bench) -> None:
    """Both trainers are built before either trains."""
    sampler = objects.Shuffled(pairs(), BATCH_SIZE, False)
    for trainer in [bench.trainer(batch_sampler=lambda *args, **kwargs: sampler) for _ in range(2)]:
        trainer.train()


def two(rows: int = 12) -> dict[str, Any]:
    """Two datasets."""
    return {"one": pairs(rows), "other": pairs(rows, first=100)}


@case(1, 2)
def several_datasets_proportional(bench: Bench) -> None:
    """By name, over datasets of two lengths."""
    bench.train(data={"one": pairs(16), "other": pairs(8, 100)}, multi_dataset_batch_sampler="proportional")


@case(1, 2)
def several_datasets_round_robin(bench: Bench) -> None:
    """By name, with a sampler by name."""
    bench.train(data=two(), multi_dataset_batch_sampler="round_robin", batch_sampler="no_duplicates")


@case(1, 2)
def several_datasets_weighted(bench: Bench) -> None:
    """Field case 12: three to one, the small one begun again, over users' own children."""
    bench.train(data=two(), batch_sampler=objects.Shuffled, multi_dataset_batch_sampler=objects.Weighted)


@case()
def several_iterators_over_one_child(bench: Bench) -> None:
    """Field case 12: two iterators over one child at once, which is a user's own."""
    bench.train(data=two(24), batch_sampler=objects.Shuffled, multi_dataset_batch_sampler=objects.Interleaved)


@case()
def several_iterators_over_one_default_child(bench: Bench) -> None:
    """Field case 12: the child is the default sampler."""
    bench.train(data=two(24), multi_dataset_batch_sampler=objects.Interleaved)


@case()
def several_datasets_by_a_subclass(bench: Bench) -> None:
    """As the documentation invites."""

    class Own(MultiDatasetDefaultBatchSampler):
        def __iter__(self) -> Any:
            for child, start in zip(self.batch_samplers, [0, *self.dataset.cumulative_sizes]):
                yield from ([row + start for row in batch] for batch in child)

        def __len__(self) -> int:
            return sum(map(len, self.batch_samplers))

    bench.train(data=two(), batch_sampler=objects.Shuffled, multi_dataset_batch_sampler=Own)


@case()
def several_datasets_by_a_lambda(bench: Bench) -> None:
    """A function that builds one."""
    build = lambda dataset, batch_samplers, **kwargs: objects.Weighted(dataset, batch_samplers)  # noqa: E731
    bench.train(data=two(), batch_sampler=objects.Shuffled, multi_dataset_batch_sampler=build)
