"""GGUF, the files of llama.cpp: their header, and the tokenizer that their metadata describes."""
