"""A row of the benchmark, how many pairs it holds for each side, and how many floating-point operations a step takes."""

from dataclasses import dataclass

ROWS = [(128, 128, 1), (512, 128, 1), (512, 128, 3), (1024, 64, 3)]
QUICK = (32, 16, 3)


@dataclass(frozen=True)
class Row:
    """One prompt, one chosen answer and `negatives` rejected ones; lengths in tokens."""

    prompt: int
    answer: int
    negatives: int

    @property
    def pairs(self) -> int:
        """For a side with one rejected answer a pair, a row with three negatives is three pairs."""
        return self.negatives

    def __str__(self) -> str:
        return f"{self.prompt}x{self.answer}x{self.negatives}"

    @staticmethod
    def parse(text: str) -> "Row":
        try:
            prompt, answer, negatives = (int(part) for part in text.split("x"))
        except ValueError:
            raise ValueError(f"{text!r} is no row; expected prompt x answer x negatives, such as 512x128x3") from None
        if min(prompt, answer, negatives) < 1:
            raise ValueError(f"{text!r}: expected at least 1 for prompt, answer and negatives")
        return Row(prompt, answer, negatives)


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like model that decide its work."""

    layers: int
    hidden: int
    queries: int  # heads x head size
    keys: int  # key-value heads x head size
    feed_forward: int
    vocabulary: int
    rank: int

    @staticmethod
    def of(config: dict, rank: int) -> "Shape":
        heads = config["num_attention_heads"]
        head = config.get("head_dim") or config["hidden_size"] // heads
        return Shape(
            config["num_hidden_layers"],
            config["hidden_size"],
            heads * head,
            config.get("num_key_value_heads", heads) * head,
            config["intermediate_size"],
            config["vocab_size"],
            rank,
        )


@dataclass(frozen=True)
class Pass:
    """One forward pass over a batch: its tokens, the keys that all of them attend to, and the tokens that get logits."""

    tokens: int
    attended: int
    scored: int


def full_rows(row: Row, answers: int, scored: int) -> Pass:
    """`answers` causal rows of prompt and answer; the last token of a row predicts nothing."""
    length = row.prompt + row.answer - 1
    return Pass(answers * length, answers * length * (length + 1) // 2, answers * scored)


def shared_prompt(row: Row) -> Pass:
    """The prompt once, without its last token; that token begins each answer's row. Logits for answer tokens alone."""
    answers, before = 1 + row.negatives, row.prompt - 1
    attended = before * (before + 1) // 2 + answers * (before * row.answer + row.answer * (row.answer + 1) // 2)
    return Pass(before + answers * row.answer, attended, answers * row.answer)


def forward(shape: Shape, work: Pass) -> tuple[float, float, float, float]:
    """FLOPs of a forward pass: products of the frozen layers, of the adapters, of attention, of the output layer.

    A product of (m, k) and (k, n) counts 2 m k n. Attention counts the keys that a token sees under causality.
    """
    square = 2 * shape.hidden * shape.queries + 2 * shape.hidden * shape.keys
    ends = 4 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 3 * (shape.hidden + shape.feed_forward)
    linear = 2.0 * shape.layers * work.tokens * (square + 3 * shape.hidden * shape.feed_forward)
    adapter = 2.0 * shape.layers * work.tokens * shape.rank * ends
    attention = 4.0 * shape.layers * work.attended * shape.queries
    return linear, adapter, attention, 2.0 * work.scored * shape.hidden * shape.vocabulary


def step_flops(shape: Shape, row: Row, way: str) -> float:
    """FLOPs of one optimizer step over the row, by the way of a side.

    The backward pass of frozen weights costs one forward pass (gradients of inputs alone), that of adapters and attention two.
    "shared": the prompt once, no reference. "plain": full rows, logits everywhere, a reference forward pass. "pairs": as plain,
    and each pair runs the chosen answer again. "pairs, recomputed": the backward pass computes layers and logits again.
    "pairs, logits recomputed": it computes logits again.
    """
    if way == "shared":
        linear, adapter, attention, head = forward(shape, shared_prompt(row))
        return 2 * linear + 3 * adapter + 3 * attention + 2 * head
    everywhere = row.prompt + row.answer - 1
    rows = 1 + row.negatives if way == "plain" else 2 * row.pairs
    linear, adapter, attention, head = forward(shape, full_rows(row, rows, everywhere))
    reference = linear + attention + head
    total = 2 * linear + 3 * adapter + 3 * attention + 2 * head + reference
    if way == "pairs, recomputed":
        total += linear + adapter + attention
    if way in ("pairs, recomputed", "pairs, logits recomputed"):
        total += head
    return total
