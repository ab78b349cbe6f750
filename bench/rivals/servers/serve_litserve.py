"""LitServe with raw bodies and one worker; its body parameter is FastAPI's, which takes bytes as they are.

usage: python -m bench.rivals.servers.serve_litserve PORT

Purity: shell.
"""

import sys
from typing import Annotated

import litserve
from fastapi import Body, Response

from bench.rivals.servers.engine import open_model

# No postponed annotations: LitServe hands these to FastAPI as they are.
RawBody = Annotated[bytes, Body(media_type="application/octet-stream")]


class Relu(litserve.LitAPI):
    """One model, one run a request."""

    def setup(self, device):
        """Open the session in the worker."""
        self._run = open_model()

    def decode_request(self, request: RawBody):
        """The bytes themselves."""
        return request

    def predict(self, x):
        """Run once."""
        return self._run(x)

    def encode_response(self, output) -> Response:
        """The bytes themselves."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Relu(api_path="/relu"), accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False)
