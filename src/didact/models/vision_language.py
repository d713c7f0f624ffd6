"""A small vision-language model: what it sees goes before what it reads, as tokens of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from didact.core.errors import BadInput
from didact.models.language import gpt_tiny
from didact.models.small import ConvNet, architecture, build


@architecture("vision-language")
class VisionLanguageModel(nn.Module):
    """Convolutional encoder, linear projector, causal language model; the layout of LLaVA in small.

    The picture (B, channels_in, size, size) becomes `prefix` vectors of the language model's width, which stand before
    the embedded text (B, T). Logits (B, T, V) are those of the text positions only, so position t predicts token t + 1
    as in any causal language model, and the picture needs no place in `input_ids` or `labels`. Three submodules:
    `vision` (a `ConvNet` without its head), `projector`, `language_model` (Llama's layout, tied embeddings). With the
    defaults and 100 words: about 0.30 million parameters, 0.11 of them in the language model.

    Errors: pictures of another size than the model's, or not one picture a text.
    """

    task: ClassVar[str] = "causal-lm"

    def __init__(
        self,
        vocabulary: int,
        size: int = 32,
        channels_in: int = 3,
        channels: Sequence[int] = (16, 32, 64),
        dense: int = 128,
        prefix: int = 4,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        feedforward: int = 192,
        positions: int = 128,
        pad_id: int = 0,
        bos_id: int = 1,
        eos_id: int = 2,
    ) -> None:
        super().__init__()
        self.picture = (channels_in, size, size)
        self.prefix = prefix
        self.vision = ConvNet(1, size, channels_in, channels, dense)
        self.vision.head = nn.Identity()  # type: ignore[assignment]
        self.projector = nn.Linear(dense, prefix * hidden)
        self.language_model = gpt_tiny(
            vocabulary,
            hidden=hidden,
            layers=layers,
            heads=heads,
            feedforward=feedforward,
            positions=positions,
            pad_id=pad_id,
            bos_id=bos_id,
            eos_id=eos_id,
        )

    def see_as(self, classifier: nn.Module) -> None:
        """Take over the encoder of a trained `convnet`, whatever its classes: a vision model trained beforehand."""
        encoder = {k: v for k, v in classifier.state_dict().items() if not k.startswith("head.")}
        try:
            self.vision.load_state_dict(encoder)
        except RuntimeError as error:
            raise BadInput(f"This classifier's encoder is not built as the model's: {error}") from None

    @property
    def config(self) -> Any:
        return self.language_model.config

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> CausalLMOutput:
        """Pictures (B, C, size, size) and tokens (B, T), padded on either side -> `.logits` (B, T, V)."""
        embedded, mask = self._joined(pixel_values, input_ids, attention_mask)
        output = self.language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=input_ids.shape[1],
            use_cache=False,
        )
        return CausalLMOutput(logits=output.logits)

    @torch.no_grad()
    def generate(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """(B, T + new) tokens: the prompts, padded on the left, and their continuations.

        Greedy unless `options`, those of Hugging Face's `generate`, say otherwise.
        """
        if attention_mask is not None and not bool(attention_mask[:, -1].all()):
            raise BadInput("Prompts for generate must be padded on the left: the last position must be text.")
        embedded, mask = self._joined(pixel_values, input_ids, attention_mask)
        made: Any = self.language_model.generate(  # type: ignore[misc]
            inputs_embeds=embedded, attention_mask=mask, **{"do_sample": False, **options}
        )
        return torch.cat([input_ids, made], dim=1)

    def _joined(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Embeddings (B, prefix + T, hidden) of picture and text, and their mask."""
        if pixel_values.shape[1:] != self.picture or len(pixel_values) != len(input_ids):
            raise BadInput(
                f"One picture of {self.picture} was expected for each of the {len(input_ids)} texts, but "
                f"pixel_values has the shape {tuple(pixel_values.shape)}."
            )
        seen: Tensor = self.projector(self.vision(pixel_values)).unflatten(1, (self.prefix, -1))
        embedded = torch.cat([seen, self.language_model.get_input_embeddings()(input_ids)], dim=1)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return embedded, torch.cat([mask.new_ones(len(mask), self.prefix), mask], dim=1)


def vision_language(vocabulary: int, **options: Any) -> nn.Module:
    """See `VisionLanguageModel`."""
    return build("vision-language", vocabulary=vocabulary, **options)
