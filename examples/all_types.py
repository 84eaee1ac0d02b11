"""Makes one of each of the ten job types over gRPC: `OURVIDZ_TOKEN=$(ourvidz token demo) python examples/all_types.py`."""

import os

import grpc

from ourvidz.api.jobs.v1 import jobs_pb2 as jobs
from ourvidz.api.jobs.v1.jobs_pb2_grpc import JobServiceStub

KINDS = (("sdxl_image", ""), ("image", ""), ("video", ""), ("image7b", "_enhanced"), ("video7b", "_enhanced"))
TYPES = [f"{kind}_{speed}{enhanced}" for kind, enhanced in KINDS for speed in ("fast", "high")]

metadata = [("authorization", f"Bearer {os.environ['OURVIDZ_TOKEN']}")]
with grpc.insecure_channel(os.environ.get("OURVIDZ_GRPC", "127.0.0.1:50051")) as channel:
    service = JobServiceStub(channel)
    # All of them wait in the queue at once; each kind of renderer takes its own.
    made = [
        service.CreateJob(jobs.CreateJobRequest(job_type=name, prompt="a lighthouse at dawn"), metadata=metadata).job
        for name in TYPES
    ]
    for job in made:
        for _ in service.WatchJob(jobs.WatchJobRequest(job_id=job.id), metadata=metadata):
            pass
        done = service.GetJob(jobs.GetJobRequest(job_id=job.id), metadata=metadata).job
        print(done.job_type, jobs.JobState.Name(done.state), *(asset.url for asset in done.assets))
