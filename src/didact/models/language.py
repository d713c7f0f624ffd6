"""Small language models on Hugging Face configurations: they are ordinary `transformers` models."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM


def gpt_tiny(
    vocabulary: int,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    feedforward: int = 192,
    positions: int = 128,
    pad_id: int = 0,
    bos_id: int = 1,
    eos_id: int = 2,
) -> LlamaForCausalLM:
    """A decoder-only model with Llama's layout (every map an `nn.Linear`), tied embeddings, random weights.

    With the defaults and 1,000 words: about 0.17 million parameters.
    """
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=feedforward,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=positions,
            tie_word_embeddings=True,
            pad_token_id=pad_id,
            bos_token_id=bos_id,
            eos_token_id=eos_id,
        )
    )


def text_classifier(
    vocabulary: int, labels: int, *, hidden: int = 64, layers: int = 2, heads: int = 4, **options: Any
) -> BertForSequenceClassification:
    """A small BERT sequence classifier with random weights."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=2 * hidden,
            max_position_embeddings=128,
            id2label={i: f"label {i}" for i in range(labels)},
            **options,
        )
    )
