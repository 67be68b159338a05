"""Contexts: which one is meant, where its files are, and what is wrong with the configuration."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fleetctl import config
from fleetctl.config import Context
from fleetctl.errors import ConfigError, NotFound, UsageError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"FLEETCTL_HOME": str(tmp_path)}


@pytest.fixture
def prod(environ: dict[str, str]) -> Context:
    return make(environ, "prod")


def make(environ: dict[str, str], name: str) -> Context:
    folder = config.home(environ).folder(name)
    folder.mkdir(parents=True)
    context = Context(
        name,
        "acme",
        "mqtts://localhost:8884",
        "mqtts://localhost:8883",
        "https://localhost:8885",
        folder,
        ca=folder / "pki" / "fleet-ca.pem",
        cert=Path("/elsewhere/operator.pem"),
        username="alice",
        password_ref="env:SECRET",
    )
    config.save_context(context, environ)
    return context


def write(environ: dict[str, str], text: str) -> Path:
    path = config.home(environ).config
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (config.home(environ).data / "prod").mkdir(exist_ok=True)
    return path


def test_a_context_is_read_as_it_was_saved(prod: Context, environ: dict[str, str]) -> None:
    assert config.load_context("prod", environ) == prod
    assert config.contexts(environ) == [prod]
    assert prod.registry == prod.folder / "registry.db"


def test_the_file_is_for_its_owner_and_names_folders_relatively(prod: Context, environ: dict[str, str]) -> None:
    path = config.home(environ).config

    assert path.stat().st_mode & 0o777 == 0o600
    assert "ca: pki/fleet-ca.pem" in path.read_text()


def test_saving_one_context_keeps_the_others(prod: Context, environ: dict[str, str]) -> None:
    make(environ, "other")
    config.save_context(replace(prod, tenant="umbrella"), environ)

    assert [(context.name, context.tenant) for context in config.contexts(environ)] == [("other", "acme"), ("prod", "umbrella")]


def test_the_flag_beats_the_environment_beats_the_choice_beats_the_default(environ: dict[str, str]) -> None:
    for name in ("flag", "variable", "chosen", "default"):
        make(environ, name)

    assert config.locate(None, environ).name == "default"
    config.use_context("chosen", environ)
    assert config.locate(None, environ).name == "chosen"
    assert config.current_name(environ) == "chosen"
    environ["FLEETCTL_CONTEXT"] = "variable"
    assert config.locate(None, environ).name == "variable"
    assert config.locate("flag", environ).name == "flag"


def test_without_a_home_of_its_own_it_lives_in_the_users() -> None:
    paths = config.home({"HOME": "/home/alice"})

    assert paths.config == Path("/home/alice/.config/fleetctl/config.yaml")
    assert paths.folder("prod") == Path("/home/alice/.local/share/fleetctl/prod")


def test_no_context_at_all_says_how_to_make_one(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.locate(None, environ)

    assert "fleetctl init" in caught.value.hint
    assert config.current_name(environ) is None
    assert config.contexts(environ) == []


def test_a_context_that_is_not_there_is_not_found(prod: Context, environ: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="no context named `test`"):
        config.load_context("test", environ)
    with pytest.raises(NotFound):
        config.use_context("test", environ)
    prod.folder.parent.joinpath("halfway").mkdir()
    with pytest.raises(NotFound):
        config.load_context("halfway", environ)


@pytest.mark.parametrize("name", ["../x", "a/b", "_x", ".", "config.yaml", "current-context", "a\0b"])
def test_a_name_that_no_folder_may_have_is_refused(environ: dict[str, str], name: str) -> None:
    with pytest.raises(UsageError):
        config.locate(name, environ)


@pytest.mark.parametrize("content", [b"../../etc\n", b"\xff\xfe", b""])
def test_a_spoilt_choice_is_named(environ: dict[str, str], content: bytes) -> None:
    paths = config.home(environ)
    paths.current.parent.mkdir(exist_ok=True)
    paths.current.write_bytes(content)

    with pytest.raises(ConfigError, match="current-context"):
        config.locate(None, environ)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contexts:\n  prod: {tenant: acme\n", "is not YAML at line"),
        ("contexts: [", "is not YAML at line"),
        ("- a", "is not a mapping"),
        ("kontexts: {}", "unknown key `kontexts` in"),
        ("contexts: 3", "is not a mapping of names"),
        ("contexts: {prod: 3}", "`contexts.prod` in"),
        ("contexts: {prod: {tenant: a, broker: 'mqtt://h', port: '1'}}", "unknown key `port` in `contexts.prod`"),
        ("contexts: {prod: {tenant: a}}", "`broker` is missing"),
        ("contexts: {prod: {tenant: 3, broker: 'mqtt://h'}}", "`tenant` of `contexts.prod`"),
        ("contexts: {prod: {tenant: a/b, broker: 'mqtt://h'}}", "`tenant` of `contexts.prod`"),
        ("contexts: {prod: {tenant: a, broker: 'http://h'}}", "`broker` of `contexts.prod`"),
        ("contexts: {prod: {tenant: a, broker: 'mqtt://h', artifacts: 'ftp://x'}}", "`artifacts` of"),
        ("contexts: {prod: {tenant: a, broker: 'mqtt://h', certificates: none}}", "`certificates` of"),
        ("contexts: {prod: {tenant: a, broker: 'mqtt://h', password: hunter2}}", "`password` of"),
        ("contexts: !!python/object/apply:os.system [id]", "is not YAML"),
        ("[" * 3000, "is not YAML"),
        ("\0", "is not YAML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_file_and_key(environ: dict[str, str], text: str, message: str) -> None:
    path = write(environ, text)

    with pytest.raises(ConfigError) as caught:
        config.load_context("prod", environ)

    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_context_that_would_not_be_read_is_not_saved(prod: Context, environ: dict[str, str]) -> None:
    before = config.home(environ).config.read_bytes()
    with pytest.raises(ConfigError):
        config.save_context(replace(prod, password_ref="hunter2"), environ)

    assert config.home(environ).config.read_bytes() == before


def test_finding_the_registry_reads_no_yaml(prod: Context, environ: dict[str, str]) -> None:
    config.use_context("prod", environ)
    code = "import sys; from fleetctl import config; print(config.locate().registry); print('yaml' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)

    assert run.stdout.split() == [str(prod.registry), "False"]


def test_a_registry_may_be_a_database(prod: Context, environ: dict[str, str]) -> None:
    url = "postgresql://fleet@db.example.com:5433/fleet"
    config.save_context(replace(prod, registry_url=url), environ)
    config.use_context("prod", environ)

    assert config.load_context("prod", environ).registry == url
    assert config.locate(None, environ).registry == url
    with pytest.raises(ConfigError, match="`registry` of"):
        config.save_context(replace(prod, registry_url="postgresql://fleet:hunter2@db/fleet"), environ)
