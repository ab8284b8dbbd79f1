"""Text: sources, tokenizers, packed rows."""
