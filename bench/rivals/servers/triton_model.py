"""The model in Triton's Python backend; with dynamic batching, requests that came together are one run.

Copied into a model repository by `bench.rivals.contest`; Triton's stub imports it.

Purity: shell.
"""

import numpy as np
import triton_python_backend_utils as triton

from bench.rivals.servers.engine import open_session


class TritonPythonModel:
    """One session."""

    def initialize(self, args):
        """Open the session in the stub's process."""
        self._session = open_session()

    def execute(self, requests):
        """One run for all of them."""
        rows = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        y = self._session.run(None, {"x": rows[0] if len(rows) == 1 else np.concatenate(rows)})[0]
        ends = np.cumsum([len(row) for row in rows])[:-1]
        return [triton.InferenceResponse([triton.Tensor("y", part)]) for part in np.split(y, ends)]
