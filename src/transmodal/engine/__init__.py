"""The engine: the training loop, checkpoints and prediction."""
