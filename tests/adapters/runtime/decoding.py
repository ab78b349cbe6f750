"""What decoding does on real sessions: a program, because onnxruntime may not come after tonpy in one process.

Prints one JSON object: by name of the model, what was found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from cocoon.convert import tiny
from cocoon.convert.weights import Blocks, Sizes, numbers, quantise
from cocoon.core.errors import CocoonError
from cocoon.core.ids import LeaseId
from cocoon.core.units import GIB
from cocoon.core.values import replace
from cocoon.runtime import screen, session
from cocoon.runtime.decoder import Decoder
from cocoon.runtime.generating import EndSequence, SequenceAsked, SequenceCancelled, TellToken
from cocoon.runtime.generator import Generator
from cocoon.runtime.sequences import GREEDY, Sampling, Sequence
from tests import decoders
from tests.models import adder_model

CAPACITY = 100
PIECES = [bytes([97 + token % 26]) for token in range(tiny.SIZES.vocabulary)]
HALVES = replace(tiny.SIZES, interleaved=False)
#: Prompts of unequal lengths, and longer than a piece.
PROMPTS = [np.random.default_rng(length).integers(0, 512, length).tolist() for length in (1, 3, 17, 9, 70)]
#: Fed to every prompt, whatever the model would say.
ANSWER = [5, 300, 7, 511, 0, 42, 42, 9]


@dataclass
class Subject:
    """One model, and decoders of it."""

    model: session.Model

    @classmethod
    def of(cls, data: bytes) -> Subject:
        return cls(session.Model(data, screen.screen(data), session.CPU, 1, GIB))

    def decoder(self, rows: int = 1) -> Decoder:
        return Decoder(self.model, rows, CAPACITY)

    def whole(self, tokens: list[int]) -> np.ndarray:
        """Logits behind tokens that are read at once."""
        return self.decoder().read(0, tokens).copy()

    def stepped(self, prompt: list[int], answer: list[int]) -> list[np.ndarray]:
        """Logits behind the prompt, and behind each token of the answer."""
        decoder = self.decoder()
        return [decoder.read(0, prompt).copy(), *(decoder.step([(0, token)])[0].copy() for token in answer)]


def far(one: Any, other: Any) -> float:
    """Largest difference."""
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max())


def against_formulas(subject: Subject, sizes: Sizes, weights: dict[str, np.ndarray]) -> float:
    """Largest difference of the graph from plain numpy, over prompts and steps."""
    found = []
    for prompt in PROMPTS:
        for count, got in enumerate(subject.stepped(prompt, ANSWER)):
            found.append(far(got, decoders.logits(sizes, weights, prompt + ANSWER[:count])))
    return max(found)


def steps_against_whole(subject: Subject) -> float:
    """Largest difference between logits step by step and of everything read at once."""
    return max(
        far(got, subject.whole(prompt + ANSWER[:count]))
        for prompt in PROMPTS
        for count, got in enumerate(subject.stepped(prompt, ANSWER))
    )


def pieces_against_whole(subject: Subject) -> float:
    """The same for a prompt in pieces of 1, 7 and the rest."""
    decoder, prompt = subject.decoder(), PROMPTS[-1]
    decoder.read(0, prompt[:1])
    decoder.read(0, prompt[1:8])
    return far(decoder.read(0, prompt[8:]), subject.whole(prompt))


def company(subject: Subject) -> float:
    """Largest difference between a row alone and beside four others, in rows that held longer sequences before."""
    decoder = subject.decoder(rows=len(PROMPTS))
    for row in range(len(PROMPTS)):
        decoder.read(row, [500 - row] * 90)
        decoder.begin(row)
    for row, prompt in enumerate(PROMPTS):
        decoder.read(row, prompt)
    found = []
    alone = [subject.stepped(prompt, ANSWER)[1:] for prompt in PROMPTS]
    for count, token in enumerate(ANSWER):
        together = decoder.step([(row, token) for row in range(len(PROMPTS))])
        found += [far(together[row], alone[row][count]) for row in range(len(PROMPTS))]
    return max(found)


def between(subject: Subject) -> float:
    """The same for the first and the last row alone: the rows between, one of them half read, are computed along."""
    decoder = subject.decoder(rows=4)
    decoder.read(0, PROMPTS[1])
    decoder.read(3, PROMPTS[2])
    decoder.read(1, PROMPTS[3][:4])
    alone = [subject.stepped(PROMPTS[number], ANSWER)[1:] for number in (1, 2)]
    found = []
    for count, token in enumerate(ANSWER):
        both = decoder.step([(0, token), (3, token)])
        found += [far(both[place], alone[place][count]) for place in (0, 1)]
    return max(*found, far(decoder.read(1, PROMPTS[3][4:]), subject.whole(PROMPTS[3])))


def generated(subject: Subject, rows: int, numbers: list[int], sampling: Sampling = GREEDY) -> dict[int, list[int]]:
    """Tokens of these sequences, asked for together."""
    generator = Generator(subject.decoder(rows), PIECES)
    for number in numbers:
        generator.tell(0, SequenceAsked(sequence(number, sampling)))
    found: dict[int, list[int]] = {}
    while generator.busy:
        for effect in generator.turn(0):
            if isinstance(effect, TellToken):
                found.setdefault(effect.sequence[1], []).append(effect.record.token)
    return found


def sequence(number: int, sampling: Sampling = GREEDY) -> Sequence:
    """Eight different ones; each has a seed of its own."""
    prompt = tuple(PROMPTS[number % len(PROMPTS)]) + (number,)
    return Sequence((LeaseId(bytes(32)), number), prompt, 6 + number, sampling=replace(sampling, seed=number))


def loop(subject: Subject) -> dict[str, Any]:
    """Eight sequences on three rows, and each of them alone."""
    warm = Sampling(800_000, 40, 950_000)
    numbers = list(range(8))
    return {
        name: [generated(subject, 3, numbers, how), {n: generated(subject, 1, [n], how)[n] for n in numbers}]
        for name, how in (("greedy", GREEDY), ("sampled", warm))
    }


def cancelled(subject: Subject) -> dict[str, Any]:
    """Two sequences, one of them cancelled after four turns."""
    generator = Generator(subject.decoder(2), PIECES)
    for number in (6, 7):
        generator.tell(0, SequenceAsked(sequence(number)))
    told = [effect for _ in range(4) for effect in generator.turn(0)]
    told += generator.tell(0, SequenceCancelled(sequence(6).id))
    before = sum(isinstance(effect, TellToken) and effect.sequence[1] == 6 for effect in told)
    while generator.busy:
        told += generator.turn(0)
    return {
        "before": before,
        "told": sum(isinstance(effect, TellToken) and effect.sequence[1] == 6 for effect in told),
        "ends": {effect.sequence[1]: effect.reason.value for effect in told if isinstance(effect, EndSequence)},
    }


def refusals(subject: Subject) -> dict[str, str]:
    """Codes of what a decoder refuses."""
    adder = adder_model()
    other = session.Model(adder, screen.screen(adder), session.CPU, 1, GIB)
    attempts = {
        "no decoder": lambda: Decoder(other, 1, 10),
        "no rows": lambda: Decoder(subject.model, 0, 10),
        "too many rows": lambda: Decoder(subject.model, 65, 10),
        "too long": lambda: Decoder(subject.model, 1, 1 << 20),
        "full": lambda: subject.decoder().read(0, [1] * (CAPACITY + 1)),
        "no such token": lambda: subject.decoder().read(0, [512]),
        "other pieces": lambda: Generator(subject.decoder(), PIECES[:-1]),
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except CocoonError as error:
            found[name] = error.code
    return found


def main() -> None:
    """Float32, 8-bit blocks, float32 whose rotary halves turn together, and with logits of every position."""
    weights = tiny.weights()
    blocks = {name: numbers(_stored(array)) for name, array in weights.items()}
    found: dict[str, Any] = {}
    for name, data, sizes, known in (
        ("exact", tiny.tiny_decoder(), tiny.SIZES, weights),
        ("blocks", tiny.tiny_decoder(exact=False), tiny.SIZES, blocks),
        ("halves", tiny.tiny_decoder(HALVES), HALVES, weights),
        ("positions", all_positions(), tiny.SIZES, weights),
    ):
        subject = Subject.of(data)
        found[name] = {
            "bytes": len(data), "formulas": against_formulas(subject, sizes, known),
            "steps": steps_against_whole(subject), "pieces": pieces_against_whole(subject),
            "company": company(subject), "between": between(subject), "loop": loop(subject),
            "cancelled": cancelled(subject), "refusals": refusals(subject),
        }
    print(json.dumps(found))


def all_positions() -> bytes:
    """The tiny decoder with logits of every position, as onnxruntime-genai makes them."""
    model = onnx.load_from_string(tiny.tiny_decoder())
    (last,) = (node for node in model.graph.node if node.output[0] == "last_state")
    (calm,) = (node for node in model.graph.node if node.output[0] == "output_norm")
    calm.input[0] = last.input[0]
    model.graph.node.remove(last)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "sequence"
    return bytes(model.SerializeToString())


def _stored(array: np.ndarray) -> np.ndarray | Blocks:
    return quantise(array) if array.ndim == 2 else array


if __name__ == "__main__":
    main()
