"""TOK-17 to TOK-23: a decoder in its confined worker makes the tokens that plain formulas make, one turn at a time."""

import numpy as np
import pytest

from cocoon.convert import tiny
from cocoon.core.errors import CocoonError, InputsMismatch, LimitExceeded, ModelRefused
from cocoon.core.limits import LEASE_SEQUENCES, SPOKEN_ROWS
from cocoon.core.units import MIB
from cocoon.core.values import replace
from cocoon.wire.generation import Ask, ask_tensors, read_said
from cocoon.wire.tensors import decode_tensors, encode_tensors
from cocoon.wire.tokens import first_head, next_head, pack_pieces
from tests import decoders
from tests.adapters.runtime.conftest import LIMITS
from tests.models import adder_model

PIECES = tuple(bytes([97 + token % 26]) for token in range(tiny.SIZES.vocabulary))
PROMPTS = [tuple(np.random.default_rng(length).integers(0, 512, length).tolist()) for length in (3, 1, 40, 9)]
MOST = 6


def said_by_formulas(prompt, most=MOST):
    """The most likely tokens, computed without a cache and without ONNX Runtime."""
    tokens = list(prompt)
    for _ in range(most):
        tokens.append(int(decoders.logits(tiny.SIZES, tiny.weights(), tokens).argmax()))
    return tokens[len(prompt) :]


def asking(prompt, most=MOST, **more):
    return encode_tensors(ask_tensors(Ask(prompt, most, **more)))


class Heard:
    """What a worker told, by number of the sequence."""

    def __init__(self):
        self.tokens, self.heads, self.ends = {}, {}, {}

    def take(self, report):
        for number, place, token, head in report.told:
            assert place == len(self.tokens.setdefault(number, [])) + 1 and number not in self.ends
            self.tokens[number].append(token)
            self.heads[number] = head
        for number, end in report.ended:
            assert number not in self.ends
            self.ends[number] = end if isinstance(end, CocoonError) else read_said(decode_tensors(end.outputs))


@pytest.fixture
async def decoder(start, model_file):
    """A worker with the tiny decoder."""
    worker = await start()
    await worker.load(model_file(tiny.tiny_decoder()), model_file(pack_pieces(PIECES), "tokens.bin"))
    return worker


async def until_ended(worker, asked, heard=None):
    heard = heard or Heard()
    heard.take(await worker.turn([(number, 1, payload) for number, payload in asked.items()]))
    while heard.ends.keys() < asked.keys():
        heard.take(await worker.turn([]))
    return heard


async def test_sequences_together_are_those_of_the_formulas_each_with_its_hash(decoder):
    heard = await until_ended(decoder, {number: asking(prompt) for number, prompt in enumerate(PROMPTS, start=7)})
    for number, prompt in enumerate(PROMPTS, start=7):
        due = said_by_formulas(prompt)
        assert heard.tokens[number] == due
        head = first_head(prompt)
        for token in due:
            head = next_head(head, token)
        end = heard.ends[number]
        assert (end.tokens, end.head, end.reason) == (tuple(due), head, "length") and heard.heads[number] == head
        assert end.text_bytes == len(due)


async def test_a_cancelled_sequence_tells_nothing_more_and_others_go_on(decoder):
    heard = Heard()
    heard.take(await decoder.turn([(1, 1, asking(PROMPTS[0], 80)), (2, 1, asking(PROMPTS[1]))]))
    while 2 not in heard.tokens or 1 not in heard.tokens:
        heard.take(await decoder.turn([]))
    told = len(heard.tokens[1])
    heard.take(await decoder.turn([], [1]))
    assert heard.ends[1].reason == "cancelled"
    assert len(heard.tokens[1]) == len(heard.ends[1].tokens) == told, "the token that was under way is not told"
    while 2 not in heard.ends:
        heard.take(await decoder.turn([]))
    assert heard.tokens[2] == said_by_formulas(PROMPTS[1])
    assert not (await decoder.turn([])).told


@pytest.mark.parametrize(("tensors", "error"), [
    ({"prompt": np.array([1, 2])}, InputsMismatch),
    ({"prompt": np.array([1]), "most_tokens": np.array(1), "x": np.array(1)}, InputsMismatch),
    ({"prompt": np.array([[1]]), "most_tokens": np.array(1)}, InputsMismatch),
    ({"prompt": np.array([1.0]), "most_tokens": np.array(1)}, InputsMismatch),
    ({"prompt": np.array([512]), "most_tokens": np.array(1)}, InputsMismatch),
    ({"prompt": np.array([], np.int64), "most_tokens": np.array(1)}, InputsMismatch),
    ({"prompt": np.array([1]), "most_tokens": np.array(1 << 40)}, LimitExceeded),
])
async def test_what_is_no_request_is_refused_and_the_worker_goes_on(decoder, tensors, error):
    report = await decoder.turn([(3, 1, encode_tensors(tensors)), (4, 1, b"\xff")])
    ends = dict(report.ended)
    assert isinstance(ends[3], error) and isinstance(ends[4], CocoonError)
    assert (await until_ended(decoder, {5: asking(PROMPTS[1])})).tokens[5] == said_by_formulas(PROMPTS[1])


async def test_more_sequences_than_rows_all_end_and_more_than_the_limit_are_refused(decoder):
    asked = {number: asking(PROMPTS[1], 2) for number in range(1, 3 * SPOKEN_ROWS + 1)}
    heard = await until_ended(decoder, asked)
    assert {tuple(tokens) for tokens in heard.tokens.values()} == {tuple(said_by_formulas(PROMPTS[1], 2))}
    report = await decoder.turn([(number, 1, asking(PROMPTS[1], 2)) for number in range(100, 101 + LEASE_SEQUENCES)])
    assert [(number, end.code) for number, end in report.ended] == [(100 + LEASE_SEQUENCES, "limit_exceeded")]


async def test_a_model_that_is_no_decoder_or_has_other_tokens_is_refused(start, model_file):
    for model, pieces in ((adder_model(), PIECES), (tiny.tiny_decoder(), PIECES[:-1])):
        worker = await start()
        with pytest.raises(ModelRefused):
            await worker.load(model_file(model), model_file(pack_pieces(pieces), "tokens.bin"))
    worker = await start()
    with pytest.raises(CocoonError, match="no list of the bytes"):
        await worker.load(model_file(tiny.tiny_decoder()), model_file(b"\0\5ab", "tokens.bin"))


async def test_a_sequence_that_no_row_has_room_for_is_refused(start, model_file):
    worker = await start(replace(LIMITS, memory_bytes=64 * MIB))
    await worker.load(model_file(tiny.tiny_decoder()), model_file(pack_pieces(PIECES), "tokens.bin"))
    report = await worker.turn([(1, 1, asking((1,), 100_000))])
    assert dict(report.ended)[1].code == "limit_exceeded"
