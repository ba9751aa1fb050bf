"""Published scores, mIoU in percent, each with where it was read and what to know before comparing with it."""

from dataclasses import dataclass

COLUMNS = {
    "voc21": "VOC 21",
    "context60": "Context 60",
    "object81": "Object 81",
    "voc20": "VOC 20",
    "context59": "Context 59",
    "stuff171": "Stuff 171",
    "ade150": "ADE 150",
}

SOURCES = {
    "poster": "PnP-OVSS, CVPR 2024 poster, Table 3",
    "O": "Table 1 of the OV-Stitcher paper",
    "P": "the table of the PEARL paper",
    "C": "Table 1 of the ConceptBank paper",
    "R": "the method's own README",
}

AUTHORS = (
    "square input, void pixels scored as background, mean over the classes in the truth, names by GPT-4o: compare with "
    "--protocol authors"
)
POSTER_VOC = AUTHORS + "; the poster's VOC column says 20 classes, the authors' code scores 21, background included"
FAMILY = (
    "short side 336 to 448, sliding window, synonyms as class names, 255 ignored, mean over truth or guess: compare "
    "with --protocol standard"
)
TRAINED = "trained for segmentation; " + FAMILY


@dataclass(frozen=True)
class Row:
    """A method and its scores, by data set."""

    method: str
    scores: dict[str, float]
    source: str
    caveat: str


def _row(method: str, scores: str, source: str, caveat: str = FAMILY) -> Row:
    """Return a row whose scores are in the order of ``COLUMNS``, ``-`` where there is none."""
    values = zip(COLUMNS, scores.split(), strict=True)
    return Row(method, {name: float(value) for name, value in values if value != "-"}, source, caveat)


def _poster(method: str, voc: float, context: float, objects: float, stuff: float, ade: float) -> Row:
    scores = {"voc21": voc, "context59": context, "object81": objects, "stuff171": stuff, "ade150": ade}
    return Row(method, scores, "poster", POSTER_VOC)


def _quoted(method: str, scores: str, caveat: str) -> Row:
    """Return a row of the poster about another method, in the poster's order, ``-`` where there is none."""
    columns = ("voc21", "context59", "object81", "stuff171", "ade150")
    values = zip(columns, scores.split(), strict=True)
    told = f"as the poster quotes it, each by its own paper's rule; {caveat}; its VOC column says 20 classes"
    return Row(method, {name: float(value) for name, value in values if value != "-"}, "poster", told)


PAIRS, NO_PAIRS, NONE = (
    "fine-tuned on pairs of image and text",
    "fine-tuned without real pairs of image and text",
    "no fine-tuning",
)

ROWS: tuple[Row, ...] = (
    _poster("PnP-OVSS, BLIP large, 336 px", 51.3, 28.0, 36.2, 17.9, 14.2),
    _poster("PnP-OVSS, BLIP large, 224 px", 46.3, 27.5, 32.3, 17.3, 13.6),
    _poster("PnP-OVSS, BridgeTower, 336 px", 42.4, 25.3, 30.4, 15.7, 14.8),
    _quoted("ViL-Seg", "37.3 18.9 - 18.0 -", PAIRS),
    _quoted("CLIPpy, 224 px", "52.2 - 32.0 25.5 13.5", PAIRS),
    _quoted("SegCLIP, 224 px", "52.6 24.7 26.5 - -", PAIRS),
    _quoted("GroupViT by CLIPpy, 224 px", "28.1 14.8 12.9 - 6.2", PAIRS),
    _quoted("GroupViT by TCL, 448 px", "50.4 18.7 27.5 15.3 9.2", PAIRS),
    _quoted("GroupViT, own, 448 px", "52.3 22.4 24.3 - -", PAIRS),
    _quoted("ViewCo, 448 px", "52.4 23.0 23.5 - -", PAIRS),
    _quoted("OVSegmentor, 448 px", "53.8 20.4 25.1 - 5.6", PAIRS),
    _quoted("TCL with PAMR, 448 px", "55.0 30.4 31.6 22.4 17.1", PAIRS),
    _quoted("PACL, 224 px x 4", "72.3 50.1 - 38.8 31.4", PAIRS),
    _quoted("MaskCLIP, self-trained, 336 px", "- 31.1 - 18.0 -", NO_PAIRS),
    _quoted("MaskCLIP, self-trained, by TCL, 448 px", "38.8 23.6 20.6 16.4 9.8", NO_PAIRS),
    _quoted("ZeroSeg*, 448 px", "37.3 19.7 17.8 - -", NO_PAIRS),
    _quoted("ZeroSeg, 448 px", "40.8 20.4 20.2 - -", NO_PAIRS),
    _quoted("MaskCLIP by CLIPpy, 224 px", "22.1 - 13.8 8.1 6.8", NONE),
    _quoted("MaskCLIP, 336 px", "- 25.5 - 14.6 -", NONE),
    _quoted("ReCo, 320 px", "- 27.2 - 27.2 -", NONE),
    _quoted("ReCo by TCL, 448 px", "25.1 19.9 15.7 14.8 11.2", NONE),
    _row("MaskCLIP", "43.4 23.2 20.6 74.9 26.4 16.7 11.9", "O"),
    _row("ReCo", "25.1 19.9 15.7 57.7 22.3 14.8 11.2", "P"),
    _row("GroupViT", "50.4 18.7 27.5 79.7 23.4 15.3 9.2", "P", TRAINED),
    _row("TCL", "51.2 24.3 30.4 77.5 30.3 19.6 14.9", "P", TRAINED),
    _row("SCLIP", "59.1 30.4 30.5 80.4 34.2 22.4 16.1", "O"),
    _row("ClearCLIP", "51.8 32.6 33.0 80.9 35.9 23.9 16.7", "O"),
    _row("CLIPtrase", "50.9 29.9 43.6 81.0 33.8 22.8 16.4", "O"),
    _row("NACLIP with PAMR", "64.1 35.0 36.2 83.0 38.4 25.7 19.1", "R"),
    _row("LaVG", "62.1 31.6 34.2 82.5 34.7 23.2 15.8", "C"),
    _row("FreeDA", "51.8 35.3 36.3 84.3 39.7 25.7 20.8", "C"),
    _row("ResCLIP", "61.1 33.5 35.0 86.0 36.8 24.7 18.0", "O", FAMILY + "; VOC 20 re-run by a third party: 82.3"),
    _row("ProxyCLIP", "61.3 35.3 37.5 80.3 39.1 26.5 20.2", "O"),
    _row("Trident", "67.1 38.6 41.1 84.5 42.2 28.3 21.9", "O", FAMILY + "; uses SAM"),
    _row("CorrCLIP, CLIP L", "76.7 44.9 49.4 91.5 50.8 34.0 30.7", "R", FAMILY + "; larger CLIP, uses SAM 2"),
    _row("CorrCLIPv2, CLIP L", "82.3 51.1 58.0 93.2 56.8 39.1 36.5", "R", FAMILY + "; larger CLIP, image bank"),
    _row("SAM 3, class names only", "81.9 46.1 65.4 88.9 50.0 33.3 31.8", "C", "trained on masks of many concepts"),
)
"""Without another word CLIP means ViT-B/16."""


def published(dataset: str) -> list[Row]:
    """Return the rows that have a score for a data set, the best first."""
    return sorted((row for row in ROWS if dataset in row.scores), key=lambda row: -row.scores[dataset])
