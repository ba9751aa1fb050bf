"""A tokenizer of whole words: those of the scenes, and ordinary English around them.

As in the BLIP folders of the hub, the text encoder has two rows more than the tokenizer knows: [DEC], and [ENC] as the
last one, which takes the place of [CLS] when text and image are encoded together.
"""

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertTokenizer

from pnp_ovss.mini.drawing import GROUNDS
from training.captions import NAMES, SENTENCES

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
EXTRA_ROWS = 2  # [DEC], [ENC]
FILLER = (
    "a an and the this that is are there here we see some one two three of on in at by with under over near "
    "behind front beside next to photo picture image drawing scene shows showing background no , . not"
)
MAX_TOKENS = 48


def vocabulary() -> tuple[str, ...]:
    """Special tokens first, then every word once, in alphabetical order."""
    texts = [*NAMES, *SENTENCES, *(where for _, _, where in GROUNDS), FILLER]
    return (*SPECIAL, *sorted({word for text in texts for word in text.replace("{}", " ").split()}))


def build_tokenizer() -> BertTokenizer:
    """A fast tokenizer (lower-casing, one token per known word, offsets) that saves as an ordinary folder."""
    ids = {word: k for k, word in enumerate(vocabulary())}
    core = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    core.normalizer = BertNormalizer(lowercase=True)
    core.pre_tokenizer = BertPreTokenizer()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return BertTokenizer(
        tokenizer_object=core,
        vocab=ids,
        do_lower_case=True,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )
