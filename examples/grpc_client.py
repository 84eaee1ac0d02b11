"""Asks for a picture over gRPC and follows it: `OURVIDZ_TOKEN=$(ourvidz token demo) python examples/grpc_client.py`."""

import os

import grpc

from ourvidz.api.jobs.v1 import jobs_pb2 as jobs
from ourvidz.api.jobs.v1.jobs_pb2_grpc import JobServiceStub

metadata = [("authorization", f"Bearer {os.environ['OURVIDZ_TOKEN']}")]
with grpc.insecure_channel(os.environ.get("OURVIDZ_GRPC", "127.0.0.1:50051")) as channel:
    service = JobServiceStub(channel)
    request = jobs.CreateJobRequest(job_type="sdxl_image_fast", prompt="a lighthouse at dawn", seed=2026)
    job = service.CreateJob(request, metadata=metadata).job
    for event in service.WatchJob(jobs.WatchJobRequest(job_id=job.id), metadata=metadata):
        print(f"{event.progress_percent} %")
    job = service.GetJob(jobs.GetJobRequest(job_id=job.id), metadata=metadata).job
    print(jobs.JobState.Name(job.state), *(asset.url for asset in job.assets))
