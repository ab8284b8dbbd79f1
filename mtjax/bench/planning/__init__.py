"""Whether plans are right: against simulated decoding, and against what was measured."""
