"""A miniature of the multilingual T5 (UMT5) that Wan reads prompts with: its tokenizer and its encoder."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from ourvidz_miniature.vocabulary import make_vocabulary

MAX_TOKENS = 512
"""What Wan's pipelines read of a prompt, the end token included."""

_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_SPACE = "▁"
_WORD_END = "</w>"


def make_umt5_tokenizer() -> PreTrainedTokenizerBase:
    """Return the tokenizer: as with UMT5, pieces with the space in front, `<pad>` is 0, `</s>` is 1 and ends each text.

    Common English words are one token, with a capital or without, and so are the 3,755 common Chinese characters;
    what has no token of its own is written byte by byte, so that every text can be encoded and, but for the kind and
    number of its spaces, decoded. It is loaded by `AutoTokenizer` from where it was saved, as the generic class that
    transformers has registered for UMT5: T5's own class knows no bytes.
    """
    pieces = [(piece, 0.0) for piece in (_PAD, _END, _UNKNOWN)]
    # All cost the same, so that a text becomes as few of them as possible.
    pieces += [(piece, -10.0) for piece in _make_pieces()]
    # These are for what is unknown: a text that spells their names is cheaper letter by letter.
    pieces += [(f"<0x{byte:02X}>", -100.0) for byte in range(256)]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", _END], pair=["$A", _END, "$B", _END], special_tokens=[(_END, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def _make_pieces() -> list[str]:
    ascii_ = [chr(code) for code in range(0x21, 0x7F)]
    learnt = [token for token in make_vocabulary().ids if token.isascii() and not token.startswith("<|")]
    words = [token.removesuffix(_WORD_END) for token in learnt if token.endswith(_WORD_END)]
    starts = [_SPACE + word for word in (*words, *(word.capitalize() for word in words))]
    inner = [token for token in learnt if not token.endswith(_WORD_END)]
    return list(dict.fromkeys([_SPACE, *ascii_, *starts, *inner, *_common_chinese()]))


def _common_chinese() -> list[str]:
    """Return the first level of GB 2312, rows 16 to 55, with the marks that Chinese writes between sentences."""
    rows = [bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)]
    return [*"，。、；：？！（）《》“”", *"".join(code.decode("gb2312", errors="ignore") for code in rows)]


def make_umt5_encoder() -> UMT5EncoderModel:
    """Return the encoder, untrained; its weights are drawn from torch's global generator."""
    config = UMT5Config(
        vocab_size=len(make_umt5_tokenizer()),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config).eval()
