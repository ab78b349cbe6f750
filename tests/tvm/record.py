"""Write the recorded story anew: ``python -m tests.tvm.record``, after a contract changed."""

from __future__ import annotations

import json

from tests.tvm.story import summary, tell
from tests.tvm.test_recorded import RECORDED

if __name__ == "__main__":
    RECORDED.write_text(json.dumps(summary(tell()), indent=1) + "\n", encoding="utf-8")
