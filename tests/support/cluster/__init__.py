"""The whole system as processes of their own, with engines that paint instead of rendering.

Everything but the models is real: gateways, render and enhance servers with their engine processes, PostgreSQL, object
storage, webhooks. What the engines do is written in each job's prompt; see `support.fake_engine`.
"""
