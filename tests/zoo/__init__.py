"""Other people's networks, made by their own tools: read, compared, timed (``make test-zoo``)."""
