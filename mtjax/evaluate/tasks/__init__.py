"""Tasks for any-subset models: sets of texts with blanks, their judges, and a run over a set."""
