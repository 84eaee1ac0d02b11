from support.enhancer import engine, qwen2_cache

__all__ = ["engine", "qwen2_cache"]
