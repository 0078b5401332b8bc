"""Short names of keys: what Python calls and sweeps may write ``ranks`` or ``forward`` for."""

from __future__ import annotations

SHORT = {
    **{key: f"pipeline.{key}" for key in ("ranks", "micro_batches")},
    **{key: f"costs.{key}" for key in ("forward", "backward", "backward_input", "backward_weight", "overlapped")},
    **{key: f"costs.{key}" for key in ("recompute", "vocab_s", "vocab_t", "offload", "transfer")},
    **{key: f"costs.{key}" for key in ("all_reduce", "unshard", "reduce_grad")},
}


def full_key(key: str) -> str:
    """Return the dotted key that a short one stands for; any other stays as it is."""
    return SHORT.get(key, key)
