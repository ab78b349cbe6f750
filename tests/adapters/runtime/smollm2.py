"""What a published decoder says: a program, because onnxruntime may not come after tonpy in one process.

usage: smollm2.py FOLDER   (stdin: JSON list of prompts as tokens; stdout: JSON list of what was found, a prompt each)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cocoon.core.ids import LeaseId
from cocoon.core.units import GIB
from cocoon.runtime import screen, session
from cocoon.runtime.decoder import Decoder
from cocoon.runtime.generating import EndSequence, SequenceAsked, TellToken
from cocoon.runtime.generator import Generator
from cocoon.runtime.sequences import GREEDY, Sampling, Sequence
from cocoon.wire.tokens import unpack_pieces

CAPACITY = 256
MOST = 24
#: Of the second question asked again: it stops in the middle of a token's text.
STOP_TEXT = b" is Par"
WARM = Sampling(temperature_ppm=700_000, top_tokens=40, top_share_ppm=950_000, seed=5)


Asked = tuple[list[int], Sampling, tuple[bytes, ...]]


def run(decoder: Decoder, pieces: tuple[bytes, ...], stop: int, asked: dict[int, Asked]) -> dict[int, dict[str, Any]]:
    """Tokens and end of each of these, asked for together: (prompt, sampling, stop texts) by number."""
    generator = Generator(decoder, pieces)
    for number, (prompt, sampling, texts) in asked.items():
        wanted = Sequence((LeaseId(bytes(32)), number), tuple(prompt), MOST, frozenset([stop]), texts, sampling)
        generator.tell(0, SequenceAsked(wanted))
    found: dict[int, dict[str, Any]] = {number: {"tokens": []} for number in asked}
    while generator.busy:
        for effect in generator.turn(0):
            if isinstance(effect, TellToken):
                found[effect.sequence[1]]["tokens"].append(effect.record.token)
            if isinstance(effect, EndSequence):
                text = b"".join(pieces[token] for token in found[effect.sequence[1]]["tokens"])
                found[effect.sequence[1]]["text"] = text[: effect.text_bytes].decode()
                found[effect.sequence[1]]["reason"] = effect.reason.value
    return found


def main(folder: Path) -> None:
    """Each prompt alone, all together on fewer rows, and variants of the first."""
    told = json.loads((folder / "decoder.json").read_text(encoding="utf-8"))
    pieces = unpack_pieces((folder / "tokens.bin").read_bytes())
    data = (folder / "model.onnx").read_bytes()
    model = session.Model(data, screen.screen(data), session.CPU, 1, GIB)
    decoder, (stop,) = Decoder(model, 4, CAPACITY), told["stop_tokens"]
    prompts = json.load(sys.stdin)
    plain = {number: (prompt, GREEDY, ()) for number, prompt in enumerate(prompts)}
    print(json.dumps({
        "alone": [run(decoder, pieces, stop, {number: plain[number]})[number] for number in plain],
        "together": list(run(decoder, pieces, stop, plain).values()),
        "stopped": run(decoder, pieces, stop, {0: (prompts[0], GREEDY, (STOP_TEXT,))})[0],
        "sampled": [run(decoder, pieces, stop, {0: (prompts[0], WARM, ())})[0] for _ in range(2)],
    }))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
