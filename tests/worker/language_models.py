"""Small language models of transformers, made offline: a folder with configuration, weights and a tokenizer."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

from fulcrum.domain.concept_sets import ConceptSet

CONTEXT = 24


def save_tokenizer(folder: Path, sentences: tuple[str, ...]) -> int:
    """One token for each word of the sentences; how many there are."""
    words = sorted({word for s in sentences for word in s.replace(".", " . ").replace("?", " ? ").split()})
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    return len(vocabulary)


def save_causal(folder: Path, concepts: ConceptSet, seed: int = 0) -> Path:
    """A GPT-2 of two blocks; it knows the words of the concepts and nothing of what they mean."""
    n_words = save_tokenizer(folder, concepts.sentences)
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=n_words, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4)
    GPT2Model(config).save_pretrained(folder)
    return folder


def save_encoder(folder: Path, concepts: ConceptSet, seed: int = 0) -> Path:
    """A BERT of one block."""
    n_words = save_tokenizer(folder, concepts.sentences)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=n_words,
        max_position_embeddings=CONTEXT,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
