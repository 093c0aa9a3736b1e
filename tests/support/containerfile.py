"""A Containerfile, carried out without a builder: each stage in a container that has booted.

Its base is this machine's Debian instead of the image that ``FROM`` names, and what is of the same
release is there already, as in a builder's cache: a container has no package index.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.container import Container


@dataclass(slots=True)
class Image:
    """A stage, and what the last one says of a container's process."""

    container: Container
    directory: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    stop_signal: str = "SIGTERM"
    health_check: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def path(self, place: str) -> Path:
        """Return the path of a place as seen from here."""
        return self.container.root / f"{self.directory}/{place}".lstrip("/")

    def run(self, script: str) -> None:
        """Run a shell's command in it."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        inside = f"cd {shlex.quote(self.directory)} && {script}"
        self.container.run("env", *variables, "sh", "-ec", inside)

    def copy(self, sources: list[Path], target: str) -> None:
        """Copy files, and what is in directories."""
        place = self.container.root / target.lstrip("/")
        if not target.startswith("/"):
            place = self.path(target)
        into = place if target.endswith("/") or sources[0].is_dir() else place.parent
        into.mkdir(parents=True, exist_ok=True)
        for source in sources:
            whole = f"{source}/." if source.is_dir() else source
            subprocess.run(["cp", "--archive", whole, place], check=True)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction with its arguments."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, arguments = line.partition(" ")
            yield name, arguments.strip()


@contextmanager
def built(text: str, context: Path, *cached: tuple[Path, str]) -> Iterator[Image]:
    """Carry a Containerfile out; provide its last stage.

    Args:
        text: the file's.
        context: the directory that it copies from.
        cached: directories, each with the place in the first stage that it is copied to.

    """
    stages: dict[str, Image] = {}
    with ExitStack() as running:
        image: Image | None = None
        for name, arguments in instructions(text):
            if name == "FROM":
                image = Image(running.enter_context(Container.booted()))
                if not stages:
                    for source, target in cached:
                        image.copy([source], target)
                stages[arguments.partition(" AS ")[2] or str(len(stages))] = image
            else:
                assert image is not None
                _carry_out(image, name, arguments, context, stages)
        assert image is not None
        yield image


def _carry_out(
    image: Image, name: str, arguments: str, context: Path, stages: dict[str, Image]
) -> None:
    """Carry out an instruction that makes something of a stage."""
    match name:
        case "WORKDIR":
            image.directory = arguments
            image.path("").mkdir(parents=True, exist_ok=True)
        case "COPY":
            *sources, target = arguments.split()
            root = context
            if sources[0].startswith("--from="):
                root = stages[sources.pop(0).removeprefix("--from=")].container.root
            image.copy([root / source.lstrip("/") for source in sources], target)
        case "RUN":
            image.run(arguments)
        case "ENV":
            for assignment in shlex.split(arguments):
                variable, _, value = assignment.partition("=")
                image.environment[variable] = value
        case _:
            _note(image, name, arguments)


def _note(image: Image, name: str, arguments: str) -> None:
    """Note what an instruction says of the containers."""
    match name:
        case "USER":
            image.user = arguments
        case "STOPSIGNAL":
            image.stop_signal = arguments
        case "HEALTHCHECK":
            image.health_check = json.loads(arguments.partition(" CMD ")[2])
        case "ENTRYPOINT":
            image.entrypoint = json.loads(arguments)
        case "CMD":
            image.command = json.loads(arguments)
        case "EXPOSE":
            assert arguments.isdigit()
        case _:
            raise AssertionError(f"{name} is not carried out here")
