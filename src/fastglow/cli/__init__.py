"""The command line; each module is one command and imports what is heavy only when run."""
