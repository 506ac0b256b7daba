"""Benchmarks: ``python -m benchmarks.cpu --help``; experiments are logged in ``LOG.md``."""
