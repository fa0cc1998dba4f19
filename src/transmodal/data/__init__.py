"""Datasets: what is in them, how it is stored, split, sampled and augmented."""
