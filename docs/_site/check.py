"""Is the built site offline and whole? `python docs/_site/check.py docs/_build/html`, at the end of `make docs`.

Of every page: no script, style, picture or frame from elsewhere. Where a chromium is installed, also of every page with a
recording, opened from the disk: the charts are drawn, the console holds no error, and no host can be resolved meanwhile.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

LOADING = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "link": "href",
    "source": "src",
    "video": "src",
    "embed": "src",
}
CODE = ("code", "pre", "script", "style")  # where a backslash is meant
LATEX = re.compile(r"\$\$|\\[a-z]{3,}")  # an equation that was not read as one
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
)
QUIET += " --disable-component-update --enable-logging=stderr --v=0 --window-size=1300,4000 --virtual-time-budget=20000"


class Loads(HTMLParser):
    """What a page loads from elsewhere when it is opened, the files beside it that it names, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.local: list[str] = []
        self.words: list[str] = []
        self._code = 0

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in CODE

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._code += tag in CODE
        place = given.get(LOADING.get(tag, "")) or ""
        if not place or (tag == "link" and given.get("rel") not in ("stylesheet", "icon", "preload")):
            return
        (self.foreign if ELSEWHERE.match(place) else self.local).append(place)


def faults_of(path: Path) -> list[str]:
    """What is wrong with a page or a style sheet, by its text alone."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return [
            f"{path}: loads {url}" for url in re.findall(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)", text)
        ]
    found = Loads()
    found.feed(text)
    missing = [
        place
        for place in found.local
        if not place.startswith("data:") and not (path.parent / place.split("?")[0]).exists()
    ]
    unread = [f"{path}: LaTeX in the text: {data.strip()[:60]}" for data in found.words if LATEX.search(data)]
    return [f"{path}: loads {place}" for place in found.foreign] + [f"{path}: no {place}" for place in missing] + unread


def opened(browser: str, path: Path) -> list[str]:
    """What the browser complains of when it opens a page from the disk, and recordings that it did not draw."""
    with tempfile.TemporaryDirectory() as profile:
        closed = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"]
        done = subprocess.run(
            [browser, *QUIET.split(), *closed, "--dump-dom", path.as_uri() + "#all"],
            capture_output=True,
            text=True,
            timeout=300,
        )
    faults = [line.split("CONSOLE", 1)[1] for line in done.stderr.splitlines() if "CONSOLE" in line]
    wanted = path.read_text(encoding="utf-8").count("data-recording=")
    drawn = done.stdout.count('class="bar"')
    return [f"{path}: {fault}" for fault in faults] + (
        [f"{path}: {drawn} of {wanted} recordings drawn"] if drawn != wanted else []
    )


def main(folder: str) -> int:
    """Exit code 1 if anything is wrong."""
    root = Path(folder).resolve()
    files = [*root.rglob("*.html"), *root.rglob("*.css")]
    faults = [fault for path in files for fault in faults_of(path)]
    playing = [path for path in root.rglob("*.html") if "data-recording=" in path.read_text(encoding="utf-8")]
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser:
        faults += [fault for path in [root / "index.html", *playing] for fault in opened(browser, path)]
    said = f"{len(playing)} pages with recordings " + (
        "opened from the disk" if browser else "NOT opened: no chromium here"
    )
    print("\n".join([*faults, f"{len(files)} files, {said}, {len(faults)} faults"]))
    return 1 if faults or not playing else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
