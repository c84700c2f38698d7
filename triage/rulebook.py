"""The rule set in force. It changes as a whole or not at all, and what is wrong with the files stops nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from triage.clock import Clock
from triage.effects import rules_alert
from triage.errors import Problem, ProblemsError, RulesInvalid, StoreUnavailable
from triage.progress import LIMIT, Progress, Work
from triage.rulecheck import check_rules, read_rule_set
from triage.rules.course import ONE_BY_ONE
from triage.rules.model import AlertPolicy, RuleSet
from triage.rulewatch import Signature, signature, watch_rules
from triage.stores import Store

log = logging.getLogger(__name__)

ALERT: Final = AlertPolicy(group_by=("fingerprint",), course=ONE_BY_ONE)
"""Who hears of rule files that cannot be used: ``default``, once for each bad state."""

_TOLD: Final = 20
"""Problems that are logged one by one."""

_STORE_RETRY: Final = timedelta(seconds=5)


class RuleBook:
    """Holds the set in force and takes a new one when the files have changed. Made by `open`.

    The set in force is always one that the store keeps, so every decision's digest can be looked up.
    """

    def __init__(
        self,
        path: Path,
        rules: RuleSet,
        *,
        read: Callable[[], RuleSet],
        store: Store,
        clock: Clock,
        seen: Signature,
        limit: timedelta = LIMIT,
        work: Work | None = None,
    ) -> None:
        self._work = work or Work()
        self._path, self._rules, self._read = path, rules, read
        self._store, self._clock, self._seen = store, clock, seen
        self._watching, self._reading = Progress(limit), Progress(limit)
        self.stages = {"rules watch": self._watching, "rules reload": self._reading}
        self._one_at_a_time = asyncio.Lock()
        self.problems: Sequence[Problem] = ()
        """What keeps the files, as they were read last, from being in force."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        receivers: Collection[str],
        store: Store,
        clock: Clock,
        read: Callable[..., RuleSet] = read_rule_set,
        limit: timedelta = LIMIT,
        work: Work | None = None,
    ) -> RuleBook:
        """Put the rules at ``path`` in force, or, when they cannot be used, the last good set that the store keeps.

        Args:
            path: the folder or file to watch.
            receivers: those that rules may name.
            read: reads and checks what is there, as `read_rule_set` does; called in a thread.
            limit: how long watching or reading may stand still.
            work: is counted up.

        Raises:
            RulesInvalid, ConfigInvalid: the rules cannot be used, and no kept set can either.
            StoreUnavailable: the set could not be kept.
        """

        def read_now() -> RuleSet:
            return read(path, receivers=receivers, today=clock.now().date())

        seen = await asyncio.to_thread(signature, path)
        try:
            rules = await _load(path, read_now)
        except ProblemsError as error:
            rules = await _last_good(store, error, receivers=receivers, today=clock.now().date())
            book = cls(path, rules, read=read_now, store=store, clock=clock, seen=seen, limit=limit, work=work)
            await book._refuse(error.problems)
            return book
        await store.save_rule_set(rules.digest, rules.texts, now=clock.now())
        return cls(path, rules, read=read_now, store=store, clock=clock, seen=seen, limit=limit, work=work)

    def current(self) -> RuleSet:
        """The set in force."""
        return self._rules

    async def run(self, stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Take new rules whenever the files have changed, or ``reload`` is set, until ``stop``."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(stop, reload))
            while await reload.wait() and not stop.is_set():
                reload.clear()
                self._reading.busy(self._clock.steady())
                try:
                    await self.reload()
                except StoreUnavailable as error:
                    log.error("the rules stay as they are while the store fails: %s", error)  # noqa: TRY400
                    self._reading.tried(self._clock.steady() + _STORE_RETRY)
                    await self._clock.wait(stop, _STORE_RETRY)
                    reload.set()
                else:
                    self._reading.rest()

    async def _watch(self, stop: asyncio.Event, reload: asyncio.Event) -> None:
        await watch_rules(
            self._path, seen=self._seen, changed=reload.set, stop=stop, clock=self._clock, progress=self._watching
        )
        reload.set()  # wakes `run`, which then sees that it is to stop

    async def reload(self) -> bool:
        """Read the files, off to the side; put them in force if all is well. Whether they are in force now.

        Raises:
            StoreUnavailable: nothing has changed.
        """
        async with self._one_at_a_time:  # the files may change while a person asks for them
            return await self._reload()

    async def _reload(self) -> bool:
        try:
            rules = await _load(self._path, self._read)
        except ProblemsError as error:
            self._work.rules_read["refused"] += 1
            await self._refuse(error.problems)
            return False
        self.problems = ()
        await self._store.save_rule_set(rules.digest, rules.texts, now=self._clock.now())
        self._work.rules_read["same" if rules.digest == self._rules.digest else "taken"] += 1
        if rules.digest == self._rules.digest:
            log.info("rules read again: nothing new, %s stays in force", rules.digest[:12])
        else:
            log.info("rules in force: %s, %s; before: %s", *_named(rules), self._rules.digest[:12])
            self._rules = rules
        return True

    async def _refuse(self, problems: Sequence[Problem]) -> None:
        self.problems = problems
        log.error("the rule files cannot be used; %s, %s, stays in force", *_named(self._rules))
        for problem in problems[:_TOLD]:
            for line in str(problem).splitlines():  # one record a line, so that the caret stands where it points to
                log.error("%s", line)
        if len(problems) > _TOLD:
            log.error("and %d more problems: triage rules check %s", len(problems) - _TOLD, self._path)
        await self._store.refuse_rules(problems, rules_alert(problems, policy=ALERT), now=self._clock.now())


async def _load(path: Path, read: Callable[[], RuleSet]) -> RuleSet:
    try:
        return await asyncio.to_thread(read)
    except ProblemsError:
        raise
    except Exception as error:
        # The boundary of the loader: whatever a file does to it, the set in force does its work. It shows as a problem.
        log.exception("%s: a defect of triage", path)
        raise RulesInvalid([Problem(str(path), 0, 0, f"cannot be loaded: {type(error).__name__}: {error}")]) from error


async def _last_good(store: Store, error: ProblemsError, *, receivers: Collection[str], today: date) -> RuleSet:
    """The last good set of the store; without one that can be used, ``error`` is raised."""
    kept = await store.rule_set()
    if kept is None:
        raise error
    digest, sources = kept
    try:
        return await asyncio.to_thread(check_rules, sources, receivers=receivers, today=today)
    except RulesInvalid as worse:
        name = f"the last good set {digest[:12]}"
        advice = Problem(name, 0, 0, "cannot be used in their place: mend the files, or bring back what it lacks")
        old = [replace(each, file=f"{name}: {each.file}") for each in worse.problems]
        raise RulesInvalid([*error.problems, advice, *old]) from worse


def _named(rules: RuleSet) -> tuple[str, str]:
    count = len(rules.rules)
    return rules.digest[:12], f"{count} {'rule' if count == 1 else 'rules'}"
