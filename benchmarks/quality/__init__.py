"""Does the order of rows matter? Retrieval by models that were trained on the orders of the release and of the fork.

The design was written down before the first measured run; every arm that was run is reported.

Task: MiniLM learns which English name a name in another language stands for. For each seed 96 English names of
`babel`'s languages, territories and currencies are drawn, each with 4 translations to train on (384 rows of anchor,
the translation, and positive, the English name) and 6 that are held out. A held-out translation looks for its English
name among 384: the 96 and 288 others. Accuracy@1 and mean reciprocal rank (MRR) over all 384.

Training: two processes (gloo, one thread each), 16 rows each, 3 epochs of 12 steps, MultipleNegativesRankingLoss,
AdamW, rate 1e-4 with 10 % warm-up and linear decay. Names have at most 10 tokens, and the word embeddings stay as they
are, which halves what a step sends and updates: so that 81 runs fit into an hour. The sizes were set by trials, with
seeds that are not measured, of how long a run takes and of how far the model, untrained and trained, is from 0 and 1.

Arms, each with the seeds 0 to 7; an arm and its partner share data, first weights and the seed of dropout:

(a) `dispatch_batches` with tensors of one shape, sampler `no_duplicates`: the release, which draws the order of epoch
    0 in each epoch, and the fork, which draws a new one.
(b) `no_duplicates`, preempted (checkpoint, orderly end) after 6 steps of each epoch and resumed by a new trainer: the
    release, which goes on in the order of epoch 0, and the fork. Rows seen twice or never in an epoch are counted. The
    fork without a preemption, seed 0 only, tells whether its resumed run is the whole one.
(c) The loss gathers across devices; on the fork: `no_duplicates`, which keeps a text from being twice in a batch, but
    not on both devices in one step, and planned batches, across devices.
(d) Two mined hard negatives in each row (of the 96 names the nearest wrong ones, by the untrained model); on the fork:
    `batch_sampler`, `no_duplicates`, and planned batches with the rule that rows may share a mined negative. Since
    6.2.0, `no_duplicates` draws rows a second time until it has made as many steps as it promised. So equal epochs are
    equal steps; what differs is how many rows an epoch leaves out, which is counted. Planned batches may leave out
    5 %: the one change after the first measured run. The sampler refused the data of seed 6, of which 1.8 % find no
    place; to the plans of the seeds before, which leave out less than 1 %, the limit makes no difference.

Compared are means of the differences by seed, with 95 % intervals of Student's t, and no correction for there being
several comparisons. The smallest difference that would be seen with a probability of 80 % follows from the spread of
the differences.
"""
