"""A run on disk: recipe, folder, metrics, checkpoints."""
