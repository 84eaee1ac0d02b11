"""What jobs have made, on a real database: looked through and deleted."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from ourvidz_gateway.assets import AssetFilter, Assets
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import AssetNotFound, InvalidRequest
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobState
from support.assets import add_asset
from support.jobs import ended, painted_job

ALL = AssetFilter()


@pytest.fixture
def deletions() -> list[None]:
    """One for each time that the cleaner was called."""
    return []


@pytest.fixture
def assets(database: Database, deletions: list[None]) -> Assets:
    return Assets(database, on_deleted=lambda: deletions.append(None))


async def ids(assets: Assets, user: str = "alice", where: AssetFilter = ALL) -> list[UUID]:
    listed, _ = await assets.page(user, where, page_size=100, page_token=None)
    return [each.asset.id for each in listed]


class TestPage:
    async def test_the_newest_come_first(self, assets, database):
        added = [await add_asset(database) for _ in range(3)]

        assert await ids(assets) == added[::-1]

    async def test_an_asset_is_shown_with_what_is_known_of_its_job(self, assets, database):
        job_id = uuid4()
        asset_id = await add_asset(
            database,
            job_id=job_id,
            job_type="video_fast",
            project_id="p",
            mime_type="video/mp4",
            duration_s=5.0,
            index=2,
        )

        ((listed,), _) = await assets.page("alice", ALL, page_size=20, page_token=None)

        assert (listed.job_type, listed.project_id) == ("video_fast", "p")
        assert (listed.asset.id, listed.asset.job_id, listed.asset.index) == (asset_id, job_id, 2)
        assert (listed.asset.mime_type, listed.asset.duration_s, listed.asset.seed) == ("video/mp4", 5.0, 7)
        assert await assets.get("alice", asset_id) == listed

    async def test_pages_are_stable_while_assets_come_and_go(self, assets, database):
        added = [await add_asset(database) for _ in range(5)]

        first, token = await assets.page("alice", ALL, page_size=2, page_token=None)
        await add_asset(database)
        await assets.delete("alice", added[3])  # the one where the first page ended
        await assets.delete("alice", added[1])
        second, end = await assets.page("alice", ALL, page_size=2, page_token=token)

        assert [each.asset.id for each in first] == [added[4], added[3]]
        assert [each.asset.id for each in second] == [added[2], added[0]]
        assert end is None

    async def test_pages_go_on_amid_assets_of_one_moment(self, assets, database):
        """All outputs of a job are of one moment."""
        added = {await add_asset(database, index=index) for index in range(5)}
        await database.execute("UPDATE assets SET created_at = now()")

        seen, token = [], None
        while token or not seen:
            page, token = await assets.page("alice", ALL, page_size=2, page_token=token)
            seen += [each.asset.id for each in page]

        assert len(seen) == 5
        assert set(seen) == added

    @pytest.mark.parametrize(
        ("where", "found"),
        [
            (ALL, [3, 2, 1, 0]),
            (AssetFilter(job_type="video_fast"), [2, 1]),
            (AssetFilter(project_id="p"), [1, 0]),
            (AssetFilter(job_type="video_fast", project_id="p"), [1]),
            (AssetFilter(project_id="q"), []),
        ],
    )
    async def test_a_filter_narrows_it(self, assets, database, where, found):
        added = [
            await add_asset(database, project_id="p"),
            await add_asset(database, project_id="p", job_type="video_fast"),
            await add_asset(database, job_type="video_fast"),
            await add_asset(database),
        ]

        assert await ids(assets, where=where) == [added[index] for index in found]

    async def test_another_users_assets_are_not_there(self, assets, database):
        await add_asset(database)

        assert await ids(assets, "bob") == []

    async def test_a_token_of_somebody_elses_making_is_refused(self, assets):
        with pytest.raises(InvalidRequest, match="page token"):
            await assets.page("alice", ALL, page_size=20, page_token="bm90IGEgdG9rZW4=")


class TestDelete:
    async def test_it_is_gone_at_once_and_left_to_the_cleaner(self, assets, database, deletions):
        asset_id = await add_asset(database)

        await assets.delete("alice", asset_id)

        assert await ids(assets) == []
        assert len(deletions) == 1
        assert await database.fetch("SELECT 1 FROM assets WHERE deleted_at <= now()")
        for call in (assets.get, assets.delete):
            with pytest.raises(AssetNotFound):
                await call("alice", asset_id)

    async def test_another_users_asset_looks_like_one_that_never_was(self, assets, database, deletions):
        asset_id = await add_asset(database)

        for call in (assets.get, assets.delete):
            for unknown in (asset_id, uuid4()):
                with pytest.raises(AssetNotFound):
                    await call("bob", unknown)

        assert deletions == []
        assert await ids(assets) == [asset_id]


async def test_what_a_gateway_makes_is_listed_and_a_deleted_one_goes_from_its_job_and_from_storage(
    gateway: Gateway, renderer, bench
):
    job = replace(painted_job(images=3), project_id="p")
    await gateway.accept(job)
    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    made = (await gateway.get("alice", job.id)).assets
    listed, _ = await gateway.parts.assets.page("alice", AssetFilter(project_id="p"), page_size=20, page_token=None)
    assert {each.asset.id for each in listed} == {asset.id for asset in made}
    assert {(each.job_type, each.project_id) for each in listed} == {("sdxl_image_fast", "p")}

    await gateway.parts.assets.delete("alice", made[1].id)

    assert [asset.id for asset in (await gateway.get("alice", job.id)).assets] == [made[0].id, made[2].id]
    await bench.until("count(*) = 2 FROM assets")
    stored = await renderer.store.list(made[0].bucket, f"alice/{job.id}/1/")
    assert stored == [made[0].key, made[2].key, f"alice/{job.id}/1/manifest.json"]
