"""Lookahead's trie (2312.12728) on the bundled target: drafts are what followed before.

python -m experiments.decode --config=configs/decode/trie.py --prompt="def add(a, b):"
python -m experiments.decode --config=configs/decode/trie.py --config.drafter.store=trie.npz ...

Prompt and output of a request, and the outputs of all before it: the second command begins with
those in trie.npz, if it is there, and adds its own. Runs at the same time may share that file:
each adds its own to what the others saved, and nothing is lost. The text is the one that
configs/decode/ar.py gives with the same seed.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # Fields of mtjax.draft.Trie (size, depth), of mtjax.draft.TrieSettings, and the store's file.
  # retrieval: "hier", or "par" and "one", the paper's other two, to compare with.
  # tree_nodes: n-grams kept per first token, about. max_total: n-grams kept in all when a request
  # ends, 300 to 400 bytes each. store: a file, which several runs may share; "": a store that ends
  # with the process.
  return decode_config("trie")
