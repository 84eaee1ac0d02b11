from support.miniature import engine, miniature, model_cache
from support.wan import miniature_wan, miniature_wan_vace, wan_cache

__all__ = ["engine", "miniature", "miniature_wan", "miniature_wan_vace", "model_cache", "wan_cache"]
