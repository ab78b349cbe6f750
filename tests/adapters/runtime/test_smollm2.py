"""A published decoder, converted and asked: SmolLM2-135M-Instruct answers, alone and in company.

`make test-long` makes both environments and the package in build/smollm2.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "build" / "smollm2"
#: The package ``tokenizers`` lives there, and nowhere in the product.
CONVERT = ROOT / ".venv-convert" / "bin" / "python"
QUESTIONS = [
    "What is the capital of France?", "Name a colour.", "What is two plus two?", "Who wrote Hamlet?",
    "What is the opposite of hot?", "Say hello.", "What do cows drink?", "Is the sky blue?",
]
TEXTS = ["The quick brown fox", " 1234 \n\tx", "naïve café, 東京 🦊", "<|im_start|> is no text"]

TOKENIZE = """
import json, sys
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
print(json.dumps([tokenizer.encode(text).ids for text in json.load(sys.stdin)]))
"""

pytestmark = pytest.mark.long


def prompt(question):
    """One turn of a conversation, as the package's template writes it, without its line about who answers."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def asked(program, *arguments, told):
    """What a program answers, JSON both ways."""
    done = subprocess.run([*program, *map(str, arguments)], cwd=ROOT, input=json.dumps(told), capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tokens(texts):
    return asked([CONVERT, "-c", TOKENIZE], PACKAGE / "tokenizer.json", told=texts)


@pytest.fixture(scope="module")
def found():
    """What ``smollm2.py`` found for all questions."""
    program = [sys.executable, "-m", "tests.adapters.runtime.smollm2"]
    return asked(program, PACKAGE, told=tokens([prompt(question) for question in QUESTIONS]))


def test_the_capital_of_france_is_paris(found):
    answer = found["alone"][0]
    assert answer["text"] == "The capital of France is Paris."
    assert answer["reason"] == "stop_token"


def test_eight_together_on_four_rows_say_what_each_says_alone(found):
    assert found["together"] == found["alone"]


def test_an_answer_ends_before_a_stop_text_that_ends_inside_a_token(found):
    assert found["stopped"]["text"] == "The capital of France" and found["stopped"]["reason"] == "stop_text"


def test_one_seed_gives_one_answer(found):
    first, second = found["sampled"]
    assert first == second and first["tokens"]


def test_the_bytes_of_tokens_are_the_text_that_the_tokenizer_was_given():
    from cocoon.wire.tokens import unpack_pieces

    pieces = unpack_pieces((PACKAGE / "tokens.bin").read_bytes())
    for text, ids in zip(TEXTS, tokens(TEXTS), strict=True):
        assert b"".join(pieces[token] for token in ids).decode() == text.replace("<|im_start|>", "")
