"""The gRPC front: backend services' view of jobs."""

from ourvidz_gateway.rpc.jobs import SERVICE, JobServicer

__all__ = ["SERVICE", "JobServicer"]
