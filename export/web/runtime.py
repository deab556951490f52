"""The page in headless Chromium, behind the interface of the other runtimes.

What runs is the written page itself; images go in and logits and signs come out through the
object that its script leaves in ``frostbit``.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from frostbit.export.c.convert import kept_signs
from frostbit.export.c.runtime import words_of
from frostbit.export.errors import ExportError, RuntimeMissing
from frostbit.export.runtimes import Images, Logits, Milliseconds
from frostbit.export.web.page import Setting, page
from frostbit.kernels.ir.bits import Words
from frostbit.kernels.ir.output import write_file
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.reference import check_images

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REMEDY = "or open the page: it checks itself"
AT_ONCE = 32
"""Images sent to the browser at a time."""
_RUN = """async ([text, size]) => {
    const { network } = await frostbit, sent = bytesOf(text);
    const numbers = network.takesFloats ? new Float32Array(sent.buffer) : sent, found = [];
    for (let at = 0; at < numbers.length; at += size) {
        const logits = network.run(numbers.subarray(at, at + size));
        found.push(new Uint8Array(logits.buffer), network.kept.slice());
    }
    const whole = new Uint8Array(await new Blob(found).arrayBuffer());
    let letters = "";
    for (let at = 0; at < whole.length; at += 32768)
        letters += String.fromCharCode(...whole.subarray(at, at + 32768));
    return btoa(letters);
}"""
_TIME = """async (repeats) => {
    const { network } = await frostbit, calls = network.callsAtOnce();
    return Array.from({ length: repeats }, () => network.time(calls));
}"""


def require_browser() -> str:
    """Path of Chromium.

    Raises:
        RuntimeMissing: it or playwright, which drives it, is not here, or an event loop is running
            (as in a notebook), beside which playwright does not run.
    """
    if find_spec("playwright") is None:
        raise RuntimeMissing(f"pip install playwright, which drives a browser, {REMEDY}")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        raise RuntimeMissing(f"there is no Chromium (Debian: apt-get install chromium), {REMEDY}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return path
    raise RuntimeMissing(f"no browser is driven inside an event loop; run it as a script, {REMEDY}")


class WebRuntime:
    """Our ``model.html`` in Chromium; one thread.

    Args:
        program: the Program that the page was made from.
        data: the page's bytes; made from ``program`` if None.

    Raises:
        RuntimeMissing: there is no Chromium, no playwright, or no clang to make the page with.
        ExportError: the page does not start, or is of a network of other sizes.
    """

    name = "web"

    def __init__(self, program: Program, data: bytes | None = None) -> None:
        self.program = program
        browser = require_browser()
        content = page(program, Setting()) if data is None else data
        self.size_bytes = len(content)
        self._kept = kept_signs(program)
        self._words = self._kept[-1].start + self._kept[-1].count if self._kept else 0
        with ExitStack() as stack:
            self._page = self._opened(stack, browser, content)
            self._open = stack.pop_all()

    def _opened(self, stack: ExitStack, browser: str, content: bytes) -> Page:
        from playwright.sync_api import Error, sync_playwright

        file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frostbit-")), "x.html")
        write_file(file, content)
        chromium = stack.enter_context(sync_playwright()).chromium.launch(executable_path=browser)
        stack.callback(chromium.close)
        try:
            opened = chromium.new_page()
            opened.goto(file.as_uri())
            sizes = opened.evaluate(
                "frostbit.then(({network: n}) => [n.image.length, n.logits.length, n.kept.length])"
            )
        except Error as error:
            reason = str(error).splitlines()[0]
            raise ExportError(f"the page does not start in Chromium: {reason}") from error
        wanted = [int(np.prod(self.program.input_shape)), len(self.program.classes)]
        if sizes != [*wanted, 4 * self._words]:
            raise ExportError("the page's input, classes or signs have other sizes: another model")
        return opened

    def _run(self, images: Images) -> tuple[Logits, NDArray[np.uint32]]:
        """Logits ``[N, classes]`` and all kept words ``[N, words]``."""
        check_images(images, self.program)
        rows = [np.empty((0, len(self.program.classes) + self._words), "<u4")]
        for start in range(0, len(images), AT_ONCE):
            sent = np.ascontiguousarray(images[start : start + AT_ONCE])
            text = base64.b64encode(sent.tobytes()).decode()
            found = cast("str", self._page.evaluate(_RUN, [text, sent[0].size]))
            words = np.frombuffer(base64.b64decode(found), "<u4")
            rows.append(words.reshape(len(sent), -1))
        whole = np.concatenate(rows)
        logits, kept = np.split(whole, [len(self.program.classes)], axis=1)
        return np.ascontiguousarray(logits).view("<f4").astype(np.float32), kept.astype(np.uint32)

    def logits(self, images: Images) -> Logits:
        """Logits float32 ``[N, classes]`` of ``[N, H, W, C]``, one image at a time."""
        return self._run(images)[0]

    def signs(self, images: Images) -> dict[str, Words]:
        """Every ``bits`` value by op name, uint64 ``[N, H, W, ceil(C/64)]``."""
        rows = self._run(images)[1]
        return {each.name: words_of(rows, each) for each in self._kept}

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        """Milliseconds of ``repeats`` runs, each the mean of a few: a browser's clock is coarse.

        Several images are run one after the other: the time is that of the last, times their
        number.
        """
        self._run(image)
        times = cast("list[float]", self._page.evaluate(_TIME, repeats))
        return np.array(times, np.float64) * len(image)

    def close(self) -> None:
        """Close the browser; the runtime must not be used afterwards."""
        self._open.close()
