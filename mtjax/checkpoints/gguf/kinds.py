"""The types of tensors in a GGUF file, and how many bytes their blocks have (ggml.h, ggml.c)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TensorKind:
  """A type of tensors: `numbers` of a row are stored together in `size` bytes."""

  name: str
  numbers: int
  size: int


FLOATS = ("F32", "F16", "BF16")

# ggml's number -> the kinds that can be read.
KINDS = {
  number: TensorKind(name, numbers, size)
  for number, name, numbers, size in (
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (30, "BF16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
  )
}

# The others, so that an error can name them.
_OTHERS = {
  9: "Q8_1",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
  40: "NVFP4",
}


def kind_of(number: int, where: str) -> TensorKind:
  """Returns the kind of that number. Raises ValueError that begins with `where` for another one."""
  if number not in KINDS:
    name = _OTHERS.get(number, f"of an unknown type (number {number})")
    known = ", ".join(kind.name for kind in KINDS.values())
    raise ValueError(f"{where} is {name}, which cannot be read; known: {known}")
  return KINDS[number]
