"""The command line: thin commands, shared options, exit codes, progress. Heavy imports in functions."""
