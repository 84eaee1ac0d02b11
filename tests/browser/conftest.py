from __future__ import annotations

from support.browser import async_page, page

__all__ = ["async_page", "page"]
