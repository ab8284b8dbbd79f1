"""Speculates on the bundled target while it pays; never much slower than plain decoding.

python -m experiments.decode --config=configs/decode/auto.py --prompt="def add(a, b):"
python -m experiments.decode --config=configs/decode/auto.py:trie --config.drafter.size=6 ...

python -m experiments.decode --config=configs/decode/auto.py:lookup,suffix,draft ...

A round verifies as many drafts as pay by what rounds cost on this machine, which is measured first,
and by how probable the drafts are. It is one of plain decoding if nothing is drafted, or after
rounds of refused drafts. The text is the same as that of configs/decode/ar.py with the same seed.
Drafts are those of prompt lookup, or of the drafter that is named after the file. Several drafters
compete: what pays on this machine is measured once, stored, and followed while the program runs
(docs/guides/plan.md).
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config(of: str = "lookup") -> ConfigDict:
  return decode_config("auto", of=of)
