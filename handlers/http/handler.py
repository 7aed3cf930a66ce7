"""http: a file of an HTTP server as a disk that is only read.

The server must support ranges and give the file a strong validator, so that a change of the file is noticed.
This module has the verbs; `opening` examines the file, `read_ahead` reads it.
"""

from contextlib import ExitStack
from functools import partial

from vscsihba.block import Buffer, Capabilities, Geometry, Views
from vscsihba.errors import UsageError
from vscsihba.handlers.asynchronous import wait
from vscsihba.handlers.base import AsyncVerbs, Done, Handler
from vscsihba.handlers.http import library
from vscsihba.handlers.http.easy import EasyHandles
from vscsihba.handlers.http.location import Location
from vscsihba.handlers.http.opening import examine
from vscsihba.handlers.http.options import HttpOptions
from vscsihba.handlers.http.read_ahead import Reader
from vscsihba.handlers.http.transfers import Transfers

_PHYSICAL_BLOCK = 4096


class HttpHandler(Handler):
    """A file of an HTTP server."""

    name = "http"
    example = "http:https://cloud.example/images/debian-12.raw"
    workers = 32

    class Options(HttpOptions, kw_only=True):
        """Options of the http handler."""

    options: Options

    def check(self) -> None:
        """Check that the package and the files of the options are there; the server is not asked."""
        library.pycurl()
        self.options.check_files()

    def open(self) -> None:
        """Ask the server for the size and the version of the file.

        Raises:
            HostError: The server does not deliver, or not in a way that makes a disk.
            UsageError: The file cannot be a disk.
        """
        options = self.options
        options.check_files()
        location = Location(options.url)
        transfers = Transfers(location, EasyHandles(options, location), options.connections)
        transfers.start()
        with ExitStack() as failing:
            failing.callback(transfers.close)
            # When the disk is added, a wrong URL is reported at once; later on, the server may be starting.
            self._version = examine(transfers, options, patient=not self.may_make)
            self._geometry = self._shape()
            failing.pop_all()
        self._transfers = transfers
        self._reader = Reader(transfers, self._version, options.timeout, options.read_ahead)

    def close(self) -> None:
        """End the connections."""
        self._transfers.close()

    @property
    def geometry(self) -> Geometry:
        """The size of the file, in whole blocks."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Nothing but reading."""
        return Capabilities(read_only=True)

    @property
    def identity(self) -> str:
        """The URL with the version of the file."""
        return f"http:{self.options.url} {self._version.validator.value}"

    @property
    def asynchronous(self) -> AsyncVerbs:
        """Reads that the thread of the disk finishes."""
        return AsyncVerbs(read=self._begin)

    def read(self, offset: int, views: Views) -> None:
        """Fetch a range, as far as it was not fetched ahead."""
        wait(partial(self._begin, offset, views))

    def _begin(self, offset: int, views: Views, done: Done) -> None:
        """Begin a read; an incomplete last block is filled with zeroes."""
        buffer = Buffer(views)
        there = max(0, min(buffer.length, self._version.size - offset))
        buffer.zero(there)
        if there < buffer.length:
            views = buffer.take(0, there)
        if there:
            self._transfers.call(partial(self._reader.read, offset, views, done))
        else:
            done(None)

    def _shape(self) -> Geometry:
        block, size = self.options.block_size, self._version.size
        try:
            return Geometry(
                -(-size // block) * block,
                block_size=block,
                physical_block_size=max(_PHYSICAL_BLOCK, block),
            )
        except UsageError as error:
            raise UsageError(f"{self.options.url}: {error.message}", cure=error.cure) from error
