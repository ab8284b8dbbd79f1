"""The config of a network that is no transformer."""

from mtjax.models import TransformerConfig, uniform_layers


def sizes(vocab, length):
  """Returns a config with one query token; fields that only a transformer uses do not matter."""
  inner = dict(dim=1, heads=1, kv_heads=1, head_dim=2, mlp_dim=1, layers=uniform_layers(1))
  asks = dict(predicts="any_subset", extra_names=("query",), max_position=length)
  return TransformerConfig(vocab_size=vocab, extra_embeddings=1, **asks, **inner)
