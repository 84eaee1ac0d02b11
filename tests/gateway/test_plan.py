"""How a plan is put to a renderer."""

import json
from dataclasses import replace
from uuid import UUID

import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.plan import (
    Reference,
    ReferenceRole,
    ReferenceType,
    RenderPlan,
    StoredReference,
    plan_to_request,
    user_folder,
)
from support.jobs import new_job

JOB = UUID("0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53")


def request_for(job_type: str, **metadata):
    plan = RenderPlan.from_json(new_job(job_type=job_type, **metadata).request)
    return plan_to_request(plan, f"{JOB}/2", "alice", JOB, 2)


def test_images_are_asked_for_with_the_recipe_of_their_type():
    request = request_for("sdxl_image_fast", num_images=3, negative_prompt="fog")

    assert request.render_id == f"{JOB}/2"
    assert request.output == render_pb2.OutputLocation(
        bucket="sdxl-image-fast", prefix=f"alice/{JOB}/2", max_bytes=5 * 2**20
    )
    assert request.images == render_pb2.ImageBatch(
        sampling=render_pb2.Sampling(
            prompt="a lighthouse at dawn",
            negative_prompt="fog",
            step_count=20,
            guidance_scale=7.0,
            seed=7,
            sampler=render_pb2.SAMPLER_DPMPP_2M_KARRAS,
        ),
        width_px=1024,
        height_px=1024,
        image_count=3,
    )


def test_a_clip_is_asked_for_with_its_frames_and_duration():
    clip = request_for("video_high").clip

    assert (clip.width_px, clip.height_px, clip.frame_count) == (480, 832, 83)
    assert clip.duration.ToTimedelta().total_seconds() == 5.0
    assert (clip.sampling.sampler, clip.sampling.flow_shift) == (render_pb2.SAMPLER_UNIPC, 3.0)


def referring(job_type: str, *references: Reference, **values) -> render_pb2.RenderRequest:
    plan = RenderPlan.from_json(new_job(job_type=job_type).request)
    return plan_to_request(replace(plan, references=references, **values), f"{JOB}/2", "alice", JOB, 2)


def stored(role: ReferenceRole) -> Reference:
    key = f"alice/{role}.png"
    return Reference(role, "https://images.example.com/", stored=StoredReference("reference-images", key, "ab" * 32))


def source(role: ReferenceRole) -> render_pb2.ImageSource:
    return render_pb2.ImageSource(
        stored=render_pb2.StoredImage(bucket="reference-images", key=f"alice/{role}.png", sha256=b"\xab" * 32)
    )


@pytest.mark.parametrize(
    ("reference_type", "named"),
    [
        (ReferenceType.STYLE, render_pb2.REFERENCE_TYPE_STYLE),
        (ReferenceType.COMPOSITION, render_pb2.REFERENCE_TYPE_COMPOSITION),
        (ReferenceType.CHARACTER, render_pb2.REFERENCE_TYPE_CHARACTER),
    ],
)
def test_images_follow_their_reference(reference_type, named):
    request = referring(
        "sdxl_image_fast", stored(ReferenceRole.IMAGE), reference_type=reference_type, reference_strength=0.7
    )

    assert request.images.reference == render_pb2.ImageReference(
        source=source(ReferenceRole.IMAGE), type=named, influence=0.7
    )


def test_a_clip_is_given_the_frames_that_there_are():
    clip = referring("video_fast", stored(ReferenceRole.END_FRAME), reference_strength=0.0).clip

    assert not clip.HasField("start_frame")
    assert clip.end_frame == source(ReferenceRole.END_FRAME)
    assert clip.HasField("conditioning_scale")
    assert clip.conditioning_scale == 0.0


def test_both_frames_of_a_clip():
    clip = referring("video_fast", stored(ReferenceRole.START_FRAME), stored(ReferenceRole.END_FRAME)).clip

    assert (clip.start_frame, clip.end_frame) == (source(ReferenceRole.START_FRAME), source(ReferenceRole.END_FRAME))
    assert clip.conditioning_scale == 0.5


@pytest.mark.parametrize(
    ("job_type", "role"), [("sdxl_image_fast", ReferenceRole.IMAGE), ("video_fast", ReferenceRole.START_FRAME)]
)
def test_a_reference_that_could_not_be_had_is_left_out(job_type, role):
    missing = referring(job_type, Reference(role, "https://images.example.com/"))

    assert missing == referring(job_type)


def test_a_plan_with_references_survives_json():
    plan = replace(
        RenderPlan.from_json(new_job(job_type="video_fast").request),
        references=(stored(ReferenceRole.START_FRAME), Reference(ReferenceRole.END_FRAME, "https://x/", own_id="7")),
        reference_type=ReferenceType.CHARACTER,
    )

    assert RenderPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_render_goes_on_for_a_minute_without_its_gateway():
    request = request_for("image_fast")

    assert request.on_disconnect == render_pb2.ON_DISCONNECT_KEEP
    assert request.keep.seconds == 60


def test_a_plain_user_id_names_its_own_folder():
    assert user_folder("5d1e9a52-1a3c-4a0e-8f43-2f7d0f3f1b11") == "5d1e9a52-1a3c-4a0e-8f43-2f7d0f3f1b11"


@pytest.mark.parametrize("user_id", ["..", ".", "a/b", "auth0|123", "eve@example.com", "Zoë", "a b", "a\n", "x" * 200])
def test_an_odd_user_id_becomes_one_safe_segment(user_id):
    folder = user_folder(user_id)

    assert folder.startswith("sha256.")
    assert folder.removeprefix("sha256.").isalnum()
    assert folder == user_folder(user_id)


def test_no_user_can_take_the_id_of_anothers_folder():
    folder = user_folder("auth0|123")

    assert user_folder(folder) != folder
