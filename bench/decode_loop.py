"""The decode loop beside bare ones, on SmolLM2 and one thread: a program, for a process without the rest of the bench.

Ways take turns, and time is that of the CPU, so that what else the machine does weighs little. Prints JSON.

Purity: shell.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

from cocoon.core.ids import LeaseId
from cocoon.core.units import GIB, PPM
from cocoon.runtime import screen, session
from cocoon.runtime.decoder import Decoder
from cocoon.runtime.generating import SequenceAsked, TellToken
from cocoon.runtime.generator import Generator
from cocoon.runtime.sampling import choose
from cocoon.runtime.sequences import GREEDY, Sampling, Sequence

ROWS = (1, 8)
CAPACITY = 256
ROUNDS = 5
TOKENS = 32
PROMPT = tuple(range(1_000, 1_024))
PIECES = (16, 32, 64, 128)
SAMPLINGS = {
    "greedy": GREEDY,
    "top 40": Sampling(700_000, 40, PPM, 1),
    "share of 0.95": Sampling(PPM, 0, 950_000, 1),
    "all tokens": Sampling(PPM, 0, PPM, 1),
}


class Bench:
    """One session of the product's profile, and a bare one with the same options."""

    def __init__(self, folder: Path) -> None:
        """Load the package twice."""
        data = (folder / "model.onnx").read_bytes()
        self.told = json.loads((folder / "decoder.json").read_text(encoding="utf-8"))
        self.model = session.Model(data, screen.screen(data), session.CPU, 1, GIB)
        self.bare = ort.InferenceSession(data, session.options(1), providers=[session.CPU])
        self.decoder = Decoder(self.model, max(ROWS), CAPACITY)

    def ours(self, rows: int) -> float:
        """Tokens per second of the product's loop, records and all, behind the prompts."""
        generator = Generator(self.decoder, [b"."] * self.told["vocabulary"])
        for number in range(rows):
            wanted = Sequence((LeaseId(bytes(32)), number), PROMPT, 2 * TOKENS)
            generator.tell(0, SequenceAsked(wanted))
        firsts = 0
        while firsts < rows:                            # until every prompt is read
            firsts += sum(isinstance(e, TellToken) and e.record.number == 1 for e in generator.turn(0))
        began = time.process_time()
        for _ in range(TOKENS):
            generator.turn(0)
        return rows * TOKENS / (time.process_time() - began)

    def passing(self, rows: int, tokens: int = TOKENS, clock: Callable[[], float] = time.process_time) -> float:
        """The loop that people write: outputs of one call are the inputs of the next."""
        names = [f"{layer}.{part}" for layer in range(self.told["layers"]) for part in ("key", "value")]
        empty = np.zeros((rows, self.told["kv_heads"], 0, self.told["head_width"]), np.float32)
        outputs = ["logits", *(f"present.{name}" for name in names)]
        past, ids, seen = dict.fromkeys(names, empty), np.array([PROMPT] * rows), 0
        for step in range(tokens + 1):
            if step == 1:
                began = clock()
            seen += ids.shape[1]
            feeds = {"input_ids": ids, "attention_mask": np.ones((rows, seen), np.int64)}
            logits, *present = self.bare.run(outputs, {**feeds, **{f"past_key_values.{n}": a for n, a in past.items()}})
            past, ids = dict(zip(names, present, strict=True)), logits[:, -1].argmax(axis=-1)[:, None]
        return rows * tokens / (clock() - began)

    def in_place(self, rows: int) -> float:
        """The same with a cache in place by IO binding, all bound once: the least that a loop can do."""
        binding = self.bare.io_binding()
        form = (rows, self.told["kv_heads"], CAPACITY, self.told["head_width"])
        cache = {f"{layer}.{part}": np.zeros(form, np.float32)
                 for layer in range(self.told["layers"]) for part in ("key", "value")}
        for name, array in cache.items():
            _bind(binding.bind_input, f"past_key_values.{name}", array)
            _bind(binding.bind_output, f"present.{name}", array)
        logits = np.empty((rows, 1, self.told["vocabulary"]), np.float32)
        _bind(binding.bind_output, "logits", logits)
        ids, seen = np.array([PROMPT] * rows), 0
        for step in range(TOKENS + 1):
            if step == 1:
                began = time.process_time()
            seen += ids.shape[1]
            mask = np.ones((rows, seen), np.int64)
            _bind(binding.bind_input, "input_ids", ids)
            _bind(binding.bind_input, "attention_mask", mask)
            self.bare.run_with_iobinding(binding)
            ids = logits[:, -1].argmax(axis=-1)[:, None]
        return rows * TOKENS / (time.process_time() - began)

    def piece_ms(self, tokens: int) -> float:
        """Time to read so many tokens of a prompt."""
        self.decoder.begin(0)
        began = time.process_time()
        self.decoder.read(0, range(1_000, 1_000 + tokens))
        return (time.process_time() - began) * 1_000


def _bind(place: Callable[..., None], name: str, array: np.ndarray[Any, Any]) -> None:
    place(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def choosing_us(sampling: Sampling, vocabulary: int) -> float:
    """Time to choose one token from logits as flat as a real model's."""
    logits = np.random.default_rng(1).standard_normal(vocabulary).astype(np.float32) * np.float32(2.5)
    began = time.process_time()
    for number in range(1, 21):
        choose(logits, sampling, number)
    return (time.process_time() - began) / 20 * 1_000_000


def main(folder: Path) -> None:
    """Every way in turn, several times."""
    bench = Bench(folder)
    ways: dict[str, Callable[[int], float]] = {
        "in place": bench.in_place, "ours": bench.ours, "passing": bench.passing,
    }
    speeds: dict[str, list[float]] = {f"{name} {rows}": [] for name in ways for rows in ROWS}
    for _ in range(ROUNDS):
        for rows in ROWS:
            for name, way in ways.items():
                speeds[f"{name} {rows}"].append(way(rows))
    print(json.dumps({
        "tokens_per_s": {name: median(seen) for name, seen in speeds.items()},
        "piece_ms": {tokens: median(bench.piece_ms(tokens) for _ in range(ROUNDS)) for tokens in PIECES},
        "choosing_us": {name: choosing_us(how, bench.told["vocabulary"]) for name, how in SAMPLINGS.items()},
    }))


def on_demand(folder: Path) -> None:
    """Say ``ready``; then, for each line with numbers of rows and of tokens, the pace of the loop that people write."""
    bench = Bench(folder)
    print("ready", flush=True)
    for line in sys.stdin:
        rows, tokens = map(int, line.split())
        print(bench.passing(rows, tokens, time.perf_counter), flush=True)


if __name__ == "__main__":
    (on_demand if "on-demand" in sys.argv[2:] else main)(Path(sys.argv[1]))
