"""BentoML with a mounted ASGI application, its documented way to take and give raw bytes; one worker.

usage: bentoml serve bench.rivals.servers.serve_bentoml:Relu --port PORT

Purity: shell.
"""

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.rivals.servers.engine import open_model


async def relu(request: Request) -> Response:
    """Run once."""
    body = await request.body()
    return Response(bentoml.get_current_service().run(body), media_type="application/octet-stream")


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(Starlette(routes=[Route("/relu", relu, methods=["POST"])]))
class Relu:
    """One model."""

    def __init__(self) -> None:
        self.run = open_model()
