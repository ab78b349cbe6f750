"""Ray Serve with one replica behind its HTTP proxy; raw bodies.

usage: python -m bench.rivals.servers.serve_ray PORT

Purity: shell.
"""

import signal
import sys

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from bench.rivals.servers.engine import open_model


@serve.deployment(num_replicas=1, max_ongoing_requests=128)
class Relu:
    """One model."""

    def __init__(self) -> None:
        self._run = open_model()

    async def __call__(self, request: Request) -> Response:
        """Run once."""
        return Response(self._run(await request.body()), media_type="application/octet-stream")


def main() -> None:
    """Serve until the bench ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, object_store_memory=256 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Relu.bind(), route_prefix="/relu")
    signal.pause()


if __name__ == "__main__":
    try:
        main()
    finally:
        ray.shutdown()
