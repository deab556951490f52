"""One C99 file for microcontrollers: converter, its texts, and the compiled file as a runtime."""
