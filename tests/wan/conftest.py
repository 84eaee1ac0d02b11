from support.wan import miniature_wan, miniature_wan_vace, wan_cache, wan_engine

__all__ = ["miniature_wan", "miniature_wan_vace", "wan_cache", "wan_engine"]
