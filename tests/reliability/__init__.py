"""Behaviour under fault, measured: kills, fuzzing, concurrency, a long run.

``python -m tests.reliability`` runs everything at full length and writes ``docs/reliability.md``;
the tests run short versions.
"""
