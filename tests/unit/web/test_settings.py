"""Settings of the API and the pages: found under each name, and refused where they would be unsafe."""

from __future__ import annotations

import pytest

from vital_tracking.environment import PUBLISHABLE_KEYS, SUPABASE_URLS
from vital_tracking.errors import SettingsError
from vital_tracking.web.serving import check_host
from vital_tracking.web.settings import WebSettings, is_loopback

PROJECT = "https://abc.supabase.co"
LONG = "x" * 40


def read(**environ: str) -> WebSettings:
    return WebSettings.from_env(environ, dotenv="absent.env")


def test_a_project_says_where_its_keys_are() -> None:
    """If this failed, nobody could sign in with the settings that Supabase's own pages show."""
    for url in SUPABASE_URLS:
        for key in PUBLISHABLE_KEYS:
            settings = read(**{url: f"{PROJECT}/", key: " sb_publishable_x "})
            assert settings.jwks_url == f"{PROJECT}/auth/v1/.well-known/jwks.json"
            assert settings.jwt_issuer == f"{PROJECT}/auth/v1"
            assert settings.jwt_audience == "authenticated"
            assert settings.anon_key is not None
            assert settings.anon_key.get_secret_value() == "sb_publishable_x"
            assert (settings.knows_users, settings.signs_in) == (True, True)


def test_without_anything_nobody_is_known() -> None:
    """If this failed, a dashboard would be open to the network, or refuse to start on one's own machine."""
    settings = read()
    assert (settings.knows_users, settings.signs_in) == (False, False)
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8", "[::1]"):
        assert is_loopback(host)
        check_host(host, settings)
    for host in ("0.0.0.0", "::", "", "192.168.1.2", "dashboard.example", "127.0.0.1.evil.example", "0"):
        assert not is_loopback(host)
        with pytest.raises(SettingsError, match="SUPABASE_URL and SUPABASE_ANON_KEY") as refused:
            check_host(host, settings)
        assert "VITAL_JWKS_URL" in str(refused.value)
        check_host(host, read(SUPABASE_JWT_SECRET=LONG))


def test_any_issuer_of_keys_will_do() -> None:
    """If this failed, teams with Clerk, Auth0 or Keycloak could not use the pages."""
    given = {
        "VITAL_JWKS_URL": "https://i.example/jwks",
        "VITAL_JWT_ISSUER": "https://i.example",
        "VITAL_JWT_AUDIENCE": "us",
    }
    settings = read(**given, SUPABASE_URL=PROJECT)
    assert (settings.jwks_url, settings.jwt_issuer, settings.jwt_audience) == tuple(given.values())
    assert settings.knows_users


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"VITAL_JWKS_URL": "https://i.example/jwks", "VITAL_JWT_AUDIENCE": "us"}, "VITAL_JWKS_URL"),
        ({"VITAL_JWKS_URL": "https://i.example/jwks", "VITAL_JWT_ISSUER": "https://i.example"}, "VITAL_JWKS_URL"),
        (
            {"VITAL_JWKS_URL": "http://i.example/jwks", "VITAL_JWT_ISSUER": "i", "VITAL_JWT_AUDIENCE": "us"},
            "VITAL_JWKS_URL",
        ),
        ({"VITAL_JWKS_URL": "file:///etc/keys"}, "VITAL_JWKS_URL"),
        ({"SUPABASE_ANON_KEY": "sb_secret_word"}, "SUPABASE_ANON_KEY"),
        ({"SUPABASE_JWT_SECRET": "short-word"}, "SUPABASE_JWT_SECRET"),
        ({"SUPABASE_JWT_SECRET": "-----BEGIN PUBLIC KEY-----\nsecret-word-secret-word"}, "SUPABASE_JWT_SECRET"),
        ({"VITAL_MONITORING_TOKEN": "short-word"}, "VITAL_MONITORING_TOKEN"),
        ({"VITAL_PUBLIC_URL": "pages.example"}, "VITAL_PUBLIC_URL"),
        ({"SUPABASE_URL": "abc.supabase.co"}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "https://[abc"}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "https://abc..supabase.co"}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "https://abc .supabase.co"}, "SUPABASE_URL"),
        ({"VITAL_PUBLIC_URL": "https://pages.example:99999"}, "VITAL_PUBLIC_URL"),
        ({"VITAL_PUBLIC_URL": "https://pages.example:0"}, "VITAL_PUBLIC_URL"),
        ({"VITAL_PUBLIC_URL": f"https://{'a' * 64}.example"}, "VITAL_PUBLIC_URL"),
        ({"VITAL_JWKS_URL": "https://i..example/jwks"}, "VITAL_JWKS_URL"),
        ({"VITAL_EVENT_ORIGINS": "https://[abc"}, "VITAL_EVENT_ORIGINS"),
        ({"VITAL_EVENT_ORIGINS": "https://app.example:70000"}, "VITAL_EVENT_ORIGINS"),
        ({"SUPABASE_ANON_KEY": "sb_publishable_word\u2026"}, "SUPABASE_ANON_KEY"),
        ({"SUPABASE_ANON_KEY": "sb_publishable_word\nX: y"}, "SUPABASE_ANON_KEY"),
        ({"VITAL_MONITORING_TOKEN": f"{'x' * 40}-word\u00e4"}, "VITAL_MONITORING_TOKEN"),
    ],
)
def test_what_would_be_unsafe_is_refused_by_name(environ: dict[str, str], named: str) -> None:
    """If this failed, a slip in a setting would let strangers in, or nobody."""
    with pytest.raises(SettingsError, match=named) as refused:
        read(**environ)
    assert "word" not in str(refused.value)


def test_settings_show_no_secret() -> None:
    """If this failed, a log of the settings would hold keys."""
    settings = read(SUPABASE_JWT_SECRET=LONG, REDIS_URL=f"redis://:{LONG}@h", VITAL_MONITORING_TOKEN=LONG)
    assert LONG not in f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}"
