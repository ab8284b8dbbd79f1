"""What an any-subset model is measured on: sets with blanks, their judges, a run over a set."""
