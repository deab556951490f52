"""Standard networks with random weights, made without torch."""
