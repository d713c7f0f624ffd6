"""Tokenizer transfer: run a language model with a tokenizer that it was not trained with.

`TokenizerTransfer` trains a hypernetwork once for a model; `VocabularyTransfer` (FVT), `Focus`, `LexicalTransfer` and
`MeanTransfer` average or copy. All work for any Hugging Face causal language model and any two fast tokenizers that
can write every byte. Compare models under different tokenizers by `bits_per_byte`, never by the loss a token.
"""

from didact.reusing.zett.baselines import Focus as Focus
from didact.reusing.zett.baselines import LexicalTransfer as LexicalTransfer
from didact.reusing.zett.baselines import MeanTransfer as MeanTransfer
from didact.reusing.zett.baselines import VocabularyTransfer as VocabularyTransfer
from didact.reusing.zett.bytelevel import ByteVocabulary as ByteVocabulary
from didact.reusing.zett.method import TokenizerTransfer as TokenizerTransfer
from didact.reusing.zett.problem import TOKENIZER_METRICS as TOKENIZER_METRICS
from didact.reusing.zett.problem import TokenizerProblem as TokenizerProblem
from didact.reusing.zett.problem import tokenizer_docstrings as tokenizer_docstrings
from didact.reusing.zett.problem import tokenizer_problem as tokenizer_problem
from didact.reusing.zett.sampler import TokenizerSampler as TokenizerSampler
from didact.reusing.zett.texts import bits_per_byte as bits_per_byte
from didact.reusing.zett.tokenizers import byte_tokenizer as byte_tokenizer
from didact.reusing.zett.tokenizers import unigram_tokenizer as unigram_tokenizer
from didact.reusing.zett.transfer import TransferNetwork as TransferNetwork
