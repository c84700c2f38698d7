"""Makes the pictures of messages in this folder: python docs/explanation/screens/make.py [CHROMIUM]

They show the example of `triage alerts preview` as a phone of 390 × 844 points would. Needed are Chromium and the
packages of the extra `dev`. Look at every picture afterwards; docs/explanation/alerts.md says what to look for.
"""

from __future__ import annotations

import html
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from markdown_it import MarkdownIt

from triage.alerts.example import example
from triage.alerts.message import message_of
from triage.alerts.render import Format, render

HERE = Path(__file__).parent
WIDTH, HEIGHT = 390, 844
PAGE = """<!doctype html><meta charset="utf-8"><style>
html {{ background: #fff }} body {{ margin: 0; width: {width}px; height: {height}px; overflow: hidden; box-sizing: border-box;
font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #1c1e21; {style} }}
h1 {{ font-size: 16px; margin: 0 0 8px }} pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: inherit }}
.note {{ background: #ffffffe6; border-radius: 18px; padding: 12px 14px; margin: 0 8px 8px }}
.note b, .note p {{ display: -webkit-box; -webkit-box-orient: vertical; overflow: hidden; margin: 0; overflow-wrap: anywhere }}
.note b {{ -webkit-line-clamp: 1 }} .note p {{ -webkit-line-clamp: 2; white-space: pre-line; font-size: 14px }}
.chat {{ background: #fff; border-radius: 12px; padding: 10px 12px }} .chat ul {{ padding-left: 18px; margin: 6px 0 }}
.chat code {{ background: #eef0f3; border-radius: 4px; padding: 0 3px; font-size: 13px; overflow-wrap: anywhere }}
.chat a {{ overflow-wrap: anywhere }} .chat blockquote {{ margin: 0; padding-left: 8px; border-left: 3px solid #c6cad1 }}
</style><body>{body}</body>"""


def screens() -> dict[str, tuple[str, str]]:
    """Name, style and contents of each picture."""
    message = message_of(example(datetime(2026, 3, 1, 12, 0, tzinfo=UTC)), "ab12cd34")
    text, marked, page = (render(message, form) for form in Format)
    title = html.escape(message.title)
    note = f'<div class="note"><b>{title}</b><p>{html.escape(text)}</p></div>'
    clock = '<div style="text-align:center;color:#fff;font-size:64px;padding:90px 0 60px">12:00</div>'
    chat = MarkdownIt("commonmark").render(marked)
    return {
        "lock-screen": ("background:linear-gradient(#27374d,#526d82)", clock + note),
        "text": ("padding:16px", f"<h1>{title}</h1><pre>{html.escape(text)}</pre>"),
        "markdown": ("padding:12px;background:#dfe5ec", f'<div class="chat"><b>{title}</b>{chat}</div>'),
        "html": ("padding:16px", f"<h1>{title}</h1>{page}"),
    }


def main(chromium: str) -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (style, body) in screens().items():
            page = Path(folder, "page.html")
            page.write_text(PAGE.format(width=WIDTH, height=HEIGHT, style=style, body=body), encoding="utf-8")
            subprocess.run(
                [
                    chromium,
                    "--headless",
                    "--no-sandbox",
                    "--hide-scrollbars",
                    f"--user-data-dir={folder}/profile",
                    f"--window-size={WIDTH},{HEIGHT}",
                    f"--screenshot={HERE / f'{name}.png'}",
                    page.as_uri(),
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "chromium")
