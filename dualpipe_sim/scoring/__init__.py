"""How far predicted steps are from measured ones, run by run, and what that says of any other prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.scoring.accuracy import ErrorBar, error_bar
    from dualpipe_sim.scoring.board import Board, Errors
    from dualpipe_sim.scoring.predict import Prediction
    from dualpipe_sim.scoring.run import score

__all__ = ["Board", "ErrorBar", "Errors", "Prediction", "error_bar", "score"]

_HOME = {
    "Board": "board",
    "ErrorBar": "accuracy",
    "Errors": "board",
    "Prediction": "predict",
    "error_bar": "accuracy",
    "score": "run",
}
"""Where names live that are loaded when first asked for: an error bar needs no search of plans."""

__getattr__, __dir__ = lazy_names(__name__, _HOME)
