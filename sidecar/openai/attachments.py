"""Images and PDFs in content parts: `image_url` and `file` of chats, `input_image` and `input_file` of responses."""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from ...core.errors import UserError
from ...core.messages import Attachment, AttachmentKind

if TYPE_CHECKING:
    from .requests import ContentPart

KINDS: dict[str, AttachmentKind] = {"image_url": "image", "input_image": "image", "file": "file", "input_file": "file"}
"""What a part has, by its type."""
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[^;,]*)*;base64,", re.ASCII | re.IGNORECASE)


def read_attachment(part: ContentPart, location: str) -> Attachment:
    """The attachment of a content part.

    The server opens no address: an `https` one is passed on to the provider.

    Raises:
        UserError: It has neither content nor an address, its content is no image or PDF, or it is a file's id.
    """
    kind = KINDS[part.type]
    named = part.file or part
    address = (part.image_url if isinstance(part.image_url, str) else getattr(part.image_url, "url", "")) or ""
    if kind == "file":
        if named.file_id:
            raise UserError(
                "the server keeps no files", hint="send the content as file_data", param=f"{location}.file_id"
            )
        address = named.file_data or part.file_url or ""
    detail = (part.detail if isinstance(part.image_url, str) else getattr(part.image_url, "detail", None)) or ""
    is_data = _DATA_URL.match(address)
    if address.startswith("https://") and kind == "image":
        return Attachment.at(address, kind, detail=detail[:20])
    if not is_data and not (kind == "file" and named.file_data):
        raise UserError(
            f"a content part of type {part.type} needs its content"
            if not address
            else f"the address of a {kind} is "
            f"neither a data URL{' nor https' if kind == 'image' else ''}: {address[:60]!r}",
            hint="send it as data:MEDIA_TYPE;base64,…",
            param=location,
        )
    try:
        content = binascii.a2b_base64(address[is_data.end() if is_data else 0 :].encode("ascii"), strict_mode=True)
        return Attachment.of(
            content,
            name=(named.filename or "")[:255],
            media_type=(is_data["type"] or "") if is_data else "",
            detail=detail[:20],
        )
    except (ValueError, UnicodeEncodeError) as e:
        said = "its content is no base64" if isinstance(e, binascii.Error | UnicodeEncodeError) else str(e)
        raise UserError(f"the {kind} cannot be read: {said}", param=location) from e
