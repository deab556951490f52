"""Program -> file for other runtimes, those runtimes behind one interface, proof of equality."""
