"""The operations endpoint: whether the daemon lives, whether it can work, and how much it has done.

It looks at what the loops keep anyway and asks the store at most every few seconds, however often it is asked itself.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from triage import __version__
from triage.clock import Clock
from triage.errors import Problem, StoreUnavailable
from triage.log import printable_json
from triage.progress import Progress, Receiving, Work, stalled
from triage.reruns.gate import Safeguards
from triage.rules.model import RuleSet
from triage.settings import WebSettings
from triage.stores import RulesState, Store, Totals
from triage.web.metrics import CONTENT_TYPE, View, metrics_text

log = logging.getLogger(__name__)

_FRESH: Final = timedelta(seconds=5)
"""How long an answer of the store is used. The sums of a large store take a while; scrapers come from everywhere."""

_PATIENCE: Final = 5.0
"""Seconds until a store that does not answer counts as out of reach. Probes seldom wait longer."""

_TOLD: Final = 20
"""Problems of the rule files that are told one by one."""

_GUARDS: Final = Safeguards()

_HEADERS: Final = {"Cache-Control": "no-store", "Server": "triage"}
"""With every answer. By itself the library tells strangers its version."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What the store said, or why it said nothing."""

    at: datetime
    totals: Totals | None = None
    rules: RulesState | None = None
    error: str = ""


class Ops:
    """Answers questions about one daemon."""

    def __init__(
        self,
        *,
        store: Store,
        rules: Callable[[], RuleSet],
        stages: Mapping[str, Progress],
        sources: Mapping[str, Receiving],
        clock: Clock,
        redact: Callable[[str], str],
        guards: Safeguards = _GUARDS,
        work: Work | None = None,
        oldest: Callable[[str], datetime | None] = lambda _source: None,
    ) -> None:
        """``rules`` gives the set in force, ``oldest`` since when the oldest message that is held from a source is in
        its queue; ``redact`` takes secrets out of texts that came from outside; ``guards``: what re-runs have to pass.
        """
        self._store, self._rules, self._stages, self._sources = store, rules, stages, sources
        self._clock, self._redact, self._work = clock, redact, work or Work()
        self._oldest, self._guards = oldest, guards
        self._asking = asyncio.Lock()
        self._seen: _Look | None = None

    def routes(self) -> list[web.RouteDef]:
        """The paths; each answers GET and HEAD."""
        return [
            web.get("/healthz", self.health),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        """200 while each stage gets on with its work; else 503 and the stages that do not. Asks nobody."""
        still = stalled(self._stages, self._clock.steady())
        return _line("; ".join(map(str, still)) or "ok", status=503 if still else 200)

    async def ready(self, _request: web.Request) -> web.Response:
        """200 while the store and every source answer, else 503; with the details as JSON.

        Rule files that cannot be used are told and change nothing about it: the last good set is in force.
        """
        look = await self._look()
        ready = not look.error and not any(source.failing for source in self._sources.values())
        details = {
            "ready": ready,
            "store": {"reachable": not look.error, "error": self._redact(look.error) or None},
            "rules": self._rules_details(look.rules),
            "sources": {name: self._source_details(source) for name, source in self._sources.items()},
        }
        text = printable_json(json.dumps(details, indent=2, ensure_ascii=False)) + "\n"
        return web.Response(text=text, status=200 if ready else 503, content_type="application/json")

    def _rules_details(self, state: RulesState | None) -> dict[str, Any]:
        problems = state.problems if state else ()
        return {
            "digest": self._rules().digest,
            "loaded_at": _instant(state.loaded_at if state else None),
            "refused_at": _instant(state.refused_at if state else None),
            "problems": [self._redact(_place(problem)) for problem in problems[:_TOLD]],
            "problems_total": len(problems),
        }

    def _source_details(self, source: Receiving) -> dict[str, Any]:
        return {
            "ok": not source.failing,
            "last_receive_at": _instant(source.received_at),
            "last_error_at": _instant(source.failed_at),
            "last_error": self._redact(source.error) or None,
        }

    async def metrics(self, _request: web.Request) -> web.Response:
        """The metrics in Prometheus' text format. Without a store those that come from it are absent."""
        look, now = await self._look(), self._clock.steady()
        view = View(
            version=__version__,
            rules=self._rules().digest,
            totals=look.totals,
            state=look.rules,
            sources=self._sources,
            at=self._clock.now(),
            guards=self._guards,
            seen_at=look.at,
            work=self._work,
            oldest={name: self._oldest(name) for name in self._sources},
            waiting={name: progress.waiting(now) for name, progress in self._stages.items()},
        )
        return web.Response(body=metrics_text(view).encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _look(self) -> _Look:
        async with self._asking:  # those who come together wait for one answer
            now = self._clock.now()
            if self._seen is None or not timedelta(0) <= now - self._seen.at < _FRESH:
                self._seen = await self._ask(now)
            return self._seen

    async def _ask(self, now: datetime) -> _Look:
        try:
            async with asyncio.timeout(_PATIENCE):
                return _Look(now, totals=await self._store.totals(), rules=await self._store.rules_state())
        except TimeoutError:
            return _Look(now, error=f"no answer within {_PATIENCE:.0f} s")
        except StoreUnavailable as error:
            return _Look(now, error=str(error))


@asynccontextmanager
async def serve_ops(ops: Ops, settings: WebSettings) -> AsyncIterator[str]:
    """Serve until the block is left; gives the address, ``http://HOST:PORT``.

    Raises:
        OSError: the address cannot be listened on.
    """
    app = web.Application(middlewares=[_guard(settings.token.get_secret_value())])
    app.add_routes(ops.routes())
    app.on_response_prepare.append(_with_headers)
    # A connection that a scraper keeps open must not delay the end.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        host, port = settings.address
        await web.TCPSite(runner, host, port).start()
        host, port = runner.addresses[0][:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("operations endpoint: %s/healthz, /readyz, /metrics", url)
        yield url
    finally:
        await runner.cleanup()


def _guard(token: str) -> Middleware:
    """Lets in who knows the token, and answers in one line who asks for what is not there."""
    wanted = f"bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token and request.path != "/healthz":
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            shown = f"{scheme.lower()} {given.strip()}".encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(shown, wanted):
                return _line(
                    "a token is needed: Authorization: Bearer ...", status=401, **{"WWW-Authenticate": "Bearer"}
                )
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _line("not found; there are /healthz, /readyz and /metrics", status=404)

    return guard


async def _with_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _line(text: str, *, status: int, **headers: str) -> web.Response:
    return web.Response(text=f"{text}\n", status=status, headers=headers)


def _place(problem: Problem) -> str:
    """A problem in one line, without the excerpt of the file."""
    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    return f"{place}: {problem.message} ({problem.hint})" if problem.hint else f"{place}: {problem.message}"


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
