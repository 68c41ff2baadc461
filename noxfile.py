"""Every task of the project, the same locally and in CI. ``nox --list`` lists them.

``nox`` alone runs what a change must pass. Arguments after ``--`` go to the tool: ``nox -s tests-3.12 -- -k fork``.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import tempfile
import zipfile

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
DIST = pathlib.Path("dist")
# The names of the schemas in check-jsonschema, and the files that must conform to them.
SCHEMAS = {
    "github-workflows": ".github/workflows/*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "dependabot": ".github/dependabot.yml",
    "readthedocs": ".readthedocs.yaml",
    "citation-file-format": "CITATION.cff",
}

# Between the oldest and the newest. 1.82 reports a refused stream in words of its own; 1.70 looks at connections, and
# forks, as all before 1.80 do.
GRPCIO_BETWEEN = ["1.70.0", "1.82.1"]

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "imports", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
# Only use installed interpreters.
nox.options.download_python = "never"


def lowest_grpcio() -> str:
    """Returns the requirement of exactly the oldest supported grpcio."""
    (bound,) = re.findall(r"^grpcio>=([\w.]+)", "\n".join(PROJECT["project"]["dependencies"]), re.MULTILINE)
    return f"grpcio=={bound}"


def beside_sdks() -> list[str]:
    """Returns what the tests require, without the messages of xDS, which bring an old copy of OpenTelemetry's."""
    required: list[str] = PROJECT["project"]["optional-dependencies"]["test"]
    return [".[all]", *(each for each in required if not each.startswith(("grpcpool[", "xds-protos")))]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Runs the tests on each Python."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def tests_lowest(session: nox.Session) -> None:
    """Runs the tests on the oldest grpcio and the oldest Python."""
    session.install(".[test]", lowest_grpcio())
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
@nox.parametrize("grpcio", GRPCIO_BETWEEN)
def tests_between(session: nox.Session, grpcio: str) -> None:
    """Runs the tests on a grpcio between the oldest and the newest."""
    session.install(".[test]", f"grpcio=={grpcio}")
    session.run("pytest", *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """Runs the tests that take long."""
    session.install(".[test]")
    session.run("pytest", "-m", "long", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Runs the programs under ``examples``, and real SDKs, except those that take minutes to install."""
    session.install("--group", "examples", *beside_sdks())
    session.run("pytest", "-n", "2", "-m", "long", "tests/examples", "tests/sdks", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """Runs the examples with Spark and Ray. Spark needs Java."""
    session.install("--group", "engines", ".[test]")
    session.run("pytest", "-n", "0", "-m", "long", "tests/examples/test_engines.py", *session.posargs)


@nox.session
def sdks(session: nox.Session) -> None:
    """Runs real SDKs and tracers over pools. For etcd's, etcd must be on PATH."""
    session.install("--group", "sdks", *beside_sdks())
    session.run("pytest", "-n", "2", "-m", "long", "tests/sdks", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Simulates 2,000 lives of a pool, or others: ``nox -s simulate -- FIRST COUNT``."""
    session.install(".")
    session.run("python", "tests/machine/simulation.py", *(session.posargs or ("0", "2000")))


@nox.session
def soak(session: nox.Session) -> None:
    """Runs a pool under load and faults for a minute, or longer: ``nox -s soak -- --minutes N --seed SEED``."""
    # The load shares its helpers with the tests.
    session.install(".", "psutil", "pytest>=9")
    session.run("python", "-W", "error", "tests/soak/soak.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Checks style, format, wording, the files of other services, and what the documentation draws from the code."""
    session.install("--group", "lint", ".")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", "docs/draw_states.py", "--check")
    session.run("python", "docs/check_words.py")
    session.run("python", "docs/draw_facts.py", "--check")
    for schema, pattern in SCHEMAS.items():
        files = sorted(map(str, pathlib.Path().glob(pattern)))
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


@nox.session
def types(session: nox.Session) -> None:
    """Checks the types of the package, the tests and the benchmarks."""
    # The tests need the extra; what draws the benchmarks needs the group `docs`.
    session.install("--group", "lint", "--group", "docs", ".[test]")
    session.run("mypy", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """Checks programs as users write them, with mypy and pyright, against the installed package."""
    session.install("--group", "typing", ".")
    # Outside the checkout, because both look for settings in the folders above.
    with tempfile.TemporaryDirectory() as folder:
        programs = shutil.copytree("typing_tests", pathlib.Path(folder, "programs"))
        with session.chdir(programs):
            session.run("mypy", "--strict", ".")
            session.run("pyright", "--warnings", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation into ``docs/_build``, and runs every example in it; ``-- -k fork`` goes to pytest."""
    session.install("--group", "docs", "--group", "lint", ".[test]")
    session.run("mypy", "docs", "--exclude", "docs/_build")
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("pytest", "docs", *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """Checks that each folder of the package imports only folders below it."""
    session.install("--group", "lint", ".")
    session.run("lint-imports")


@nox.session
def build(session: nox.Session) -> None:
    """Builds the sdist and, from it, the wheel into ``dist``, and checks both; ``-- v1.2.3`` must be their version."""
    session.install("--group", "dev")
    version = PROJECT["project"]["version"]
    if session.posargs not in ([], [f"v{version}"]):
        session.error(f"the tag is {' '.join(session.posargs)}, the version {version}")
    shutil.rmtree(DIST, ignore_errors=True)
    installer = "uv" if session.venv_backend == "uv" else "pip"
    session.run("python", "-m", "build", "--installer", installer, "--outdir", str(DIST))
    with zipfile.ZipFile(built_wheel()) as wheel:
        contents = wheel.namelist()
        metadata = wheel.read(f"grpcpool-{version}.dist-info/METADATA").decode()
    for wanted in ("grpcpool/py.typed", "/LICENSE", "/grafana.json", "/inspector/page.html", "/_bench/report.html"):
        if not any(name.endswith(wanted) for name in contents):
            session.error(f"the wheel has no {wanted}")
    for link in re.findall(r"\]\((?!https?:|#)[^)]*\)", metadata):
        session.error(f"a link in the wheel's README works only in the repository: {link}")


@nox.session(requires=["build"], reuse_venv=False)
def sdist(session: nox.Session) -> None:
    """Unpacks the sdist, installs it, and checks that the tests and the tasks of CONTRIBUTING can be run from it."""
    (archive,) = DIST.resolve().glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(archive, folder, filter="data")
        (root,) = pathlib.Path(folder).iterdir()
        for page in root.glob("*.md"):
            for link in re.findall(r"\]\((?!https?:|#)([^)#]*)", page.read_text(encoding="utf-8")):
                if not (root / link).exists():
                    session.error(f"the sdist has no {link}, to which its {page.name} links")
        with session.chdir(root):
            session.install("--group", "dev", ".[test]")
            session.run("pytest", "--collect-only", "-qq", "-m", "")
            session.run("nox", "--list")
            session.run("towncrier", "build", "--draft", "--version", "next", silent=True)
            session.run("bash", "-n", ".ci/run", ".ci/components", external=True)


@nox.session(requires=["build"], reuse_venv=False)
def demo(session: nox.Session) -> None:
    """Installs the wheel into a fresh environment and runs the demonstration outside the checkout."""
    session.install(str(built_wheel().resolve()))
    with session.chdir(session.create_tmp()):
        session.run("python", "-m", "grpcpool", "demo")


def built_wheel() -> pathlib.Path:
    """Returns the only wheel in ``dist``."""
    (wheel,) = DIST.glob("*.whl")
    return wheel


@nox.session
def bench(session: nox.Session) -> None:
    """Runs all benchmarks, or the given ones, and keeps and draws the results: ``nox -s bench -- bench/one.py``."""
    session.install(".[test]", "matplotlib", "psutil")
    session.run("python", "bench/all.py", *session.posargs)


@nox.session
def changelog(session: nox.Session) -> None:
    """Prints what the fragments in ``changelog.d`` will add to the changelog."""
    session.install("--group", "dev")
    session.run("towncrier", "build", "--draft", "--version", "next")
