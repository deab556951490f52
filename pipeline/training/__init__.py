"""The training loop and what keeps it: batches, optimizers, resuming, several processes."""
