"""Several drafters in one program: which one a round uses, and its tree, are data."""

from mtjax.decode.planned.method import Arm, Planned

__all__ = ["Arm", "Planned"]
