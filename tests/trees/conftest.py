"""The random models of the verifiers' proofs, for trees that are sampled, and their programs."""

from tests.verify.conftest import _quick_enumerations, models  # noqa: F401
