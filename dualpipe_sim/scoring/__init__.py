"""How far predicted steps are from measured ones, run by run."""

from __future__ import annotations

from dualpipe_sim.scoring.board import Board, Errors
from dualpipe_sim.scoring.predict import Prediction
from dualpipe_sim.scoring.run import score

__all__ = ["Board", "Errors", "Prediction", "score"]
