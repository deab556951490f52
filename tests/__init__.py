"""Tests, in the rooms of the packages; ``figures`` makes the records of ``pipeline/records``."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

RECORDS = ROOT / "pipeline" / "records"
