"""An experiment as a link: where it begins, what is set on top of that, and what a stranger's link may not do.

A link's query is ``config=deepseek_v3&pipeline.ranks=8&schedule=1f1b``: a packaged configuration by name, then any key
of it by its dotted path, its value in YAML, as ``--set`` takes both. A configuration of a user's own travels along, as
``yaml=…``: deflated, in base64url. ``view.…`` is how the page shows it, ``token`` opens a page on a network.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from dualpipe_sim.base.files import watched
from dualpipe_sim.config.cost_section import is_own
from dualpipe_sim.config.load import experiment_of, packaged_configs, read_config
from dualpipe_sim.config.yaml_text import Data, as_yaml, parse_yaml, read_yaml
from dualpipe_sim.errors import UserError, did_you_mean, plain, quoted
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.serving.readable import is_readable

MOST_CHARACTERS = 16_000
"""Of a link's query: browsers and chats pass on as much."""

_MOST_YAML = 200_000
_MOST_SETTINGS = 200
_OF_THE_PAGE = re.compile(r"config|yaml|token|view\..*")
_KEY = re.compile(r"[A-Za-z_][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Start:
    """What a server was started with, which a link that names nothing else means.

    Attributes:
        config: as it was given: a packaged configuration's name, or a file.
        data: what it holds.
        source: where it is, from where it names files.
        files: those that it names, which links may read, too.

    """

    config: str
    data: Data
    source: str
    files: frozenset[str]

    @classmethod
    def of(cls, config: str) -> Start:
        """Return the start with a configuration, after a look at whether it is one.

        >>> Start.of("figure5").link
        'config=figure5'

        Raises:
            UserError: what is wrong with it.

        """
        files: list[Path] = []
        with watched(files.append):
            data, source = read_config(config)
            experiment_of(dict(data), source)
        return cls(config, data, source, frozenset(map(os.path.realpath, files)))

    @property
    def link(self) -> str:
        """The query of a link to it, which holds a file of a user's own whole."""
        if packaged_configs().get(self.config) == Path(self.source):
            return urlencode({"config": self.config})
        return urlencode({"yaml": _packed(as_yaml(self.data))})

    def guard(self) -> AbstractContextManager[None]:
        """Read no file inside but the package's own and those that the start named; any other is a UserError."""
        return watched(partial(_check_readable, self))

    def in_words(self, error: UserError) -> str:
        """Return what is wrong, without where this machine has the configuration."""
        text = " ".join(str(error).split())
        sources = (self.source, *map(str, packaged_configs().values()))
        for source in sources:
            text = text.removeprefix(f"{source}: ")
        for folder in {f"{Path(source).parent}{os.sep}" for source in sources if Path(source).parent.name}:
            text = text.replace(folder, "")
        return text


@dataclass(frozen=True)
class Link:
    """What a link says.

    Attributes:
        config: a packaged configuration's name, or nothing.
        yaml: a configuration in full, or nothing; with neither it is that of the start.
        settings: values in YAML by key, in the order in which they are set.

    """

    config: str = ""
    yaml: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, query: str) -> Link:
        """Return what a URL's query says.

        >>> Link.parse("config=figure5&pipeline.micro_batches=40&view.side=all")
        Link(config='figure5', yaml='', settings=(('pipeline.micro_batches', '40'),))

        Raises:
            UserError: it is no link of ours, or says too much.

        """
        if len(query) > MOST_CHARACTERS:
            raise UserError(f"the link has {len(query):,} characters; {MOST_CHARACTERS:,} are the most")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_SETTINGS)
        except ValueError as error:
            raise UserError(f"the link cannot be read: {error}") from error
        begins = dict(pairs)
        settings = tuple((key, value) for key, value in pairs if not _OF_THE_PAGE.fullmatch(key))
        for key, _ in settings:
            if not _KEY.fullmatch(key):
                raise UserError(f"{plain(key)}: must be a key like pipeline.ranks")
        config, packed = begins.get("config", ""), begins.get("yaml", "")
        if config and packed:
            raise UserError("config: a link begins with a packaged config or has a yaml of its own; take one")
        if config and config not in packaged_configs():
            hint = did_you_mean(config, packaged_configs())
            raise UserError(f"config: there is no packaged config {quoted(config)}{hint}")
        return cls(config, _unpacked(packed) if packed else "", settings)

    def read(self, start: Start) -> tuple[Data, Experiment]:
        """Return the configuration that a link means, presets unread, and the experiment that it is.

        Raises:
            UserError: what is wrong with it, in one line.

        """
        data, source = self._begins(start)
        settings = [f"{key}={value}" for key, value in self.settings]
        data, _ = read_config(data, settings=settings, source=source)
        _check_costs(data, start)
        return data, experiment_of(dict(data), source)

    def _begins(self, start: Start) -> tuple[Data, str]:
        if self.config:
            return _packaged(self.config), str(packaged_configs()[self.config])
        if not self.yaml:
            return start.data, start.source
        data = parse_yaml(self.yaml, "yaml")
        if not isinstance(data, dict):
            raise UserError(f"yaml: must be a mapping of keys like 'pipeline:' and 'schedule:', got {quoted(data)}")
        return data, start.source  # whose files it may name, from where that one does


@cache
def _packaged(name: str) -> Data:
    return read_yaml(packaged_configs()[name])


def _check_readable(start: Start, path: Path) -> None:
    """Refuse a file that is neither the package's nor named by whoever started the server."""
    if not is_readable(path, start.files):
        raise UserError(
            f"{plain(path.name)}: a link reads no files of this machine but those that the CONFIG of "
            "`dualpipe-sim explore CONFIG` names"
        )


def _check_costs(data: Data, start: Start) -> None:
    """Refuse new values for costs of a kind that a plugin registered: nobody knows what it does with them."""
    costs = data.get("costs")
    kind = costs.get("kind", "uniform") if isinstance(costs, dict) else "uniform"
    if not (isinstance(kind, str) and is_own(kind)) and costs != start.data.get("costs"):
        raise UserError(f"costs: those of kind {quoted(kind)} stay as they were when the page was started")


def _packed(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def _unpacked(packed: str) -> str:
    try:
        given = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        unpack = zlib.decompressobj()
        text = unpack.decompress(given, _MOST_YAML)
        if unpack.unconsumed_tail:
            raise UserError(f"yaml: a link's configuration has at most {_MOST_YAML:,} bytes")
        return text.decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("yaml: cannot be unpacked; was the whole link copied?") from error
