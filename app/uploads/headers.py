"""Tus-Resumable on every answer under ``/v1/uploads``, as the protocol wants it, whoever gives the answer."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.uploads.tus import VERSION


class TusHeaders:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        is_upload = scope["type"] == "http" and scope["path"].startswith(self.prefix)
        await self.app(scope, receive, marked if is_upload else send)
