"""Puts the gRPC front together."""

from __future__ import annotations

from ourvidz.api.admin.v1 import admin_pb2_grpc
from ourvidz.api.assets.v1 import assets_pb2_grpc
from ourvidz.api.jobs.v1 import jobs_pb2_grpc
from ourvidz_gateway.front import Front
from ourvidz_gateway.rpc import admin, assets, jobs
from ourvidz_serving.server import Server

SERVICES = (jobs.SERVICE, assets.SERVICE, admin.SERVICE)


def add_services(server: Server, front: Front) -> None:
    """Let a server that has not started serve the front; health says that it serves once `set_serving` does."""
    jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs.JobServicer(front), server.grpc)
    assets_pb2_grpc.add_AssetServiceServicer_to_server(assets.AssetServicer(front), server.grpc)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(admin.AdminServicer(front), server.grpc)
    for service in SERVICES:
        server.add_service(service)
