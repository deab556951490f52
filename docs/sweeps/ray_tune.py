"""A sweep with Ray Tune: every trial is one ``pipeline train`` in a folder of its own.

    pip install 'frostbit[train]' 'ray[tune]'
    python docs/sweeps/ray_tune.py --recipe digits --trials 8 --out runs/sweep

On a cluster, start it on the head node of ``ray up`` and put ``--out`` on shared storage. A trial
whose machine dies is started again by Ray and goes on from its last checkpoint (``--resume``).
The best trial by *validation* accuracy is named at the end; the test split is not looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no usage statistics

import ray
from ray import tune


def trial(config: dict[str, Any]) -> None:
    """Train with the settings in ``config``; report the validation accuracy."""
    folder = Path(config["out"]) / tune.get_context().get_trial_id()
    settings = [f"lr_binary={config['lr_binary']}", f"refresh={config['refresh']}"]
    words = ["--recipe", config["recipe"], "--epochs", str(config["epochs"]), "--seed", "0"]
    words += [word for text in settings for word in ("--set", text)]
    command = [
        sys.executable,
        "-m",
        "frostbit",
        "train",
        *words,
        "--resume",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    facts = json.loads((folder / "run.json").read_text("utf-8"))
    tune.report({"validation": facts["accuracy"]["validation"], "folder": str(folder)})


def sweep(recipe: str, epochs: int, trials: int, cpus: int, out: Path) -> dict[str, Any]:
    """Run ``trials`` trials, ``cpus`` cores each; returns the best one's report and config."""
    space = {
        "lr_binary": tune.loguniform(3e-3, 1e-1),
        "refresh": tune.choice([0.0, 0.01, 0.1]),
        "recipe": recipe,
        "epochs": epochs,
        "out": str(out.resolve()),
    }
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": cpus}),
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=trials,
            metric="validation",
            mode="max",
            search_alg=tune.search.BasicVariantGenerator(random_state=0),
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(out.resolve()),
            failure_config=tune.FailureConfig(max_failures=3),
            verbose=1,
        ),
    )
    results = tuner.fit()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} trials failed: {results.errors[0]}")
    best = results.get_best_result()
    return {"config": best.config, **(best.metrics or {})}


def main() -> None:
    """Parse the command line and sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--cpus", type=int, default=1, help="cores of one trial")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    chosen = parser.parse_args()
    # the worker processes get this program's environment, so `pipeline` is found as it is here
    ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, logging_level="error")
    best = sweep(chosen.recipe, chosen.epochs, chosen.trials, chosen.cpus, chosen.out)
    print(f"best: {best['validation']:.2f} % in {best['folder']}")


if __name__ == "__main__":
    main()
