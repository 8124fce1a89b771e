"""ASGI middleware that refuses a body that is too large before it has been read whole.

A declared length over the limit is refused at once; an undeclared one is counted as it arrives.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyTooLargeError(ValueError):
    """The body grew over the limit while it arrived; the app answers 413."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes:,} bytes")
        self.limit_bytes = limit_bytes


class BodyLimit:
    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        too_large = declared.isdigit() and int(declared) > self.limit_bytes
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            if too_large:
                raise BodyTooLargeError(self.limit_bytes)
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self.limit_bytes:
                raise BodyTooLargeError(self.limit_bytes)
            return message

        await self.app(scope, counted, send)
