"""Several drafters in one program: which one a round uses, and its tree, are data."""

from mtjax.decode.planned.arm import Arm
from mtjax.decode.planned.method import Planned

__all__ = ["Arm", "Planned"]
