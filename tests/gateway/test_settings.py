"""What the gateway's settings let through."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.settings import GatewaySettings
from support import fronts

DSN = "postgresql://somewhere"
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


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


@pytest.mark.parametrize("secret", ["whsec_", "whsec_tooshort", "whsec_!!!!", "c2hvcnQ="])
def test_a_webhook_secret_that_is_none_is_refused(secret):
    with pytest.raises(ValidationError, match="whsec_ and 24 to 64 bytes in base64"):
        fronts.settings(webhook_secret=secret)


@pytest.mark.parametrize("wanted", [{"webhook_url": "http://10.0.0.7/hooks"}, {"webhook_hosts": "hooks.example.com"}])
def test_webhooks_are_never_sent_unsigned(wanted):
    with pytest.raises(ValidationError, match="OURVIDZ_WEBHOOK_SECRET"):
        fronts.settings(**wanted)


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "*", "ftp://app.example.com"])
def test_an_origin_that_is_none_is_refused(origin):
    with pytest.raises(ValidationError, match="each origin must be"):
        fronts.settings(cors_origins=origin)


def test_adult_content_is_off_unless_an_operator_says_so():
    assert fronts.settings().allow_adult_content is False


def test_what_is_kept_is_kept_as_long_as_promised():
    settings = fronts.settings()

    assert settings.keep_jobs == timedelta(days=90)
    assert settings.keep_milestones == settings.keep_deliveries == timedelta(days=30)
    assert settings.keep_idempotency_keys == timedelta(hours=24)
    assert settings.keep_policy_audit == timedelta(days=365)


@pytest.mark.parametrize("url", ["https://", "https://me:secret@hooks.example.com/", "https://hooks.example.com/a b"])
def test_a_webhook_url_that_can_not_be_called_is_refused(url):
    with pytest.raises(ValidationError, match="must be a URL with a host"):
        fronts.settings(webhook_url=url, webhook_secret=WEBHOOK_SECRET)
