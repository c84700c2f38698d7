"""The composition root: settings in, a running daemon out. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

from triage.alarm import StoreAlarm
from triage.clock import Clock
from triage.cloud.fc import FcClient
from triage.composing import Composer
from triage.configuration import (
    Configuration,
    cutoffs_at,
    labels_of,
    maintenance_of,
    quarantine_policy,
    receivers_of,
    routes_of,
    templates_of,
    watches_of,
)
from triage.consumer import Consumer
from triage.errors import StoreUnavailable
from triage.heartbeat import Heartbeat, Ping, pings_of
from triage.intakes import credentials_of, intakes_of
from triage.killswitch import KillSwitch
from triage.notify import AppriseNotifier
from triage.outbound import Guard
from triage.outbound import session as session_of
from triage.outbox import Outbox
from triage.progress import LIMIT, Progress, Stage, Work, stalled
from triage.retention import Retention
from triage.rulebook import RuleBook
from triage.rulefiles import default_rules_dir
from triage.rules.owners import by_owner
from triage.sdnotify import Supervisor
from triage.settings import Settings, show_duration
from triage.standing import Duties, arm, standing
from triage.stores import Store
from triage.stores.retention import STAGES
from triage.stores.sqlite import SqliteStore
from triage.supervision import Supervision
from triage.traces import tracing
from triage.web.ops import Ops, serve_ops

log = logging.getLogger(__name__)

_HTTP_LIMIT: Final = 100
"""Connections at a time, over all hosts: the receivers' long polls and the outbox's calls."""

_TURN: Final = timedelta(milliseconds=500)
"""Between two signs of life of the event loop."""


class App:
    """One daemon: store, rules, sources, consumer, outbox. Built by `build`, which also takes it down again."""

    def __init__(
        self,
        *,
        configuration: Configuration,
        store: Store,
        rules: RuleBook,
        consumer: Consumer,
        outbox: Outbox,
        kill_switch: KillSwitch,
        retention: Retention,
        notifier: AppriseNotifier,
        pings: Mapping[str, Ping],
        supervisor: Supervisor,
        clock: Clock,
        take: Callable[[Settings], Awaitable[None]],
        composer: Composer,
        limit: timedelta,
    ) -> None:
        """``take`` puts changed settings in force, as `Configuration.reload` wants it. ``pings``: see `Heartbeat`."""
        self.store, self.rules, self.notifier = store, rules, notifier
        self._configuration, self._take, redact = configuration, take, configuration.redact
        self._composer = composer
        settings = configuration.settings
        self.url = ""
        """Where the operations endpoint listens; empty when it is off."""
        self._consumer, self._outbox, self._kill_switch = consumer, outbox, kill_switch
        self._retention = retention
        # A loop that is blocked sends no pings either: end before the supervisor does, who tells nobody.
        soon = limit if supervisor.watchdog is None else max(supervisor.watchdog / 2, 10 * _TURN)
        self._clock, self._turning = clock, Progress(min(limit, soon))
        self._alarm = StoreAlarm(
            notifier, to=settings.watchdog.to or ("default",), stages=self.stages, clock=clock, redact=redact
        )
        self._heartbeat = Heartbeat(pings, every=settings.heartbeat.every, stages=self.stages, clock=clock)
        self._supervisor = supervisor
        self._supervision = Supervision(
            supervisor,
            stages=self.stages,
            sources=consumer.receiving,
            rules=lambda: rules.current().digest,
            mistakes=self._mistakes,
            clock=clock,
            redact=redact,
        )

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._configuration.settings

    def _mistakes(self) -> Iterator[str]:
        if self._configuration.problems:
            yield f"the settings are not used, mistakes: {len(self._configuration.problems)} (triage config check)"
        if self.rules.problems:
            yield f"the rule files are not used, mistakes: {len(self.rules.problems)} (triage rules check)"

    @property
    def stages(self) -> dict[str, Progress]:
        """How each stage gets on, by its name."""
        parts = (self._consumer, self._outbox, self.rules, self._kill_switch, self._retention, self.notifier)
        return {name: stage for part in parts for name, stage in part.stages.items()} | {"event loop": self._turning}

    def stalled(self, now: datetime) -> list[Stage]:
        """The stages that stand still; empty while all is well. May be asked from any thread.

        Args:
            now: by `Clock.steady`.
        """
        return stalled(self.stages, now)

    async def run(
        self, stop: asyncio.Event, *, reload: asyncio.Event | None = None, halt: asyncio.Event | None = None
    ) -> None:
        """Work until ``stop``, then finish what is held within the grace period. What is not finished by then is
        cancelled; nothing of it is lost, it comes again from the queue or from under its lease.

        Args:
            reload: set it to have settings and rules read again at once.
            halt: set it to switch all re-runs off.
        """
        changed = asyncio.Event()
        work = {
            asyncio.create_task(self._consumer.run(stop), name="consumer"),
            asyncio.create_task(self._outbox.run(stop), name="outbox"),
            asyncio.create_task(self.rules.run(stop, changed), name="rules"),
            asyncio.create_task(self._kill_switch.run(stop, halt or asyncio.Event()), name="kill switch"),
            asyncio.create_task(self._retention.run(stop), name="retention"),
        }
        stopping = asyncio.create_task(stop.wait())
        beside = {
            stopping,
            asyncio.create_task(self._supervision.run()),  # also while it shuts down
            asyncio.create_task(self._turn()),
            asyncio.create_task(self._alarm.run()),
            asyncio.create_task(self._heartbeat.run()),
            asyncio.create_task(self._reload_on(reload or asyncio.Event(), changed)),
        }
        self._supervisor.ready()
        try:
            await asyncio.wait({*work, *beside}, return_when=asyncio.FIRST_COMPLETED)
            stop.set()  # a loop that ended by itself has failed; the other one must not go on alone
            self._supervisor.stopping()
            log.info("stopping: what is under way is finished, within %s", show_duration(self.settings.consumer.grace))
            _, late = await asyncio.wait(work, timeout=self.settings.consumer.grace.total_seconds())
            if late:
                log.warning("not finished within the grace period: %s", ", ".join(task.get_name() for task in late))
        finally:
            for task in (*work, *beside):
                task.cancel()
            results = await asyncio.gather(*work, *beside, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _turn(self) -> None:
        """Show that the event loop turns. Whoever looks must do so from another thread."""
        while True:
            self._turning.rest()
            self._turning.busy(self._clock.steady())
            await self._clock.sleep(_TURN)

    async def _reload_on(self, asked: asyncio.Event, changed: asyncio.Event) -> None:
        """Read again what a person has changed, and say when that is done."""
        while await asked.wait():
            asked.clear()
            self._supervisor.reloading()
            await self._configuration.reload(self._take)
            try:
                await self.rules.reload()
            except StoreUnavailable as error:
                log.error("the rules stay as they are while the store fails: %s", error)  # noqa: TRY400
                changed.set()  # tries until it succeeds
            self._composer.check()
            self._supervision.tell()
            self._supervisor.ready()


@asynccontextmanager
async def build(
    settings: Settings,
    *,
    clock: Clock,
    write: Callable[[str], None] | None = None,
    supervisor: Supervisor | None = None,
    reread: Callable[[], Settings] | None = None,
    configured: Callable[[Settings], None] = lambda _settings: None,
) -> AsyncIterator[App]:
    """Put a daemon together; on leaving, everything is closed, also when building failed half way.

    Args:
        write: where the ``console:`` receiver writes; standard output by default.
        supervisor: who started this process and wants to know how it gets on; nobody by default.
        reread: reads the settings again for a reload; without it only rules are reloaded.
        configured: is called with settings that were taken; sets up the log.

    Raises:
        ConfigInvalid, RulesInvalid, StoreUnavailable, Misconfigured: with what to do about it.
        OSError: the operations endpoint cannot listen at its address.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        limit, work, guard = settings.watchdog.limit or LIMIT, Work(), Guard.of(settings.outbound.allow)
        configuration = Configuration(settings, read=reread)
        notifier = await asyncio.to_thread(
            AppriseNotifier.load, receivers_of(settings), write=write, clock=clock, limit=limit, guard=guard
        )
        store = await SqliteStore.open(settings.store.path, seal=settings.encryption.seal)
        stack.push_async_callback(store.close)
        receivers = set(settings.receivers)  # those of the moment, as rules are checked against
        routes, duties = (
            routes_of(settings),
            Duties(watches_of(settings), settings.digest.digest, maintenance_of(settings)),
        )
        rules = await RuleBook.open(
            settings.rules or default_rules_dir(), receivers=receivers, store=store, clock=clock, limit=limit, work=work
        )
        session = await stack.enter_async_context(session_of(guard, limit=_HTTP_LIMIT))
        credentials = credentials_of(settings, clock)
        functions = FcClient(
            session,
            credentials=credentials,
            clock=clock,
            endpoint=settings.fc.endpoint or "",
            region=settings.fc.region,
            account=settings.fc.account,
            timeout=settings.fc.timeout,
        )
        composer = Composer(
            forms=notifier.forms,
            rules=rules.current,
            templates=templates_of(settings),
            sites=settings.links.sites,
            work=work,
        )
        traces = await stack.enter_async_context(tracing(settings.traces, guard=guard))
        outbox = Outbox(
            store=store,
            invoker=functions,
            notifier=notifier,
            clock=clock,
            lease=settings.outbox.lease,
            concurrency=settings.outbox.concurrency,
            retries=settings.outbox.retries,
            guards=settings.reruns.guards,
            limit=limit,
            orders=settings.reruns.limits,
            routes=routes.get,
            standing=standing(duties, store=store, clock=clock, allowance=settings.reruns.guards.budget),
            storm=settings.storm.groups,
            work=work,
            compose=composer,
            traces=traces,
        )
        await arm(store, duties, clock=clock)
        kill_switch = KillSwitch(
            store=store, path=settings.reruns.stop_file, clock=clock, changed=outbox.poke, limit=limit
        )
        await kill_switch.look()  # before the first row is claimed
        await store.slow_start(now=clock.now())
        consumer = Consumer(
            [
                intake
                async for intake in intakes_of(
                    settings,
                    stack,
                    session=session,
                    credentials=credentials,
                    functions=functions,
                    store=store,
                    clock=clock,
                )
            ],
            store=store,
            rules=by_owner(rules.current, lambda: configuration.settings.owners),
            clock=clock,
            batch=settings.consumer.batch,
            quarantine=quarantine_policy(settings),
            committed=outbox.poke,
            labels=labels_of(settings.labels),
            elsewhere=settings.reruns.elsewhere_within,
            limit=limit,
            work=work,
            traces=traces,
            redaction=settings.redaction.redaction,
        )

        async def take(new: Settings) -> None:
            notifier.adopt(await asyncio.to_thread(AppriseNotifier.load, receivers_of(new), write=write))
            composer.use(sites=new.links.sites, templates=templates_of(new))
            receivers.clear()
            receivers.update(new.receivers)
            routes.clear()
            routes.update(routes_of(new))
            consumer.use(labels=labels_of(new.labels), quarantine=quarantine_policy(new))
            duties.watches, duties.digest = watches_of(new), new.digest.digest
            duties.maintenance = maintenance_of(new)
            with suppress(StoreUnavailable):  # what is new is looked after from the next start on
                await arm(store, duties, clock=clock)
            configured(new)

        composer.check()
        app = App(
            configuration=configuration,
            composer=composer,
            store=store,
            rules=rules,
            consumer=consumer,
            outbox=outbox,
            kill_switch=kill_switch,
            retention=Retention(
                store,
                stages=STAGES,
                cutoffs=lambda: cutoffs_at(clock.now(), configuration.settings.retention),
                clock=clock,
                limit=limit,
            ),
            notifier=notifier,
            pings=pings_of(session, notifier, url=settings.heartbeat.url.get_secret_value(), to=settings.heartbeat.to),
            supervisor=supervisor or Supervisor({}, pid=0),
            clock=clock,
            take=take,
            limit=limit,
        )
        if settings.web.listen:  # the last to be built: it is there before the loops run, and until they have ended
            ops = Ops(
                store=store,
                rules=rules.current,
                stages=app.stages,
                sources=consumer.receiving,
                work=work,
                oldest=consumer.oldest,
                clock=clock,
                redact=configuration.redact,
                guards=settings.reruns.guards,
            )
            app.url = await stack.enter_async_context(serve_ops(ops, settings.web))
        yield app
