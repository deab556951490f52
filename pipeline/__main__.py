"""``python -m pipeline``: the command, e.g. ``torchrun --nproc-per-node 2 -m pipeline train``."""

from pipeline.cli import main

if __name__ == "__main__":
    main(prog_name="pipeline")
