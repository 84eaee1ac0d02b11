"""What the gateway's settings let through."""

import pytest
from pydantic import ValidationError

from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.settings import GatewaySettings
from support import fronts

DSN = "postgresql://somewhere"


def test_lists_are_read_between_commas(monkeypatch):
    monkeypatch.setenv("OURVIDZ_DATABASE_URL", DSN)
    monkeypatch.setenv("OURVIDZ_JWT_SECRET", fronts.SECRET)
    monkeypatch.setenv("OURVIDZ_RENDERERS_SDXL", "10.0.0.5:50061, dns:///sdxl.svc:50061, [::1]:50061,")
    monkeypatch.setenv("OURVIDZ_REFERENCE_HOSTS", "images.example.com")

    settings = GatewaySettings()

    assert settings.renderers == {
        Kind.SDXL: ("10.0.0.5:50061", "dns:///sdxl.svc:50061", "[::1]:50061"),
        Kind.WAN: (),
        Kind.ENHANCER: (),
    }
    assert settings.reference_hosts == ("images.example.com",)
    assert settings.webhook_hosts == ()


@pytest.mark.parametrize(
    "address", ["50061", "host", "host:0", "host:65536", ":50061", "http://host:50061", "dns:host:1"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValidationError, match="host:port or dns:///name:port"):
        fronts.settings(renderers_sdxl=address)


def test_hosts_are_compared_in_lower_case():
    settings = fronts.settings(reference_hosts="Images.Example.com, cdn.example.com:8443,[2606:4700::1]")

    assert settings.reference_hosts == ("images.example.com", "cdn.example.com:8443", "[2606:4700::1]")


@pytest.mark.parametrize("host", ["https://images.example.com", "images.example.com/cats", "*.example.com", "me@host"])
@pytest.mark.parametrize("setting", ["reference_hosts", "webhook_hosts"])
def test_a_host_that_is_none_is_refused(setting, host):
    with pytest.raises(ValidationError, match="a name or an address"):
        fronts.settings(**{setting: host})


def test_private_addresses_are_off_limits_unless_an_operator_says_so():
    assert fronts.settings().allow_private_fetch is False


def test_prompts_are_enhanced_in_chinese_unless_an_operator_says_so():
    assert fronts.settings().enhance_language == "zh"


def test_a_short_secret_is_refused():
    with pytest.raises(ValidationError, match="at least 32 bytes"):
        GatewaySettings(database_url=DSN, jwt_secret="short")


@pytest.mark.parametrize("ways", [{}, {"jwt_secret": fronts.SECRET, "jwks_url": "https://login.example.com/jwks"}])
def test_there_is_exactly_one_way_to_check_tokens(ways):
    with pytest.raises(ValidationError, match="exactly one of OURVIDZ_JWT_SECRET"):
        GatewaySettings(database_url=DSN, **ways)


def test_no_secret_is_printed():
    settings = GatewaySettings(database_url="postgresql://user:password@db", jwt_secret=fronts.SECRET)

    assert "password" not in repr(settings)
    assert fronts.SECRET not in repr(settings)
