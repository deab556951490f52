"""Everything that a person runs: training, lowering, checks, benchmarks, pages, commands."""
