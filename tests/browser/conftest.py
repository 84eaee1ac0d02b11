from __future__ import annotations

from support.browser import page

__all__ = ["page"]
