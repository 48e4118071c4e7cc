"""A small byte-level BPE tokenizer of our own for the tiny models: 256 bytes, merges learnt from TEXT below, specials, a ChatML template.

Ids: 0..255 the bytes in order, then one token per merge, then the specials. The same layout for every model, so that a test
knows ids without a tokenizer. Source of the byte alphabet: Radford et al. 2019 (GPT-2's byte-level BPE).
"""
import re

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = """A shoal is many small fish that move as one. Shoal makes one computer out of the machines that people own: each machine runs
one small program, the machines find each other, they measure themselves and the links between them, and they share the work of a model so that
it fits and runs as fast as it can. The user asks a question; the assistant answers. The answer is the same on one machine and on many."""
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_alphabet():
    """One printable character for each byte: itself where it is printable Latin-1, else 256 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def learn_merges(n):
    """The n most frequent pairs, one after another; ties go to the pair that sorts first."""
    alphabet = byte_alphabet()
    words = [[alphabet[b] for b in w.encode()] for w in re.findall(r" ?[A-Za-z]+|[^A-Za-z\s]+|\s+", TEXT)]
    merges = []
    for _ in range(n):
        counts = {}
        for w in words:
            for pair in zip(w, w[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = [w[i] + w[i + 1]]
                i += 1
    return merges


def add_to(gguf, vocabulary):
    """Writes the metadata of a tokenizer with `vocabulary` entries in all."""
    merges = learn_merges(vocabulary - 256 - len(SPECIALS))
    tokens = byte_alphabet() + [a + b for a, b in merges] + SPECIALS
    first = vocabulary - len(SPECIALS)
    gguf.text("tokenizer.ggml.model", "gpt2")
    gguf.text("tokenizer.ggml.pre", "qwen2")
    gguf.array("tokenizer.ggml.tokens", "str", tokens)
    gguf.array("tokenizer.ggml.token_type", "i32", [1] * first + [3] * len(SPECIALS))  # 1 normal, 3 control
    gguf.array("tokenizer.ggml.merges", "str", [f"{a} {b}" for a, b in merges])
    gguf.u32("tokenizer.ggml.bos_token_id", first)
    gguf.u32("tokenizer.ggml.eos_token_id", first + 2)
    gguf.u32("tokenizer.ggml.padding_token_id", first)
    gguf.flag("tokenizer.ggml.add_bos_token", False)
    gguf.text("tokenizer.chat_template", TEMPLATE)
