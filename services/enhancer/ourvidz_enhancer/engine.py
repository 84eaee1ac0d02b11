"""The enhancer's engine: expands a prompt with a language model, token by token. Lives in the engine process."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ourvidz_enhancer.decoding import Decoder
from ourvidz_enhancer.frame import Frame, chat_renderer, make_frame, make_harmless
from ourvidz_enhancer.instruction import Instruction
from ourvidz_enhancer.limits import Limits
from ourvidz_enhancer.loading import load_encoder_tokenizer, load_language_model
from ourvidz_enhancer.sampling import Sampler
from ourvidz_enhancer.task import MAX_TOKENS, EnhancerInfo, EnhanceSession, EnhanceTask, Language, Medium, Style
from ourvidz_enhancer.writing import Writing
from ourvidz_models.devices import choose_device, choose_dtype, prepare, synchronize
from ourvidz_models.loading import shown_name
from ourvidz_models.timing import timed
from ourvidz_serving.engines.engine import EngineOutOfMemory, LoadSession, ModelUnavailable

SEEDS = 2**32

_STEPS_PER_TOKEN = 2
"""How many tokens the model may write for each that the renderer may read, before it counts as not coming to an end."""
_LEAST_ROOM = 64
"""How many tokens of a prompt the model must be able to read."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A frame whose fixed beginning the model has read already: it is the longest part of what there is to read."""

    frame: Frame
    decoder: Decoder
    token_count: int


class EnhancerEngine:
    """Implements `ourvidz_serving.engines.engine.Engine`.

    `config` is `EnhancerSettings.engine_config()`, and under `instruction` the checked file as plain data.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._device = choose_device(config["device"])
        self._tokenizer: Any = None
        self._encoder_tokenizer: Any = None
        self._context = 0
        self._stops: frozenset[int] = frozenset()
        self._opened: dict[tuple[Language, Medium], _Opened] = {}

    @torch.inference_mode()
    def load(self, session: LoadSession) -> EnhancerInfo:
        """Load the model onto the device, and let it read its instruction. Raises `ModelUnavailable`."""
        config = self._config
        prepare(config)
        session.loading("weights")
        self._tokenizer, network = load_language_model(
            config["model"],
            cache=Path(config["model_cache"]),
            dtype=choose_dtype(config["dtype"], self._device),
            device=self._device,
        )
        self._encoder_tokenizer = load_encoder_tokenizer(config["tokenizer"])
        self._context = network.config.max_position_embeddings
        # No special token is ever part of a text, whether the configuration calls it an end or not.
        ends = network.generation_config.eos_token_id
        self._stops = frozenset([*self._tokenizer.all_special_ids, *(ends if isinstance(ends, list) else [ends])])
        session.loading("the instruction")
        instruction = Instruction.model_validate(config["instruction"])
        for language, medium in product(Language, Medium):
            self._opened[language, medium] = self._open(instruction, language, medium, network)
        return EnhancerInfo(model=shown_name(config["model"]), device=str(self._device))

    @torch.inference_mode()
    def run(self, task: EnhanceTask, session: EnhanceSession) -> None:
        """Write the new prompt; ends without a whole one when the model, asked twice, writes nothing."""
        opened = self._opened[task.language, task.medium]
        limits = Limits(task.max_character_count, task.max_token_count, self._count_tokens)
        try:
            tokens = self._tokens_of(task, opened, session)
            # An empty text is an accident of the choice of tokens. The second try chooses differently, and in a way
            # that the same request repeats.
            for seed in (task.seed, ((task.seed or 0) + 1) % SEEDS):
                if self._write(tokens, opened, seed, limits, session):
                    return
        except torch.OutOfMemoryError as error:
            raise EngineOutOfMemory("the graphics memory has no room for the prompt beside the model") from error

    def _open(self, instruction: Instruction, language: Language, medium: Medium, network: Any) -> _Opened:
        style = Style(self._config["style"])
        if style is Style.CHAT and not self._tokenizer.chat_template:
            raise ModelUnavailable(f"the model {self._config['model']} has no chat template; its style is few_shot")
        frame = make_frame(instruction, style, language, medium, render_chat=chat_renderer(self._tokenizer))
        tokens = self._encode(frame.fixed)
        if len(tokens) + _LEAST_ROOM + MAX_TOKENS * _STEPS_PER_TOKEN > self._context:
            raise ModelUnavailable(
                f"the instruction for {language} {medium} has {len(tokens)} tokens, which leaves no room for prompts: "
                f"the model {self._config['model']} reads {self._context}"
            )
        decoder = Decoder(network)
        if tokens:
            decoder.read(tokens)
        return _Opened(frame, decoder, len(tokens))

    def _tokens_of(self, task: EnhanceTask, opened: _Opened, session: EnhanceSession) -> list[int]:
        """Return what the model still has to read; a prompt that it has no room for is cut, with a warning."""
        frame = opened.frame
        prompt = make_harmless(task.prompt, labels=frame.labels, reserved=self._tokenizer.get_added_vocab())
        room = self._context - opened.token_count - task.max_token_count * _STEPS_PER_TOKEN
        tokens = self._encode(frame.render(prompt).removeprefix(frame.fixed))
        if len(tokens) > room:
            words = self._encode(prompt)
            kept = self._decode(words[: len(words) - (len(tokens) - room)]).rstrip("\ufffd")
            session.warn(
                f"The prompt is longer than the language model reads; of its {len(prompt)} characters the first "
                f"{len(kept)} were used."
            )
            tokens = self._encode(frame.render(kept).removeprefix(frame.fixed))
        return tokens

    def _write(
        self, tokens: list[int], opened: _Opened, seed: int | None, limits: Limits, session: EnhanceSession
    ) -> bool:
        """Write one text; return whether there was any."""
        session.check()
        with timed(session, "prefill"):
            decoder = opened.decoder.fork()
            logits = decoder.read(tokens)
            synchronize(self._device)
        writing = Writing(opened.frame, self._decode)
        sampler = self._sampler(seed)
        most = limits.max_token_count * _STEPS_PER_TOKEN
        shown = ""
        with timed(session, "generate"):
            while True:
                session.check()
                token = sampler.choose(logits, writing.tokens)
                if token in self._stops:
                    writing.end()
                else:
                    writing.add(token)
                too_long = not limits.hold(writing.text)
                if writing.text != shown and not too_long:
                    session.wrote(writing.text[len(shown) :])
                    shown = writing.text
                if writing.ended or too_long:
                    break
                if too_long := len(writing.tokens) == most:
                    break
                logits = decoder.read([token])
        text = limits.cut(writing.text) if too_long else shown
        if text:
            session.written(text, truncated=too_long, token_count=self._count_tokens(text))
        return bool(text)

    def _sampler(self, seed: int | None) -> Sampler:
        config = self._config
        return Sampler(
            seed,
            temperature=config["temperature"],
            top_k=config["top_k"],
            top_p=config["top_p"],
            repetition_penalty=config["repetition_penalty"],
        )

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return tokens

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    def _count_tokens(self, text: str) -> int:
        return len(self._encoder_tokenizer(text).input_ids)
