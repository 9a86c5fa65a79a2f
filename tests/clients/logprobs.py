"""Log-probabilities from logits."""

import math


def log_softmax(row):
    largest = max(row)
    total = math.log(math.fsum(math.exp(number - largest) for number in row))
    return [number - largest - total for number in row]


def of_tokens(rows, ids):
    """Of each token but the first, given those before it."""
    return [log_softmax(row)[token] for row, token in zip(rows, ids[1:], strict=False)]
