"""Writes a trained model as one GGUF file that llama.cpp answers chat requests with."""

from pathlib import Path

import gguf
import numpy as np

from recipes.model import Llama
from recipes.tokenizer import ANSWER, BEGIN, END, Vocabulary

# The ticket is the last user message; other messages are not part of the job.
# Why: the system text is read into `ns.system` and then left, because llama.cpp prepends it to the user's text when a
# template never touches it.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(ticket='', system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] | trim -%}{%- endif -%}"
    "{%- if message['role'] == 'user' -%}{%- set ns.ticket = message['content'] -%}{%- endif -%}"
    "{%- endfor -%}{{- ns.ticket -}}{%- if add_generation_prompt -%}{{- '" + ANSWER + "' -}}{%- endif -%}"
)


def write_gguf(path: Path, model: Llama, vocabulary: Vocabulary, *, name: str, description: str) -> None:
    """Writes weights as F16 (norms as F32), tokenizer, chat template and licence to `path`."""
    shape = model.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_description(description)
    writer.add_license("Apache-2.0")
    writer.add_author("Headgate")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)
    _add_tokenizer(writer, vocabulary)
    for key, weight in model.state_dict().items():
        array = weight.detach().float().cpu().numpy()
        writer.add_tensor(key, array.astype(np.float16) if array.ndim == 2 else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    kinds = {BEGIN: gguf.TokenType.CONTROL, ANSWER: gguf.TokenType.CONTROL, END: gguf.TokenType.CONTROL}
    kinds |= dict.fromkeys(vocabulary.fixed, gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in vocabulary.tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
    writer.add_bos_token_id(vocabulary.tokens.index(BEGIN))
    writer.add_eos_token_id(vocabulary.tokens.index(END))
    writer.add_pad_token_id(vocabulary.tokens.index(END))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
