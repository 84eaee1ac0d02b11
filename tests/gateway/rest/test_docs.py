"""The page on which people read the API's description works without the internet."""

from urllib.parse import urljoin, urlsplit

import pytest

from ourvidz_gateway.rest.docs import ASSETS


def loaded_by(page: str) -> list[str]:
    """What a page's tags load."""
    return [part.split('"')[0] for tag in ('src="', 'href="') for part in page.split(tag)[1:]]


async def test_all_that_the_page_loads_comes_from_the_gateway(client):
    page = await client.get("/docs")

    assert page.headers["content-type"].startswith("text/html")
    addresses = loaded_by(page.text)
    assert len(addresses) == len(ASSETS) == 3
    for address in addresses:
        assert not urlsplit(address).netloc
        answer = await client.get(urljoin("/docs", address))
        assert answer.status_code == 200
        assert len(answer.content) > 100
        assert answer.headers["content-type"].split(";")[0] in ASSETS.values()


async def test_the_page_names_no_other_server(client):
    page = (await client.get("/docs")).text

    assert "//" not in page.replace("</", "<")
    assert "'openapi.json'" in page


@pytest.mark.parametrize("name", ["passwd", "__init__.py", "..%2f__init__.py", ""])
async def test_nothing_else_of_the_package_is_served(client, name):
    assert (await client.get(f"/docs/{name}")).status_code in (307, 404)


async def test_the_frameworks_own_page_which_needs_the_internet_is_not_there(client):
    assert (await client.get("/redoc")).status_code == 404
