"""Continues prompts: python -m experiments.decode --config=configs/decode/ar.py --prompt="..."

The launcher is mtjax/cli/decode.py; where the package is installed, `mtjax-decode` runs it.
"""

from mtjax.cli.decode import entry

if __name__ == "__main__":
  entry()
