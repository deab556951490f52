"""Every runtime of a model compared: the list of runtimes, verify, exports checked."""
