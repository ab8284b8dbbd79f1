"""The parts that generation loops share: prompts, state, stop strings, sizes, the loop."""

from mtjax.rounds.run import Program
from mtjax.rounds.state import DecodeState, Finish, Request, emit

__all__ = ["DecodeState", "Finish", "Program", "Request", "emit"]
