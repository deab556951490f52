"""What compiles for which CPU: the JIT decorators with their cache, and CPU features."""
