"""``python -m frostbit``: the command, e.g. ``torchrun --nproc-per-node 2 -m frostbit train``."""

from frostbit.pipeline.cli.main import main

if __name__ == "__main__":
    main(prog_name="pipeline")
