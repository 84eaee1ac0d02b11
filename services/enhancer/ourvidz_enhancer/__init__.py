"""The enhancer: a server that rewrites prompts with a Qwen language model."""
