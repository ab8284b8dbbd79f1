"""Fills blanks: python -m experiments.infill --text="The cat ___ on the mat." --length=4

The launcher is mtjax/cli/infill.py; where the package is installed, `mtjax-infill` runs it.
"""

from mtjax.cli.infill import entry

if __name__ == "__main__":
  entry()
