"""Step 2: class names become the text the VLM reads."""

from pnp_ovss.types import Classes, Prompt, Vocabulary

PREFIX = "A picture of "


def make_prompt(classes: Classes) -> Prompt:
    """Return the prompt ``"A picture of c1 c2 ... cK"`` with the character span of each name.

    Of a mapping from class to words, every word has its place. White space within a name is folded to single spaces.
    Source: PnP-OVSS, the authors' released code; there a name of several words had to be written as one.

    Raises: InputError if there is no name, an empty one, one used twice (case is ignored), or no list of texts.

    >>> make_prompt(["dog", "traffic light"])
    Prompt(text='A picture of dog traffic light', classes=('dog', 'traffic light'), spans=((13, 16), (17, 30)))
    """
    names = Vocabulary.of(classes).flat
    spans, start = [], len(PREFIX)
    for name in names:
        spans.append((start, start + len(name)))
        start += len(name) + 1
    return Prompt(PREFIX + " ".join(names), names, tuple(spans))
