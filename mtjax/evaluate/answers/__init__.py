"""Tasks whose answers a model writes, with any method of decoding, and how answers are scored."""
