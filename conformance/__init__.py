"""Does a stack of sentence-transformers, transformers and accelerate keep the order of batches that it promises?

``python -m conformance`` trains a small real model in each launch mode, whole and resumed, and prints a matrix of
scenarios by promises for what is installed, released or patched. README.md beside this file says how to run and how to
read it. Where things are:

- ``runs`` and ``launch``: real trainers, and real processes to run them in, forked from one that has done ``preload``;
  ``trainers`` has the more demanding ones.
- ``observe``: what each process of a run saw. ``properties``: what is promised of it, as pure functions.
- ``scenarios``: the rows of the matrix. ``matrix``: their runs, judged. ``cells``, ``stack``, ``results``: as data.
- ``terminal`` and ``__main__``: the command.
"""
