"""The rewritten network for other runtimes."""
