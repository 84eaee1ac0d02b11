"""The job types as shipped, and what becomes of a catalog that can't be used."""

import pytest

from ourvidz_gateway.catalog import Catalog, CatalogError, Sampler, load_catalog
from ourvidz_gateway.errors import UnknownJobType
from ourvidz_gateway.jobs import Kind

MB = 2**20

CLIP = """
[job_types.clip]
kind = "wan"
enhanced = false
model_variant = "wan"
bucket = "clips"
max_bytes = 1000
price = 0
deadline_s = 60
image_counts = [1]
supports_reference = false
supports_frames = true

[job_types.clip.recipe]
width_px = 480
height_px = 832
frame_count = 83
duration_s = 5.0
step_count = 25
guidance_scale = 6.5
sampler = "unipc"
flow_shift = 3.0
"""


@pytest.mark.parametrize(
    ("name", "kind", "steps", "guidance", "bucket", "limit_mb", "variant"),
    [
        ("sdxl_image_fast", Kind.SDXL, 20, 7.0, "sdxl-image-fast", 5, "sdxl"),
        ("sdxl_image_high", Kind.SDXL, 40, 7.5, "sdxl-image-high", 10, "sdxl"),
        ("image_fast", Kind.WAN, 25, 6.5, "image-fast", 5, "wan_2_1_1_3b"),
        ("image_high", Kind.WAN, 50, 7.5, "image-high", 10, "wan_2_1_1_3b"),
        ("video_fast", Kind.WAN, 25, 6.5, "video-fast", 50, "wan_2_1_1_3b"),
        ("video_high", Kind.WAN, 50, 7.5, "video-high", 200, "wan_2_1_1_3b"),
        ("image7b_fast_enhanced", Kind.WAN, 25, 6.5, "image7b-fast-enhanced", 20, "wan_2_1_1_3b_qwen_7b"),
        ("image7b_high_enhanced", Kind.WAN, 50, 7.5, "image7b-high-enhanced", 20, "wan_2_1_1_3b_qwen_7b"),
        ("video7b_fast_enhanced", Kind.WAN, 25, 6.5, "video7b-fast-enhanced", 100, "wan_2_1_1_3b_qwen_7b"),
        ("video7b_high_enhanced", Kind.WAN, 50, 7.5, "video7b-high-enhanced", 100, "wan_2_1_1_3b_qwen_7b"),
    ],
)
def test_ships_each_job_type_as_the_reference_lists_it(name, kind, steps, guidance, bucket, limit_mb, variant):
    job_type = load_catalog().get(name)
    sdxl = kind is Kind.SDXL

    assert (job_type.kind, job_type.bucket, job_type.max_bytes, job_type.model_variant) == (
        kind,
        bucket,
        limit_mb * MB,
        variant,
    )
    assert (job_type.recipe.step_count, job_type.recipe.guidance_scale) == (steps, guidance)
    assert (job_type.recipe.width_px, job_type.recipe.height_px) == ((1024, 1024) if sdxl else (480, 832))
    assert job_type.recipe.sampler is (Sampler.DPMPP_2M_KARRAS if sdxl else Sampler.UNIPC)
    assert job_type.recipe.flow_shift == (None if sdxl else 3.0)
    assert job_type.image_counts == ((1, 3, 6) if sdxl else (1,))
    assert (job_type.price, job_type.deadline_s) == (1, 900)
    assert job_type.supports_reference is sdxl


def test_ships_ten_job_types():
    assert len(load_catalog().job_types) == 10


@pytest.mark.parametrize("name", ["video_fast", "video_high", "video7b_fast_enhanced", "video7b_high_enhanced"])
def test_clips_have_83_frames_in_5_seconds_and_take_frames(name):
    job_type = load_catalog().get(name)

    assert (job_type.recipe.frame_count, job_type.recipe.duration_s) == (83, 5.0)
    assert job_type.is_clip
    assert job_type.supports_frames


def test_an_unknown_job_type_is_answered_with_the_valid_ones():
    with pytest.raises(UnknownJobType, match="Valid job types: clip"):
        Catalog.parse(CLIP, source="test").get("film")


def test_an_operators_file_takes_the_place_of_the_shipped_one(tmp_path):
    path = tmp_path / "catalog.toml"
    path.write_text(CLIP)

    assert list(load_catalog(path).job_types) == ["clip"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("wan", "cpu"), r"job_types\.clip\.kind: Input should be"),
        (('kind = "wan"', 'kind = "enhancer"'), "only renderers make outputs"),
        (("step_count = 25", "step_count = 0"), r"job_types\.clip\.recipe\.step_count: .*greater than or equal to 1"),
        (("step_count = 25", 'step_count = "25"'), r"recipe\.step_count: .*valid integer"),
        (("duration_s = 5.0\n", ""), "both frame_count and duration_s"),
        (("image_counts = [1]", "image_counts = [1, 3]"), r"image_counts must be \[1\] for a clip"),
        (("image_counts = [1]", "image_counts = []"), r"image_counts"),
        (("supports_reference = false", "supports_reference = true"), "for still images"),
        (("frame_count = 83\nduration_s = 5.0\n", ""), "supports_frames needs"),
        (('bucket = "clips"', 'bucket = "my_clips"'), r"bucket"),
        (("price = 0", "price = 0\ncolour = 1"), "colour"),
        (("[job_types.clip]", "[job_types.clip"), "not valid TOML"),
        (("clip", "Clip"), r"name: .*pattern"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_that_is_wrong(tmp_path, change, says):
    path = tmp_path / "mine.toml"
    path.write_text(CLIP.replace(*change))

    with pytest.raises(CatalogError, match=says) as caught:
        load_catalog(path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize("text", ["", "job_types = 3", "[job_types]"])
def test_a_file_without_job_types_is_refused(text):
    with pytest.raises(CatalogError, match="job_types"):
        Catalog.parse(text, source="test")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="can't be read"):
        load_catalog(tmp_path / "none.toml")
