"""Reading other people's networks: a file becomes a small graph, the graph a Program."""
