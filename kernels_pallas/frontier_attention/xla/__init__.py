"""The XLA back-end: blocks of ordinary operations, for every platform."""
