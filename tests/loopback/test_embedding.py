"""An encoder of a stranger, sold by the token of its texts: all-MiniLM-L6-v2, with its own tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer

import cocoon
from cocoon.core.errors import CeilingExceeded, Malformed, UsageError
from cocoon.node.packing import make_package
from tests.loopback.paid import SETUP_NANOTON, Market, accepted, market, paid_for, until

MODELS = Path(__file__).parents[2] / "build" / "models"
TOKEN_NANOTON = 3_000
#: Words that the tokenizer takes at most, its marks of both ends among them.
LONGEST_TOKENS = 128
TEXTS = [
    "A cat sleeps on the warm sofa.", "The kitten is napping on the couch.", "Interest rates rose again this quarter.",
    "x", "Ein Satz auf Deutsch: schöne Grüße!", "word " * 300,
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    with market(tmp_path_factory.mktemp("market"), price_embed_token_nanoton=str(1_000 * TOKEN_NANOTON)) as place:
        yield place


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as a package."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copy(MODELS / "minilm_int8.onnx", folder / "model.onnx")
    shutil.copy(MODELS / "minilm_tokenizer.json", folder / "tokenizer.json")
    make_package(folder, None, {
        "name": "all-MiniLM-L6-v2", "kind": "embed", "unit": "prompt_token", "licence": "Apache-2.0",
        "before": ("tokens",), "after": ("mean_pool", "normalise_l2"),
    })
    return folder


def by_hand(texts: list[str]) -> tuple[np.ndarray, list[int]]:
    """Vectors by plain ONNX Runtime, pooled and normalised in float64; and the tokens of each text."""
    session = onnxruntime.InferenceSession(MODELS / "minilm_int8.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(MODELS / "minilm_tokenizer.json"))
    tokenizer.no_padding()
    rows, counts = [], []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        (hidden,) = session.run(None, {
            "input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids),
        })
        mean = hidden[0].astype(np.float64).mean(axis=0)
        rows.append(mean / np.sqrt((mean**2).sum()))
        counts.append(ids.size)
    return np.array(rows), counts


def test_texts_become_the_vectors_that_the_model_gives_and_each_token_is_paid_for(here: Market, package: Path) -> None:
    found = list(here.buyer.embed(package, TEXTS))
    vectors, counts = by_hand(TEXTS)
    assert [vector.tokens for vector in found] == counts == [vector.result.units for vector in found]
    assert [vector.is_cut for vector in found] == [False] * 5 + [True] and counts[-1] == LONGEST_TOKENS
    for vector, expected in zip(found, vectors, strict=True):
        assert vector.values.dtype == np.float32
        np.testing.assert_allclose(vector.values, expected, rtol=0, atol=1e-5)
    cat, kitten, rates = (vector.values for vector in found[:3])
    assert cat @ kitten > 0.5 > 0.2 > cat @ rates
    prices = [vector.result.price_nanoton for vector in found]
    assert sum(prices) == SETUP_NANOTON + sum(counts) * TOKEN_NANOTON
    assert sum(accepted(here.requester).values()) == sum(prices) == paid_for(here)


def test_long_texts_go_as_many_at_a_time_as_may_be_unpaid(here: Market, package: Path) -> None:
    found = list(here.buyer.embed(package, [f"word {number} " * 100 for number in range(12)]))
    assert {vector.tokens for vector in found} == {LONGEST_TOKENS} and len({v.result.lease for v in found}) == 1
    assert {vector.result.price_nanoton for vector in found[1:]} == {LONGEST_TOKENS * TOKEN_NANOTON}
    paid_for(here)


def test_a_text_that_could_cost_more_than_its_user_pays_is_not_bought(here: Market, package: Path) -> None:
    least = 5 * TOKEN_NANOTON                            # on the lease that the model has by now
    with pytest.raises(CeilingExceeded):
        list(here.buyer.embed(package, ["x", "many words of one text"], max_price_nanoton=least))
    (vector,) = here.buyer.embed(package, ["x"], max_price_nanoton=least)
    assert vector.tokens == 3


def test_more_than_tokens_is_not_run_for_the_price_of_tokens(here: Market, tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "work", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["input_ids", "work"], ["y"])], "g", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    make_package(tmp_path, None, {"kind": "embed"})
    ids = np.array([[101, 1_000, 102]])
    before = accepted(here.requester)
    with pytest.raises(Malformed):
        here.buyer.run(tmp_path, {"input_ids": ids, "work": np.arange(3_000_000).reshape(-1, 3)})
    assert accepted(here.requester) == before


def test_an_encoder_is_not_sold_where_only_runs_have_a_price(here: Market, package: Path) -> None:
    (quote,) = here.buyer.quote(package, runs=2, run_units=30)["quotes"]
    assert quote["expected_nanoton"] <= SETUP_NANOTON + 2 * 30 * TOKEN_NANOTON
    assert quote["embed_token_nanoton_per_1000"] == 1_000 * TOKEN_NANOTON
    here.place.provider("runs", price_run_nanoton="1", price_setup_nanoton="0")
    until(lambda: len(here.buyer.offers()) == 2, "the offer of the second provider")
    assert sum("embed_token_nanoton_per_1000" in offer for offer in here.buyer.offers()) == 1
    assert len(here.buyer.quote(package, runs=2)["quotes"]) == 1


def test_the_command_compares_texts_and_writes_their_vectors(here: Market, package: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text(f"{TEXTS[1]}\n\n{TEXTS[2]}\n")
    lines, output = ("--lines", str(tmp_path / "more.txt")), tmp_path / "vectors.npz"
    done = here.place.cocoon(here.requester, "embed", str(package), TEXTS[0], *lines, "--output", str(output), "--json")
    assert done.code == 0, done
    vectors, counts = by_hand(TEXTS[:3])
    summary = done.objects[-1]["summary"]
    assert (summary["texts"], summary["width"], summary["tokens"]) == (3, 384, sum(counts))
    np.testing.assert_allclose(np.load(output)["vectors"], vectors, rtol=0, atol=1e-5)
    told = [json.loads(line) for line in done.out.splitlines()[:3]]
    np.testing.assert_allclose([one["vector"] for one in told], vectors, rtol=0, atol=1e-5)
    shown = here.place.cocoon(here.requester, "embed", str(package), *TEXTS[:3])
    assert shown.code == 0 and "1.000" in shown.out and f"{vectors[0] @ vectors[1]:.3f}" in shown.out


def test_a_model_that_is_no_encoder_is_refused_before_anything_is_bought(here: Market) -> None:
    with pytest.raises(UsageError, match="embed"):
        here.buyer.embed(here.model(), ["x"])
    assert isinstance(here.buyer, cocoon.Client)
