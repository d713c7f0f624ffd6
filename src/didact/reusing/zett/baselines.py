"""Embeddings for a new tokenizer without a hypernetwork: averages and copies of the source's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import PositiveInt
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import svds
from torch import Tensor

from didact.core.method import Card, Paper
from didact.core.registry import register
from didact.reusing.request import Request
from didact.reusing.zett.bytelevel import ByteVocabulary
from didact.reusing.zett.embeddings import Source
from didact.reusing.zett.reuser import Embedder, TokenizerReuser
from didact.reusing.zett.texts import as_texts

NEEDS = ("models", "source_tokenizer", "tokenizer")


@register
class VocabularyTransfer(TokenizerReuser):
    """Give every new token the mean of the source embeddings that it is spelled with.

    A token that the source knows keeps its embedding. Nothing is trained. Good when new tokens are short compounds of
    old ones; a token of many source ids becomes a blur.

    Errors: a tokenizer without byte fallback or with an empty vocabulary, special tokens without a match.
    Cost: one spelling a token.
    Reference: Gee, Zugarini, Rigutini and Torroni, "Fast Vocabulary Transfer for Language Model Compression", EMNLP
    2022 (industry track), arXiv 2402.09977.
    """

    card = Card("fvt", "Fast Vocabulary Transfer for Language Model Compression",
                paper=Paper("Gee, Zugarini, Rigutini and Torroni", 2022, arxiv="2402.09977", venue="EMNLP"),
                tasks=("causal-lm",), needs=NEEDS, part_of="zett")  # fmt: skip

    def embedder(self, source: Source, request: Request) -> Embedder:
        return lambda target: mean_of_spelling(source, target)


@register
class LexicalTransfer(TokenizerReuser):
    """Copy what both vocabularies share; draw the rest from a normal of each dimension's mean and deviation.

    Cost: none to speak of.
    """

    card = Card("lexical-transfer", "Lexical copy, random rest", kind="baseline", tasks=("causal-lm",), needs=NEEDS,
                part_of="zett")  # fmt: skip

    def embedder(self, source: Source, request: Request) -> Embedder:
        def embed(target: ByteVocabulary) -> list[Tensor]:
            generator = torch.Generator().manual_seed(request.seed)

            def drawn(column: Tensor) -> Tensor:
                noise = torch.randn(len(target), column.shape[1], generator=generator).to(column)
                return column.mean(0) + noise * column.std(0, correction=0)

            return copied(source, target, [drawn(column) for column in source.columns])

        return embed


@register
class MeanTransfer(TokenizerReuser):
    """Copy what both vocabularies share; every other token gets the mean of all source embeddings.

    Cost: none to speak of.
    """

    card = Card("mean-transfer", "Lexical copy, mean embedding for the rest", kind="baseline", tasks=("causal-lm",),
                needs=NEEDS, part_of="zett")  # fmt: skip

    def embedder(self, source: Source, request: Request) -> Embedder:
        return lambda target: copied(
            source, target, [column.mean(0).expand(len(target), -1).clone() for column in source.columns]
        )


@register
class Focus(TokenizerReuser):
    """Copy what both vocabularies share; every other token becomes a sparse mixture of the shared ones near it.

    Nearness is the cosine of auxiliary vectors of the target's tokens, learnt from texts under the target tokenizer;
    the weights are their sparsemax. The paper learns the vectors with fastText; here they are the leading singular
    vectors of positive pointwise mutual information within a window, which need no further package. Shared tokens that
    the texts never show have no vector and lend nothing; a new token without one gets the mean of the shared.

    Errors: a tokenizer without byte fallback or with an empty vocabulary, special tokens without a match, no texts.
    Cost: counting the texts once a target, a sparse singular value decomposition, and O(new x shared) similarities.
    Reference: Dobler and de Melo, "FOCUS: Effective Embedding Initialization for Monolingual Specialization of
    Multilingual Models", EMNLP 2023, arXiv 2305.14481.
    """

    card = Card("focus", "FOCUS: Effective Embedding Initialization for Monolingual Specialization of "
                "Multilingual Models",
                paper=Paper("Dobler and de Melo", 2023, arxiv="2305.14481", venue="EMNLP"),
                tasks=("causal-lm",), needs=(*NEEDS, "texts"), part_of="zett")  # fmt: skip
    width: PositiveInt = 64  #: of the auxiliary vectors
    window: PositiveInt = 4  #: tokens to each side that count as together

    def embedder(self, source: Source, request: Request) -> Embedder:
        texts = as_texts(request.need("texts"))

        def embed(target: ByteVocabulary) -> list[Tensor]:
            vectors = auxiliary_vectors(target, texts, self.width, self.window)
            shares = torch.from_numpy(focus_weights(vectors, shared_ids(source, target)[0]))
            ids = torch.tensor(shared_ids(source, target)[1])
            return copied(source, target, [shares.to(column) @ column[ids] for column in source.columns])

        return embed


def mean_of_spelling(source: Source, target: ByteVocabulary) -> list[Tensor]:
    """(V, d) a column: mean of the source rows each token is spelled with; tokens the source knows keep their row."""
    spelt = [spelling(source.vocabulary, token) if token else [0] for token in target.tokens]
    return [torch.stack([column[ids].mean(0) for ids in spelt]) for column in source.columns]


def spelling(source: ByteVocabulary, token: bytes) -> list[int]:
    known = source.ids.get(token)
    return [known] if known is not None else source.spell(token)


def copied(source: Source, target: ByteVocabulary, rows: Sequence[Tensor]) -> list[Tensor]:
    """The rows, with those of shared tokens replaced by the source's."""
    mine, theirs = shared_ids(source, target)
    made = [row.clone() for row in rows]
    for row, column in zip(made, source.columns, strict=True):
        row[mine] = column[theirs]
    return made


