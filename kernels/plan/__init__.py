"""Program -> op table: schedule and fusion, layouts of weights and maps, places in the arena."""
