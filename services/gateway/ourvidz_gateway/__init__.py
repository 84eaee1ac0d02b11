"""The gateway: takes jobs over REST and gRPC, keeps them in a durable queue, and hands them to renderers."""
