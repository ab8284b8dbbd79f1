"""The random models of the verifiers' proofs, for trees that are sampled."""

from tests.verify.conftest import models  # noqa: F401
