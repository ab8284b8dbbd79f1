"""Scores texts: python -m experiments.evaluate --model=target --text=books=file:valid/*.txt.gz

The launcher is mtjax/cli/evaluate.py; where the package is installed, `mtjax-evaluate` runs it.
"""

from mtjax.cli.evaluate import entry

if __name__ == "__main__":
  entry()
