"""Text: sources, tokenizers, and packed rows that a killed run can continue to read."""

from mtjax.data.pipeline import EvalRows, TrainBatches, eval_documents, eval_rows
from mtjax.data.sources.read import documents
from mtjax.data.sources.source import Source
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer, Tokenizer, load_tokenizer

__all__ = [
  "BpeTokenizer",
  "ByteTokenizer",
  "EvalRows",
  "Source",
  "Tokenizer",
  "TrainBatches",
  "documents",
  "eval_documents",
  "eval_rows",
  "load_tokenizer",
]
