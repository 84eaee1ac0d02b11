"""Makes one of each of the ten job types over gRPC: `OURVIDZ_TOKEN=$(ourvidz token demo) python examples/all_types.py`."""

import os

import grpc

from ourvidz.api.jobs.v1 import jobs_pb2 as jobs
from ourvidz.api.jobs.v1.jobs_pb2_grpc import JobServiceStub

TYPES = [
    "sdxl_image_fast",
    "sdxl_image_high",
    "image_fast",
    "image_high",
    "video_fast",
    "video_high",
    "image7b_fast_enhanced",
    "image7b_high_enhanced",
    "video7b_fast_enhanced",
    "video7b_high_enhanced",
]

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
