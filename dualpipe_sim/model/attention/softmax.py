"""Softmax attention: of many heads, of groups of them, from latents, in windows, over chosen keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES
from dualpipe_sim.base.records import need_positive
from dualpipe_sim.errors import UserError
from dualpipe_sim.model.attention.registry import Core, CoreShape, Exchanged, register
from dualpipe_sim.model.linear import Linear, share
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe

_READS = "attention norm's output"


@dataclass(frozen=True)
class Indexer:
    """The lightning indexer of DeepSeek sparse attention (DSA, DeepSeek-V3.2, https://arxiv.org/abs/2512.02556).

    Attributes:
        heads: its heads, each with its query; all share one key.
        head: dimensions of a query or key.
        top_k: keys that a query of the attention then sees.

    """

    heads: int
    head: int
    top_k: int

    def __post_init__(self) -> None:
        need_positive(self, "model.attention.indexer")


@register("softmax")
@dataclass(frozen=True)
class SoftmaxAttention:
    """Attention of many heads, each with its own keys and values, sharing them in groups, or taking them from a latent.

    Multi-head attention (https://arxiv.org/abs/1706.03762), grouped-query attention (GQA,
    https://arxiv.org/abs/2305.13245; multi-query with one group), or multi-head latent attention (MLA, DeepSeek-V2,
    https://arxiv.org/abs/2405.04434); of all keys before a query, or of some.

    >>> SoftmaxAttention(heads=64, kv_heads=8, qk_head=128, v_head=128).key_value_outputs
    2048

    Attributes:
        heads: attention heads, each with its query.
        qk_head: dimensions of a query or key without its rotary part.
        v_head: dimensions of a value.
        kv_heads: heads of keys and values, which equal groups of queries share (GQA); 0 for as many as ``heads``.
        rope_head: further dimensions that carry the rotary embedding; MLA keeps one such key for all heads.
        q_lora: rank of the queries' latent; 0 for none.
        kv_lora: rank of the latent of keys and values; 0 for plain multi-head attention.
        stored_scores: True where the softmax's output is kept for the backward pass, as before FlashAttention.
        window: tokens that a query sees at most, itself counted (sliding window); 0 for all.
        chunk: tokens of a chunk, outside of which a query sees none (Llama 4); 0 for all.
        indexer: what chooses the keys that a query sees (DSA); None where it sees all.
        qk_norm: norms of queries and keys: none, of each ``head`` with one gain for all, or over ``all`` heads.
        bias: which maps add a vector: ``none``, those of queries, keys and values (``qkv``), or ``all``.
        gated: whether the output is multiplied with a gate for each of its elements (Qwen3-Next).
        sinks: whether each head has a learned score of nothing at all (gpt-oss).

    """

    heads: int
    qk_head: int
    v_head: int
    kv_heads: int = 0
    rope_head: int = 0
    q_lora: int = 0
    kv_lora: int = 0
    stored_scores: bool = False
    window: int = 0
    chunk: int = 0
    indexer: Indexer | None = None
    qk_norm: Literal["none", "head", "all"] = "none"
    bias: Literal["none", "qkv", "all"] = "none"
    gated: bool = False
    sinks: bool = False

    def __post_init__(self) -> None:
        need_positive(self, "model.attention", zero=("kv_heads", "rope_head", "q_lora", "kv_lora", "window", "chunk"))
        if self.kv_heads and self.kv_lora:
            raise UserError(
                "model.attention.kv_heads: with kv_lora (MLA) every head has its own keys and values; leave one out"
            )
        if self.heads % (self.kv_heads or 1):
            raise UserError(
                f"model.attention.kv_heads: {self.kv_heads} do not share {self.heads} heads out evenly; take a divisor"
            )
        if self.kv_lora and self.qk_norm != "none":
            raise UserError("model.attention.qk_norm: with kv_lora (MLA) the latents have norms, not queries and keys")
        if (self.window > 0) + (self.chunk > 0) + (self.indexer is not None) > 1:
            raise UserError("model.attention: window, chunk and indexer each say which keys a query sees; take one")

    @property
    def qk_dims(self) -> int:
        """Dimensions of a query or key in the dot product."""
        return self.qk_head + self.rope_head

    @property
    def query_outputs(self) -> int:
        """Elements of all heads' queries of a token."""
        return self.heads * self.qk_dims

    @property
    def key_value_outputs(self) -> int:
        """Elements of a token's keys and values together, as attention's core reads them."""
        return self._kv_heads * (self.qk_dims + self.v_head)

    @property
    def _kv_heads(self) -> int:
        return self.kv_heads or self.heads

    def over(self, gpus: int) -> SoftmaxAttention:
        """Return the share of one GPU of a tensor-parallel group; fewer key-value heads than GPUs are there in copies.

        Raises:
            UserError: the heads cannot be shared out evenly.

        """
        heads = share("model.attention.heads", self.heads, gpus)
        if not self.kv_heads or gpus % self.kv_heads == 0:
            return replace(self, heads=heads, kv_heads=min(self.kv_heads, 1))
        return replace(self, heads=heads, kv_heads=share("model.attention.kv_heads", self.kv_heads, gpus))

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Return its linear maps; MLA's down-projections run as one matrix (DeepSeek-V3 report, section 2.1.1)."""
        all_biased = self.bias == "all"
        qkv_biased = all_biased or self.bias == "qkv"
        gates = self.heads * self.v_head if self.gated else 0
        out = Linear(
            "attention output", "attention", self.heads * self.v_head, hidden, "attention's output", cut="rows",
            bias=all_biased,
        )  # fmt: skip
        if not self.kv_lora:
            outputs = self.query_outputs + gates + self.key_value_outputs
            qkv = Linear("queries, keys, values", "attention", hidden, outputs, _READS, cut="columns", bias=qkv_biased)
            return qkv, *self._indexer_linears(hidden), out
        latents = self.q_lora + self.kv_lora + self.rope_head
        down = Linear("latents", "attention", hidden, latents, _READS, bias=qkv_biased)
        query_from, query_reads = (self.q_lora, "query latent") if self.q_lora else (hidden, _READS)
        query = Linear(
            "queries", "attention", query_from, self.query_outputs + gates, query_reads, cut="columns",
            from_latent=self.q_lora > 0,
        )  # fmt: skip
        key_value = Linear(
            "keys and values", "attention", self.kv_lora, self.heads * (self.qk_head + self.v_head),
            "key-value latent", cut="columns", from_latent=True,
        )  # fmt: skip
        return down, query, key_value, *self._indexer_linears(hidden), out

    def _indexer_linears(self, hidden: int) -> tuple[Linear, ...]:
        """DSA's indexer, whole on every GPU (assumed): queries from their latent, one key, a weight for each head."""
        if self.indexer is None:
            return ()
        query_from, query_reads = (self.q_lora, "query latent") if self.q_lora else (hidden, _READS)
        return (
            Linear("indexer queries", "attention", query_from, self.indexer.heads * self.indexer.head, query_reads),
            Linear("indexer key", "attention", hidden, self.indexer.head, _READS),
            Linear("indexer weights", "attention", hidden, self.indexer.heads, _READS),
        )

    @property
    def norm_parameters(self) -> int:
        """Gains of MLA's latents or of queries and keys; the indexer's key has a LayerNorm, with a bias."""
        latents = self.q_lora + self.kv_lora
        index = 0 if self.indexer is None else 2 * self.indexer.head
        if self.qk_norm == "head":
            return 2 * self.qk_dims + index
        if self.qk_norm == "all":
            return (self.heads + self._kv_heads) * self.qk_dims + index
        return latents + index

    @property
    def other_parameters(self) -> int:
        """The sinks, a score a head."""
        return self.heads if self.sinks else 0

    def keys_seen(self, sequence_length: int, *, causal: bool = True) -> float:
        """Return how many keys a query sees, on average over a sequence.

        Causal queries see all before them; in a window of w tokens the first w - 1 see fewer than the others. What is
        not counted as causal, as in many papers' FLOPs, sees as many as it can.

        >>> SoftmaxAttention(heads=1, qk_head=1, v_head=1, window=100).keys_seen(100), 100 / 2
        (50.0, 50.0)
        """
        length = min(self.chunk, sequence_length) if self.chunk else sequence_length
        most = min(self.window or (self.indexer.top_k if self.indexer else length), length)
        return most - most * most / (2 * length) if causal else most

    def core(self, sequence_length: int, *, causal: bool = True) -> Core:
        """Return the FLOPs of the two products.

        With q, k and v of d_qk and d_v dimensions the forward does products of d_qk and d_v. The backward needs the
        gradients of q, k (d_qk each), of v and of the weights (d_v each); FlashAttention
        (https://arxiv.org/abs/2205.14135) also redoes q k. So 2.6 for MLA's 192 and 128, 2 with stored scores.
        The indexer scores all keys before a query, and its backward counts twice.
        """
        qk, v = self.qk_dims, self.v_head
        each = 2.0 * self.keys_seen(sequence_length, causal=causal) * self.heads
        redone = 0 if self.stored_scores else qk
        products = Core(each * (qk + v), each * (2 * qk + 2 * v + redone))
        if self.indexer is None:
            return products
        scores = 2.0 * sequence_length * (0.5 if causal else 1.0) * self.indexer.heads * self.indexer.head
        return products + Core(scores, 2 * scores)

    def core_shape(self, sequence_length: int, *, causal: bool = True) -> CoreShape:
        """Return the shape of the core; one that sees fewer keys is as fast as of a shorter sequence (assumed)."""
        length = self.keys_seen(sequence_length, causal=causal) * (2 if causal else 1)
        return CoreShape((self.qk_dims + self.v_head) / 2, self.heads, length, self.stored_scores)

    @property
    def rotary(self) -> int:
        """Elements of queries and keys; with MLA of their rotary parts, which all heads' keys share."""
        if self.kv_lora:
            return (self.heads + 1) * self.rope_head
        return self.query_outputs + self._kv_heads * self.qk_dims

    @property
    def normed(self) -> int:
        """Elements of queries and keys that have norms, or of MLA's latents."""
        if self.kv_lora:
            return self.q_lora + self.kv_lora
        return 0 if self.qk_norm == "none" else (self.heads + self._kv_heads) * self.qk_dims

    @property
    def exchanged(self) -> Exchanged:
        """Elements of a token's queries, keys and values, and output."""
        return Exchanged(self.query_outputs, self.key_value_outputs, self.heads * self.v_head)

    def inner_gradients(self, batch: MicroBatch) -> float:
        """Return the elements of the gradients of scores and weights, where those are kept."""
        return 2.0 * batch.tokens * batch.sequence_length * self.heads if self.stored_scores else 0.0

    def rotated(self, recipe: Recipe) -> int:
        """Return the elements of queries and keys before they are rotated, with MLA of keys without a rotary part."""
        if self.kv_lora:
            return 0 if recipe.recompute.up_projections else self.heads * self.qk_head
        return self.query_outputs + self._kv_heads * self.qk_dims

    def activations(self, recipe: Recipe, batch: MicroBatch, *, dropout: bool) -> dict[str, float]:
        """Return latents, queries, keys and values, the output, and scores or the softmax's statistics."""
        own, tokens = batch.own_tokens, batch.tokens
        latent = self.q_lora + self.kv_lora
        items = {"latents": own * (latent + self.rope_head) * BF16_BYTES if self.kv_lora else 0.0}
        if not recipe.recompute.norms:
            items["latent norm outputs"] = own * latent * recipe.activation_bytes
        redone = recipe.recompute.up_projections
        if not (redone and self.q_lora):
            items["queries"] = tokens * self.query_outputs * recipe.attention_input_bytes
        if not (redone and self.kv_lora):
            items["keys and values"] = tokens * self.key_value_outputs * recipe.attention_input_bytes
        items |= self._norm_and_gate_items(recipe, tokens)
        items["attention's output"] = tokens * self.heads * self.v_head * recipe.attention_output_bytes
        if recipe.recompute.core:
            return items
        if self.stored_scores:
            # Softmax's output; with dropout also its mask and the output after it.
            each = BF16_BYTES + (1 + BF16_BYTES if dropout else 0)
            items["scores"] = tokens * batch.sequence_length * self.heads * each
        else:
            items["softmax statistics"] = tokens * self.heads * FP32_BYTES
        return items

    def _norm_and_gate_items(self, recipe: Recipe, tokens: int) -> dict[str, float]:
        """What norms of queries and keys read, the gate with the output before it, and the indexer's choice."""
        items: dict[str, float] = {}
        if self.qk_norm != "none" and not recipe.recompute.norms and not recipe.stack.joint_projection:
            normed = (self.heads + self._kv_heads) * self.qk_dims
            items["inputs of query and key norms"] = tokens * normed * BF16_BYTES
        if self.gated:
            items["gate and output before it"] = 2 * tokens * self.heads * self.v_head * BF16_BYTES
        if self.indexer is not None:
            elements = (self.indexer.heads + 1) * self.indexer.head
            items["indexer"] = tokens * (elements * BF16_BYTES + self.indexer.top_k * FP32_BYTES)
        return items
