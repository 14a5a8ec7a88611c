"""Each property of the conformance suite on literal small records: right as they are, wrong where mutated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.properties import (
    Ranks,
    Record,
    coverage,
    follows_data_seed,
    length,
    new_order,
    own_orders,
    ranks_agree,
    resumed,
)

ONE = (Record([[3, 0], [1, 2], [2, 3], [0, 1]], (0, 2), 2, 2),)
"""One process, two epochs of rows 0 to 3 in batches of 2."""
TWO = (
    Record([[5, 0], [1, 7], [4, 7], [0, 6]], (0, 2), 2, 2),
    Record([[6, 3], [2, 4], [3, 5], [2, 1]], (0, 2), 2, 2),
)
"""Two processes, two epochs of rows 0 to 7."""


def with_step(ranks: Ranks, rank: int, step: int, rows: list[int]) -> Ranks:
    """The record with the rows of one step replaced."""
    steps = [*ranks[rank].steps[:step], rows, *ranks[rank].steps[step + 1 :]]
    return [replace(record, steps=steps) if index == rank else record for index, record in enumerate(ranks)]


@pytest.mark.parametrize("ranks", [ONE, TWO], ids=["one", "two"])
def test_a_run_that_keeps_its_promises_is_right(ranks: Ranks) -> None:
    """No property finds anything."""
    assert new_order(ranks) == ranks_agree(ranks) == length(ranks) == ""
    assert coverage(ranks, len(ranks) * 4) == ""


def test_epochs_are_the_steps_between_their_starts() -> None:
    """Also where they differ in length."""
    assert Record([[0], [1], [2]], (0, 1)).epochs == [[[0]], [[1], [2]]]


def test_a_repeated_order_is_wrong() -> None:
    """The second epoch is the first one again, on one rank."""
    repeats = with_step(with_step(TWO, 1, 2, [6, 3]), 1, 3, [2, 4])
    assert new_order(repeats) == "epoch 1 has the order of epoch 0 on rank 1"


def test_the_order_of_the_file_is_wrong() -> None:
    """Rows 0 and 1, then 2 and 3, whatever stands inside a batch."""
    assert new_order([Record([[0, 1], [2, 3], [3, 0], [1, 2]], (0, 2))]) == (
        "rank 0 reads epoch 0 from first row to last, not shuffled"
    )


def test_a_shuffle_through_a_buffer_is_a_shuffle() -> None:
    """Though its batches come in the order of their first rows."""
    assert new_order([Record([[1, 0], [3, 2], [0, 1], [3, 2]], (0, 2))]) == ""


def test_one_epoch_shows_no_new_order() -> None:
    """A run that never began a second one has not kept the promise."""
    assert "nothing to compare" in new_order([Record([[1, 0]])])


def test_a_row_on_two_ranks_at_one_step_is_wrong() -> None:
    """The rows, the step and the epoch are named."""
    said = ranks_agree(with_step(TWO, 1, 3, [6, 1]))
    assert said == "rows 6 are on several ranks in step 1 of epoch 1, and in 1 of 2 steps"


def test_unequal_numbers_of_steps_are_wrong() -> None:
    """One rank takes a step more, or an epoch more."""
    more = [replace(TWO[0], steps=[*TWO[0].steps, [3, 1]]), TWO[1]]
    assert ranks_agree(more) == "epoch 1 has 3, 2 steps on ranks 0, 1"
    assert ranks_agree([replace(TWO[0], starts=(0, 2, 4)), TWO[1]]) == "ranks began 3, 2 epochs"


def test_a_row_seen_again_and_a_row_never_seen_are_wrong() -> None:
    """Row 5 in the place of row 6 makes both."""
    assert coverage(with_step(TWO, 1, 0, [5, 3]), 8) == "epoch 0 of 8 rows: 1 seen again, 1 never"


def test_rows_may_be_left_out_as_promised() -> None:
    """One of nine may, two of ten may not; a row that there is not may never be seen."""
    assert coverage(TWO, 9, left_out=1) == ""
    assert coverage(TWO, 10, left_out=1) == "epoch 0 of 10 rows: 0 seen again, 2 never"
    assert coverage(with_step(TWO, 0, 0, [5, 9]), 8, left_out=1) != ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"promised": 3}, "3 steps promised on rank 1, 2, 2 taken in its epochs"),
        ({"yielded": 3}, "2 steps promised on rank 1, 3 batches in its dataloader"),
        ({"starts": (0, 1)}, "2 steps promised on rank 1, 1, 3 taken in its epochs"),
        ({"promised": None}, "rank 1 has a dataloader without a length"),
    ],
)
def test_a_length_that_is_not_kept_is_wrong(changed: dict, said: str) -> None:
    """Promised, taken and yielded have to be one number."""
    assert length([TWO[0], replace(TWO[1], **changed)]) == said


def test_a_resumed_run_goes_on_at_each_rank_and_step() -> None:
    """After step 1 there are three left; a row too few or in another place is wrong."""
    after = [replace(record, steps=record.steps[1:]) for record in TWO]
    assert resumed(TWO, 1, after) == ""
    assert resumed(TWO, 1, with_step(after, 1, 1, [5, 3])) == "1 of 3 steps differ: 2"
    assert resumed(TWO, 1, [replace(record, steps=record.steps[1:-1]) for record in TWO]).startswith("2 steps taken")
    assert resumed(TWO, 1, [after[1], after[0]]) == "3 of 3 steps differ: 1, 2, 3"
    assert resumed(TWO, 4, [Record([]), Record([])]) == "no step was left after 4"


def test_resumed_on_another_number_of_processes_the_steps_hold_the_same_rows() -> None:
    """Their order within a step is not compared, their step is."""
    joined = [[5, 0, 6, 3], [1, 7, 2, 4], [4, 7, 3, 5], [0, 6, 2, 1]]
    assert resumed(TWO, 1, [Record(joined[1:])]) == ""
    assert resumed(TWO, 1, [Record([joined[2], joined[1], joined[3]])]) == "2 of 3 steps differ: 1, 2"


def test_datasets_in_one_order_are_wrong() -> None:
    """Rows 0 to 2 and 3 to 5 drawn in step."""
    assert own_orders([Record([[1, 4], [0, 5], [2, 3]])], (3, 3)) == ""
    assert own_orders([Record([[1, 4], [0, 3], [2, 5]])], (3, 3)) == "dataset 1 is drawn in the order of dataset 0"
    assert (
        own_orders([Record([[1], [0]]), Record([[3], [2]])], (2, 2)) == "dataset 1 is drawn in the order of dataset 0"
    )


def test_the_order_follows_data_seed_alone() -> None:
    """Neither seed, nor nothing."""
    other = with_step(ONE, 0, 0, [2, 0])
    assert follows_data_seed([ONE, ONE], other) == ""
    assert follows_data_seed([ONE, other], other) == "the order follows seed, with the same data_seed"
    assert follows_data_seed([ONE, ONE], ONE) == "another data_seed makes no other order"
