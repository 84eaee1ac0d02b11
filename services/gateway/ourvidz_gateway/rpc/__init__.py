"""The gRPC front: backend services' view of jobs and of users' files, and the operators'."""

from ourvidz_gateway.rpc.server import SERVICES, add_services

__all__ = ["SERVICES", "add_services"]
