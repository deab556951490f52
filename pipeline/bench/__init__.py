"""Latency beside peers: timing, conditions, profile, bench.json, baseline."""
