"""A published decoder sold by one process to another: SmolLM2 says Paris on the command line.

`make test-long` makes both environments and the package in build/smollm2.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cocoon.node.packing import make_package
from tests.loopback.conftest import settle
from tests.loopback.town import town

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "build" / "smollm2"
#: The package ``tokenizers`` lives there, and nowhere in the product.
CONVERT = ROOT / ".venv-convert"

pytestmark = pytest.mark.long


def test_smollm2_of_another_process_says_paris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "smollm2"
    package.mkdir()
    for name in ("model.onnx", "tokens.bin", "tokenizer.json", "decoder.json"):
        shutil.copy(PACKAGE / name, package / name)
    declared = {"name": "smollm2", "kind": "generate", "unit": "output_token", "licence": "Apache-2.0"}
    make_package(package, None, declared)
    (library,) = CONVERT.glob("lib/python*/site-packages/tokenizers")
    (tmp_path / "library").mkdir()
    os.symlink(library, tmp_path / "library" / "tokenizers")
    # One turn of a conversation as the package's template writes it, without its line about who answers.
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    with town(tmp_path, forks=False) as place:
        settled = settle(place)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
        done = place.cocoon(settled.requester, "generate", str(package), prompt, "--raw", "--json")
    assert done.code == 0, done
    summary = done.objects[-1]["summary"]
    assert summary["text"] == "The capital of France is Paris." and summary["reason"] == "stop_token"
    assert summary["provider"].startswith("12D3KooW") and len(summary["receipt"]) == 64
