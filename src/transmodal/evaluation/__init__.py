"""Metrics: pure functions of arrays, named with the protocol that they follow."""
