"""What admission lets through, and what it makes of it. What it refuses is in the fronts' table of bad requests."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from ourvidz_gateway.admission import admit
from ourvidz_gateway.catalog import load_catalog
from ourvidz_gateway.draft import JobDraft
from ourvidz_gateway.errors import InvalidReferenceImage, InvalidRequest
from ourvidz_gateway.jobs import JobStage, Kind, NewJob
from ourvidz_gateway.plan import OwnFile, Reference, ReferenceRole, ReferenceType, RenderPlan, StoredReference

CATALOG = load_catalog()


def admitted(job_type: str = "sdxl_image_fast", config: Any = None, /, **metadata: Any) -> NewJob:
    return admit(
        JobDraft(job_type=job_type, metadata={"prompt": "a lighthouse", **metadata}, config=config), "alice", CATALOG
    )


URL = "https://files.example.com/reference-images/alice/8d3c3c5e-53a5-4a5c-9e0a-0d8c6d1f7b21"
UPLOAD = OwnFile(
    "8d3c3c5e-53a5-4a5c-9e0a-0d8c6d1f7b21",
    "image/jpeg",
    10 * 2**20,
    StoredReference("reference-images", "alice/8d3c3c5e-53a5-4a5c-9e0a-0d8c6d1f7b21", "ab" * 32),
)


def admitted_with(own: OwnFile | None, **metadata: Any) -> NewJob:
    """A job that follows a picture at a URL of ours."""
    draft = JobDraft(job_type="sdxl_image_fast", metadata={"prompt": "a", "reference_image_url": URL, **metadata})
    return admit(draft, "alice", CATALOG, own_files={URL: own})


def plan_of(job: NewJob) -> RenderPlan:
    return RenderPlan.from_json(json.loads(json.dumps(job.request)))


def test_the_plan_holds_all_that_the_job_type_says():
    job = admitted("sdxl_image_high", seed=7, num_images=3, negative_prompt="fog")

    assert plan_of(job) == RenderPlan(
        kind=Kind.SDXL,
        enhanced=False,
        model_variant="sdxl",
        prompt="a lighthouse",
        negative_prompt="fog",
        seed=7,
        image_count=3,
        width_px=1024,
        height_px=1024,
        frame_count=None,
        duration_s=None,
        step_count=40,
        guidance_scale=7.5,
        sampler=CATALOG.get("sdxl_image_high").recipe.sampler,
        flow_shift=None,
        bucket="sdxl-image-high",
        max_bytes=10 * 2**20,
        deadline_s=900,
    )


def test_an_enhanced_job_waits_for_the_enhancer_and_is_rendered_by_wan():
    job = admitted("video7b_high_enhanced")

    assert job.kind is Kind.ENHANCER
    assert (plan_of(job).kind, plan_of(job).enhanced) == (Kind.WAN, True)


@pytest.mark.parametrize("nothing", [None, ""])
def test_null_an_empty_string_and_a_missing_field_are_the_same(nothing):
    fields = dict.fromkeys(
        [
            "negative_prompt",
            "num_images",
            "reference_image_url",
            "start_reference_image_url",
            "end_reference_image_url",
            "reference_strength",
            "similarity_strength",
            "reference_type",
            "credits",
            "bucket",
        ],
        nothing,
    )
    draft = JobDraft(
        job_type="image_fast",
        metadata={"prompt": "a lighthouse", **fields},
        config={"num_images": nothing, "seed": nothing},
        project_id=nothing,
        video_id=nothing,
        image_id=nothing,
        webhook_url=nothing,
    )

    job = admit(draft, "alice", CATALOG)

    assert (plan_of(job).image_count, plan_of(job).negative_prompt) == (1, "")
    assert (job.credits, job.project_id, job.video_id, job.image_id) == (1, None, None, None)


@pytest.mark.parametrize("nothing", [None, ""])
def test_config_may_be_absent(nothing):
    assert plan_of(admitted("sdxl_image_fast", nothing, seed=5)).seed == 5


def test_config_wins_over_metadata():
    plan = plan_of(admitted("sdxl_image_fast", {"seed": 2, "num_images": 6}, seed=1, num_images=3))

    assert (plan.seed, plan.image_count) == (2, 6)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_seed_of_32_bits_is_kept(seed):
    assert plan_of(admitted(seed=seed)).seed == seed


def test_a_seed_is_drawn_for_each_job_that_has_none():
    seeds = {plan_of(admitted()).seed for _ in range(20)}

    assert len(seeds) > 1
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_neutral_values_pass_everywhere():
    job = admitted(
        "video_fast", {"num_images": 1}, num_images=1, reference_strength=0.7, credits=1, reference_image_url=""
    )

    assert plan_of(job).frame_count == 83


def test_a_strength_without_a_reference_is_ignored():
    assert admitted(reference_strength=0.5, similarity_strength=0.5).job_type == "sdxl_image_fast"


@pytest.mark.parametrize("bucket", ["sdxl-image-fast", "sdxl_image_fast"])
def test_the_types_own_bucket_may_be_named_in_both_spellings(bucket):
    assert plan_of(admitted(bucket=bucket)).bucket == "sdxl-image-fast"


def test_more_credits_than_the_price_are_what_the_job_costs():
    assert admitted("sdxl_image_high", credits=2).credits == 2


def test_a_prompt_is_trimmed_and_may_have_newlines_tabs_and_any_script():
    job = admitted(prompt=" \n 一位女性\tin the garden,\nat dusk 🌆 " + " " * 100_000)

    assert plan_of(job).prompt == "一位女性\tin the garden,\nat dusk 🌆"
    assert job.metadata["prompt"] == plan_of(job).prompt


def test_a_prompt_may_have_10_000_characters():
    assert len(plan_of(admitted(prompt="é" * 10_000)).prompt) == 10_000


def test_fields_of_the_users_own_are_kept_as_they_came():
    own = {"tags": ["a", None, 1.5, {"deep": True}], "user_seed": 2**60, "note": "café"}

    assert admitted(seed=1, **own).metadata == {"prompt": "a lighthouse", "seed": 1, **own}


def test_a_request_is_the_same_however_its_whole_numbers_are_written():
    def asked(number: float) -> bytes:
        return JobDraft(metadata={"prompt": "a fox", "of_my_own": [{"sizes": [number]}, number]}).fingerprint()

    assert asked(1.0) == asked(1)
    assert asked(1.5) != asked(1)


def test_each_job_has_an_id_of_its_own():
    assert admitted().id != admitted().id


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.com/cat.png",
        "https://IMAGES.example.com:443/cat.png",
        "https://cdn.example.com:8443/cat.png",
        "https://[2606:4700::1111]:8443/cat.png",
    ],
)
def test_a_reference_from_an_allowed_host_is_to_be_fetched(url):
    draft = JobDraft(job_type="sdxl_image_fast", metadata={"prompt": "a", "reference_image_url": url})

    job = admit(
        draft,
        "alice",
        CATALOG,
        reference_hosts=("images.example.com", "cdn.example.com:8443", "[2606:4700::1111]:8443"),
    )

    assert plan_of(job).references == (Reference(ReferenceRole.IMAGE, url),)
    assert plan_of(job).stages == [JobStage.FETCHING, JobStage.RENDERING]
    assert job.kind is Kind.FETCHER
    assert job.metadata["reference_image_url"] == url


def test_an_enhanced_clip_follows_its_frames():
    draft = JobDraft(
        job_type="video7b_fast_enhanced",
        metadata={
            "prompt": "a",
            "start_reference_image_url": "https://images.example.com/start.png",
            "end_reference_image_url": "https://images.example.com/end.png",
            "similarity_strength": 1,
        },
    )

    plan = plan_of(admit(draft, "alice", CATALOG, reference_hosts=("images.example.com",)))

    assert plan.references == (
        Reference(ReferenceRole.START_FRAME, "https://images.example.com/start.png"),
        Reference(ReferenceRole.END_FRAME, "https://images.example.com/end.png"),
    )
    assert plan.reference_strength == 1.0
    assert plan.stages == [JobStage.FETCHING, JobStage.ENHANCING, JobStage.RENDERING]


def test_a_file_of_the_users_own_needs_no_fetching():
    job = admitted_with(UPLOAD, reference_type="composition", reference_strength=0.7)

    assert plan_of(job).references == (Reference(ReferenceRole.IMAGE, URL, own_id=UPLOAD.id, stored=UPLOAD.stored),)
    assert plan_of(job).reference_type is ReferenceType.COMPOSITION
    assert plan_of(job).reference_strength == 0.7
    assert plan_of(job).stages == [JobStage.RENDERING]


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (None, "no such reference image"),
        (replace(UPLOAD, mime_type="video/mp4"), "no picture"),
        (replace(UPLOAD, size_bytes=10 * 2**20 + 1), "over 10 MB"),
    ],
)
def test_a_file_of_the_users_own_that_can_not_be_used(own, says):
    with pytest.raises(InvalidReferenceImage, match=says):
        admitted_with(own)


def test_style_at_half_strength_is_the_default():
    plan = plan_of(admitted_with(UPLOAD))

    assert (plan.reference_type, plan.reference_strength) == (ReferenceType.STYLE, 0.5)


def test_plain_http_is_for_those_who_allow_it():
    draft = JobDraft(
        job_type="sdxl_image_fast", metadata={"prompt": "a", "reference_image_url": "http://10.0.0.5:9000/cat.png"}
    )

    job = admit(draft, "alice", CATALOG, reference_hosts=("10.0.0.5:9000",), allow_http=True)

    assert plan_of(job).references[0].url == "http://10.0.0.5:9000/cat.png"
    with pytest.raises(InvalidReferenceImage, match="https://"):
        admit(draft, "alice", CATALOG, reference_hosts=("10.0.0.5:9000",))


@pytest.mark.parametrize("metadata", [None, [1], "x", {"reference_image_url": 7}, {"reference_image_url": ""}])
def test_a_draft_without_reference_urls_has_none(metadata):
    assert JobDraft(metadata=metadata).reference_urls == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://images.example.com/cat.png", "https://"),
        ("https://user@images.example.com/cat.png", "user name"),
        ("https://images.example.com@evil.example/cat.png", "user name"),
        ("https://evil.example/images.example.com", "not allowed"),
        ("https://images.example.com.evil.example/", "not allowed"),
        ("https://sub.images.example.com/", "not allowed"),
        ("https://images.example.com:8443/", "not allowed"),
        ("https://images.example.com\\@evil.example/", "backslash"),
        ("https://images.example.com /", "blank"),
        ("https://images.example.com:port/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https:///cat.png", "name a host"),
        ("file:///etc/passwd", "https://"),
        ("https://images.example.com/" + "a" * 2_048, "at most 2,048"),
        (["https://images.example.com/"], "must be a URL"),
    ],
)
def test_a_reference_from_anywhere_else_is_refused(url, says):
    draft = JobDraft(job_type="video_fast", metadata={"prompt": "a", "start_reference_image_url": url})

    with pytest.raises(InvalidReferenceImage, match=says):
        admit(draft, "alice", CATALOG, reference_hosts=("images.example.com",))


def test_a_webhook_on_an_allowed_host_is_kept():
    draft = JobDraft(job_type="sdxl_image_fast", metadata={"prompt": "a"}, webhook_url="https://hooks.example.com/done")

    job = admit(draft, "alice", CATALOG, webhook_hosts=("hooks.example.com",))

    assert job.webhook_url == "https://hooks.example.com/done"


@pytest.mark.parametrize("seconds", [1, 90, 86_400, 2.5])
def test_a_time_to_start_is_kept(seconds):
    draft = JobDraft(job_type="sdxl_image_fast", metadata={"prompt": "a"}, start_timeout_s=seconds)

    assert admit(draft, "alice", CATALOG).start_timeout_s == seconds


@pytest.mark.parametrize("value", [0, 0.5, -1, 86_401, True, "60", math.nan, math.inf, [60]])
def test_a_bad_time_to_start_is_refused(value):
    draft = JobDraft(job_type="sdxl_image_fast", metadata={"prompt": "a"}, start_timeout_s=value)

    with pytest.raises(InvalidRequest, match="1 to 86,400 seconds") as caught:
        admit(draft, "alice", CATALOG)

    assert [violation.field for violation in caught.value.violations] == ["startTimeoutSeconds"]