def shared_ids(source: Source, target: ByteVocabulary) -> tuple[list[int], list[int]]:
    """Ids in the target, and in the source, of tokens of the same bytes."""
    pairs = [(i, source.vocabulary.ids[t]) for i, t in enumerate(target.tokens) if t in source.vocabulary.ids]
    return [i for i, _ in pairs], [j for _, j in pairs]


def auxiliary_vectors(target: ByteVocabulary, texts: Sequence[str], width: int, window: int) -> np.ndarray:
    """(V, width) vectors of the target's tokens from what stands beside them in texts; zero where never seen."""
    size = len(target)
    rows, columns = [], []
    for text in texts:
        ids = np.array(target.encode(text), dtype=np.int64)
        for gap in range(1, min(window, len(ids) - 1) + 1):
            rows += [ids[:-gap], ids[gap:]]
            columns += [ids[gap:], ids[:-gap]]
    if not rows:
        return np.zeros((size, 1))
    where = (np.concatenate(rows), np.concatenate(columns))
    counts = coo_matrix((np.ones(len(where[0])), where), shape=(size, size)).tocsr().tocoo()
    total, left, right = counts.sum(), np.asarray(counts.sum(1)).ravel(), np.asarray(counts.sum(0)).ravel()
    information = np.log(counts.data * total / (left[counts.row] * right[counts.col]))
    kept = information > 0
    matrix = coo_matrix((information[kept], (counts.row[kept], counts.col[kept])), shape=(size, size)).tocsr()
    rank = min(width, size - 1)
    u, s, _ = svds(matrix, k=rank, v0=np.ones(size), random_state=0)
    vectors = u * np.sqrt(s)
    vectors[left == 0] = 0.0
    return np.asarray(vectors)


def focus_weights(vectors: np.ndarray, shared: Sequence[int]) -> np.ndarray:
    """(V, shared) weights that sum to 1: sparsemax of the cosines to the shared tokens that have a vector."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)
    lends = lengths[list(shared), 0] > 1e-12
    weights = np.full((len(vectors), len(shared)), 1.0 / max(1, len(shared)))
    has = lengths[:, 0] > 1e-12
    if lends.any():
        near = unit[has] @ unit[list(shared)][lends].T
        part = np.zeros((int(has.sum()), len(shared)))
        part[:, lends] = sparsemax(near)
        weights[has] = part
    return weights


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """Rows projected onto the simplex (Martins and Astudillo 2016)."""
    ordered = -np.sort(-scores, axis=1)
    sums = np.cumsum(ordered, axis=1) - 1
    places = np.arange(1, scores.shape[1] + 1)
    support = (ordered * places > sums).sum(1)
    threshold = sums[np.arange(len(scores)), support - 1] / support
    made: np.ndarray = np.maximum(scores - threshold[:, None], 0.0)
    return made
