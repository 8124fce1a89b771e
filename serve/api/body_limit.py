"""ASGI middleware that refuses a body that is too large before it has been read whole.

A declared length over the limit is refused at once; an undeclared one is counted as it arrives.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_FILE_BYTES = 32 * 2**20
MAX_BODY_BYTES = MAX_FILE_BYTES + 256 * 1024
"""Of a multipart body: the file, the fields and the framing."""
MAX_JSON_BYTES = 32 * 1024
"""Of an operator's body, which is read before the key is checked."""


class BodyTooLargeError(ValueError):
    """The body grew over the limit while it arrived; the app answers 413."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes:,} bytes")
        self.limit_bytes = limit_bytes


class BodyLimit:
    def __init__(self, app: ASGIApp, limit_bytes: int, of_json_bytes: int | None = None) -> None:
        """Args:
        limit_bytes: of a multipart body.
        of_json_bytes: of all others; default: the same.
        """
        self.app = app
        self._of_multipart = limit_bytes
        self._of_others = limit_bytes if of_json_bytes is None else of_json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        limit = self._of_multipart if kind.lower().startswith(b"multipart/") else self._of_others
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        too_large = declared.isdigit() and int(declared) > limit
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            if too_large:
                raise BodyTooLargeError(limit)
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > limit:
                raise BodyTooLargeError(limit)
            return message

        await self.app(scope, counted, send)
