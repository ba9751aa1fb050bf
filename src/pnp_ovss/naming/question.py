"""What a chat model is asked about a photo, in which form it is to answer, and about what that costs."""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from copy import deepcopy
from math import ceil
from pathlib import Path
from typing import Any

from PIL import Image

from pnp_ovss.types import RGB, Vocabulary

_TEXTS = json.loads(Path(__file__).with_name("question.json").read_text(encoding="utf-8"))
QUESTION, OPEN_QUESTION, AS_JSON, AS_LISTS = (
    " ".join(_TEXTS[name]) for name in ("question", "open question", "as JSON", "as lists")
)
"""The two questions, and the two forms of an answer; the last is that of PnP-OVSS's authors."""
PRICES: dict[str, dict[str, float]] = _TEXTS["prices"]
"""Dollars per million tokens in and out; tokens of a photo (base), and of each of its tiles of 512 pixels.

As OpenAI listed them in 2025. Prices change; other models and servers are counted like gpt-4o, without a price.
"""

Sizes = Sequence[tuple[int, int]]
"""Width and height of photos, in pixels."""
LONGEST_SIDE, QUALITY = 1024, 88
"""Of the JPEG that is sent: no side is longer, in pixels."""
MOST_ENUMERATED, ENUMERATED_CHARACTERS = 250, 15_000
"""A longer enumeration of values is refused by OpenAI's servers; without one the names are checked afterwards alone."""
CHARACTERS_PER_TOKEN, SCHEMA_TOKENS, REPLY_TOKENS = 3.5, 60, 80
"""For estimates; the schema's tokens without the names."""
TILE, SHORT_SIDE = 512, 768


def request(photo: RGB, candidates: Vocabulary | None, model: str, as_json: bool) -> dict[str, Any]:
    """Return a chat request: the question and the photo, and where wanted the JSON schema of the answer."""
    text = f"{question(candidates)}\n\n{AS_JSON if as_json else AS_LISTS}"
    url = f"data:image/jpeg;base64,{base64.b64encode(jpeg(photo)).decode('ascii')}"
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    asked = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0}
    return asked | ({"response_format": reply_format(candidates)} if as_json else {})


def question(candidates: Vocabulary | None) -> str:
    """Return the question, with the list of names if there is one. A name cannot leave its line and its quotes."""
    if candidates is None:
        return OPEN_QUESTION
    lines = [f"{number}: {json.dumps(name, ensure_ascii=False)}" for number, name in candidates.numbered().items()]
    return "\n".join([QUESTION, "", *lines])


def digest() -> str:
    """Return the hash of everything that is said beside the photo and the names."""
    said = [QUESTION, OPEN_QUESTION, AS_JSON, AS_LISTS, str(LONGEST_SIDE), str(QUALITY)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def reply_format(candidates: Vocabulary | None) -> dict[str, Any]:
    """Return the JSON schema of the answer, for servers that keep to one."""
    form: dict[str, Any] = deepcopy(_TEXTS["reply format"])
    names = candidates.classes if candidates else ()
    if 0 < len(names) <= MOST_ENUMERATED and sum(map(len, names)) <= ENUMERATED_CHARACTERS:
        found = form["json_schema"]["schema"]["properties"]["found"]
        found["items"]["properties"]["name"]["enum"] = list(names)
    return form


def jpeg(photo: RGB) -> bytes:
    """Return the photo as JPEG of the size that is sent. Only its pixels are in it: no place, no camera, no name."""
    buffer = io.BytesIO()
    picture = Image.fromarray(photo)
    picture = picture.resize(sent_size(*picture.size), Image.Resampling.LANCZOS)
    picture.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def sent_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of the photo as it is sent."""
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def estimate(sizes: Sizes, candidates: Vocabulary | None, model: str) -> tuple[int, int, float | None]:
    """Return about how many tokens go in and out, and what they cost in dollars, where a price is known.

    There is one call for each, if none has to be repeated.
    """
    price = PRICES.get(model, PRICES["gpt-4o"])
    characters = len(question(candidates)) + len(AS_JSON)
    # Again, in the schema.
    characters += sum(len(name) + 4 for name in (candidates.classes if candidates else ()))
    each = ceil(characters / CHARACTERS_PER_TOKEN) + SCHEMA_TOKENS + int(price["base"])
    tokens_in = sum(each + int(price["tile"]) * tiles(*sent_size(*size)) for size in sizes)
    tokens_out = REPLY_TOKENS * len(sizes)
    dollars = (tokens_in * price["dollars_in"] + tokens_out * price["dollars_out"]) / 1e6
    return tokens_in, tokens_out, dollars if model in PRICES else None


def tiles(width: int, height: int) -> int:
    """Return the tiles of a photo in high detail, which the servers scale to a short side of 768 pixels at most."""
    scale = min(1.0, SHORT_SIDE / min(width, height))
    return ceil(width * scale / TILE) * ceil(height * scale / TILE)
