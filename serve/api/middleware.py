"""ASGI middleware that gives each request an id; the limit of bodies is `serve.api.body_limit`."""

import re
import uuid

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = re.compile(r"[0-9A-Fa-f-]{16,64}")
"""What a caller's own id may be: a UUID or another hexadecimal number, which cannot be a person's name."""


class RequestId:
    """Gives each request an id and sends it back as `X-Request-Id`.

    A caller's own id is kept if it is hexadecimal: ids are logged and stored, and free text could be a name. Under Ray
    Serve every request has one, from HAProxy at the latest, and Serve sends it back itself.
    """

    def __init__(self, app: ASGIApp, server_echoes: bool) -> None:
        self.app = app
        self.server_echoes = server_echoes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        plain = REQUEST_ID.fullmatch(given) is not None
        request_id = given if plain else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start" and not (plain and self.server_echoes):
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        await self.app(scope, receive, with_id)
