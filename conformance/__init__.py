"""The order of batches, as a stack of sentence-transformers, transformers and accelerate keeps it: runs and ranks."""
