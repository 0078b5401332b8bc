"""Traces and timelines as they lie on disk: plain or gzipped, JSON or CSV."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from dualpipe_sim.errors import UserError

_GZIP = b"\x1f\x8b"


def read_maybe_gzipped(path: str | Path) -> str:
    """Return the text of a file, unpacked where it is gzipped, whatever it is called.

    Raises:
        UserError: it cannot be read, is cut off, or is no UTF-8 text.

    """
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if data.startswith(_GZIP) else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be unpacked, perhaps it is cut off: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def is_json(text: str) -> bool:
    """Return whether a text begins as a JSON object or array does."""
    return text.lstrip()[:1] in ("{", "[")


def parse_json(text: str, source: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return what a JSON text holds.

    Raises:
        UserError: it is no JSON.

    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{source}: is no JSON ({place}: {error.msg}); perhaps it is cut off") from error
    except RecursionError as error:
        raise UserError(f"{source}: is nested too deeply for a trace") from error
