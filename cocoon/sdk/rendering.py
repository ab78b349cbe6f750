"""Chat templates of strangers, written out in a process that may use little: one can loop, or grow, within one line.

A sandbox keeps a template from what it must not touch, not from time and memory.
The process gets the template and the conversation as JSON, and gives text or a cause.

Purity: shell. Spec: docs/spec/tokens.md, rule TOK-28.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cocoon.core.children import child_environment
from cocoon.core.errors import ModelRefused
from cocoon.core.limits import TEMPLATE_CHARS, TEMPLATE_CPU_S, TEMPLATE_MEMORY_BYTES, TEMPLATE_NS
from cocoon.core.units import SECOND_NS, format_bytes

#: Who speaks, and what is said: ``{"role": "user", "content": "..."}``.
Turn = Mapping[str, str]


def render(template: str, turns: Sequence[Turn]) -> str:
    """The conversation as the template writes it, and the beginning of an answer.

    Raises:
        ModelRefused: it does not work, writes far too much, or takes too much time or memory.
    """
    order = {
        "template": template, "turns": [dict(turn) for turn in turns],
        "most_chars": TEMPLATE_CHARS + 2 * sum(len(turn["content"]) for turn in turns),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], input=json.dumps(order).encode(), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=child_environment(("PYTHONPATH",), {}), check=False,
            timeout=TEMPLATE_NS / SECOND_NS,
        )
    except subprocess.TimeoutExpired:
        raise ModelRefused(f"the chat template of this decoder takes more than {TEMPLATE_NS // SECOND_NS} s") from None
    if done.returncode:
        most = f"{TEMPLATE_CPU_S} s of the processor or {format_bytes(TEMPLATE_MEMORY_BYTES)}"
        raise ModelRefused(f"the chat template of this decoder takes more than {most}")
    said = json.loads(done.stdout)
    if "flaw" in said:
        raise ModelRefused(f"the chat template of this decoder {said['flaw']}"[:200])
    return str(said["written"])


def _written(order: dict[str, Any]) -> dict[str, str]:
    """What the process answers."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        written = sandbox.from_string(order["template"]).render(messages=order["turns"], add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        return {"flaw": f"does not work: {error}"}
    if len(written) > order["most_chars"]:
        return {"flaw": f"writes {len(written)} characters"}
    return {"written": written}


def main() -> None:
    """Answer the one order on stdin."""
    resource.setrlimit(resource.RLIMIT_CPU, (TEMPLATE_CPU_S, TEMPLATE_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (TEMPLATE_MEMORY_BYTES, TEMPLATE_MEMORY_BYTES))
    print(json.dumps(_written(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
