"""Batches without duplicates or false negatives, planned for the whole epoch in advance."""

from sentence_transformers.planned.sampler import PlannedNoDuplicatesBatchSampler

__all__ = ["PlannedNoDuplicatesBatchSampler"]
