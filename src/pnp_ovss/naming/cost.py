"""About what a run costs, before it is paid for."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from pnp_ovss.naming import prompts
from pnp_ovss.naming.candidates import Candidates
from pnp_ovss.naming.pictures import sent_size

CHARACTERS_PER_TOKEN = 3.5
SCHEMA_TOKENS = 60
"""Of the reply's schema, without the names."""
REPLY_TOKENS = 80
TILE, SHORT_SIDE = 512, 768


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens, and tokens of a photo: a base, and so many per tile of 512 pixels."""

    tokens_in: float
    tokens_out: float
    base: int
    tile: int


PRICES = {
    "gpt-4o": Price(2.5, 10.0, 85, 170),
    "gpt-4.1": Price(2.0, 8.0, 85, 170),
    "gpt-4o-mini": Price(0.15, 0.6, 2833, 5667),
}
"""As OpenAI listed them in 2025. Prices change; other models and servers are counted like gpt-4o, without a price."""


@dataclass(frozen=True)
class Estimate:
    """Calls still to be made, and about how many tokens and dollars they take; None where no price is known."""

    calls: int
    tokens_in: int
    tokens_out: int
    dollars: float | None


def estimate(sizes: Iterable[tuple[int, int]], candidates: Candidates | None, model: str) -> Estimate:
    """Return what asking about photos of these (width, height) takes, one call each, if none has to be repeated."""
    price = PRICES.get(model)
    words = len(prompts.question(candidates)) + len(prompts.AS_JSON)
    if candidates:
        words += sum(len(name) + 4 for name in candidates.names)  # again, in the schema
    text = ceil(words / CHARACTERS_PER_TOKEN) + SCHEMA_TOKENS
    photos = [photo_tokens(*sent_size(*size), price or PRICES["gpt-4o"]) for size in sizes]
    tokens_in, tokens_out = sum(photos) + text * len(photos), REPLY_TOKENS * len(photos)
    dollars = None if price is None else (tokens_in * price.tokens_in + tokens_out * price.tokens_out) / 1e6
    return Estimate(len(photos), tokens_in, tokens_out, dollars)


def photo_tokens(width: int, height: int, price: Price) -> int:
    """Return the tokens of a photo in high detail, which the servers scale to a short side of 768 pixels at most."""
    scale = min(1.0, SHORT_SIDE / min(width, height))
    return price.base + price.tile * ceil(width * scale / TILE) * ceil(height * scale / TILE)
