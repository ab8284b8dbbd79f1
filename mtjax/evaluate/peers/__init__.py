"""Systems that generate text, each opened in a process of its own by `worker`.

A system is a function `open_system(folder, threads, variant) -> Run`, where folder holds the
model in the transformers format. Adding one: a file here and a line in SYSTEMS.
"""

from collections.abc import Callable, Sequence

# Greedy: prompts of equal length, number of new tokens -> new tokens of each row.
Run = Callable[[Sequence[Sequence[int]], int], list[list[int]]]

# Name in tables -> (module here, variant, packages it needs).
SYSTEMS = {
  "transformers eager": ("transformers_ar", "eager", ("torch", "transformers")),
  "transformers eager bf16": ("transformers_ar", "bf16", ("torch", "transformers")),
  "transformers static cache": ("transformers_ar", "static", ("torch", "transformers")),
  "transformers compiled": ("transformers_ar", "compiled", ("torch", "transformers")),
  "ctranslate2 float32": ("ctranslate2_ar", "float32", ("ctranslate2",)),
  "ctranslate2 int8": ("ctranslate2_ar", "int8", ("ctranslate2",)),
  "llama.cpp f32": ("llama_cpp_ar", "f32", ("llama_cpp", "gguf")),
  "llama.cpp bf16": ("llama_cpp_ar", "bf16", ("llama_cpp", "gguf")),
  "llama.cpp q8_0": ("llama_cpp_ar", "q8_0", ("llama_cpp", "gguf")),
  "mtjax xla float32": ("mtjax_ar", "xla", ()),
  "mtjax": ("mtjax_ar", "stored", ()),
  "mtjax float32": ("mtjax_ar", "float32", ()),
  "mtjax int8": ("mtjax_ar", "int8", ()),
}
