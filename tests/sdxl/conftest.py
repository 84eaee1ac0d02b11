from support.miniature import engine, miniature, model_cache

__all__ = ["engine", "miniature", "model_cache"]
