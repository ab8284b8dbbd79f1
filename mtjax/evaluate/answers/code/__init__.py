"""Answers that are programs: the model writes them, and their tests are run in a sandbox."""
