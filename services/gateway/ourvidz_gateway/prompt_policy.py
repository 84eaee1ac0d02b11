"""The prompt policy at the gateway: the floor and the operator's rules, a moderation endpoint, and the audit.

The floor (`ourvidz_serving.prompt_floor`) holds for the prompt, the negative prompt and the enhanced prompt. The
operator's rule about adult content and the moderation endpoint judge what is to be seen, so the prompt and the enhanced
prompt: in a negative prompt, adult words exclude.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import structlog

from ourvidz_gateway import adult_content
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import PromptRefused
from ourvidz_gateway.moderation import Moderation, Verdict
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_gateway.text import is_plain
from ourvidz_serving.prompt_floor import floor_violation, negative_floor_violation

log = structlog.get_logger()

ADULT_CATEGORY = "sexual"
MINORS_CATEGORY = "sexual/minors"
MAX_RULE_CHARACTERS = 200

JUDGES = 2
"""Prompts that the rules are put to at once. One that is made to be slow takes them tenths of a second."""

JUDGED_AT_ONCE = 500
"""Characters. So few take less than a millisecond, four at worst, and a busy process gives a thread its turn later."""

_RECORD = """
INSERT INTO policy_audit (user_id, job_id, field, rule, prompt_sha256) VALUES ($1, $2, $3, $4, $5)
"""


class PromptPolicy:
    """Decides which prompts may be rendered here, and keeps a record of those that may not.

    The record holds the user, the field, the rule's name and the prompt's SHA-256, never the prompt. When it can't be
    written, `DatabaseUnavailable` takes the place of `PromptRefused`: either way nothing is accepted.
    """

    def __init__(self, database: Database, settings: GatewaySettings) -> None:
        self._database = database
        self._allow_adult_content = settings.allow_adult_content
        # Off the event loop, which carries all that others do, and in threads that nothing else waits for.
        self._threads = ThreadPoolExecutor(JUDGES, thread_name_prefix="policy")
        self._moderation: Moderation | None = None
        if settings.moderation_url is not None:
            key = settings.moderation_key
            self._moderation = Moderation(
                settings.moderation_url,
                key=key.get_secret_value() if key else None,
                model=settings.moderation_model,
            )

    async def check(self, user_id: str, *, prompt: str, negative_prompt: str) -> None:
        """Return when a user's prompts may be rendered. Raises `PromptRefused` and `ModerationUnavailable`."""
        rule, negative_rule = await self._broken_rules(prompt, negative_prompt)
        if rule:
            await self._refuse(user_id, "prompt", rule, prompt)
        if negative_rule:
            await self._refuse(user_id, "negative_prompt", negative_rule, negative_prompt)
        if rule := await self._moderated(prompt):
            await self._refuse(user_id, "prompt", rule, prompt)

    async def check_enhanced(self, user_id: str, job_id: UUID, *, prompt: str, negative_prompt: str = "") -> None:
        """Return when what the enhancer wrote may be rendered. Raises `PromptRefused` and `ModerationUnavailable`.

        The job's negative prompt is looked at once more, since it may have been harmless only beside the prompt.
        """
        rule, negative_rule = await self._broken_rules(prompt, negative_prompt)
        if rule := rule or negative_rule or await self._moderated(prompt):
            await self.record(user_id, "enhanced_prompt", rule, prompt, job_id=job_id)
            raise PromptRefused("The enhanced prompt is not allowed here.", field="metadata.prompt")

    async def record(self, user_id: str, field: str, rule: str, prompt: str, *, job_id: UUID | None = None) -> None:
        """Store that a prompt was refused, and by which rule. Raises `DatabaseUnavailable`."""
        log.warning("a prompt is refused", field=field, rule=rule)
        digest = hashlib.sha256(prompt.encode()).digest()
        await self._database.execute(_RECORD, user_id, job_id, field, rule, digest)

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._moderation:
            await self._moderation.close()

    async def _broken_rules(self, prompt: str, negative_prompt: str) -> tuple[str | None, str | None]:
        """Return the names of the first rules of our own that a prompt and its negative prompt break."""

        def judge() -> tuple[str | None, str | None]:
            return self._broken_rule(prompt), negative_floor_violation(negative_prompt, prompt)

        if len(prompt) + len(negative_prompt) <= JUDGED_AT_ONCE:
            return judge()
        return await asyncio.get_running_loop().run_in_executor(self._threads, judge)

    def _broken_rule(self, prompt: str) -> str | None:
        if rule := floor_violation(prompt):
            return rule
        if not self._allow_adult_content and adult_content.asks_for_adult_content(prompt):
            return adult_content.RULE
        return None

    async def _moderated(self, prompt: str) -> str | None:
        """Return the name of the rule that the moderation endpoint refuses a prompt by."""
        if self._moderation is None:
            return None
        verdict = await self._moderation.judge(prompt)
        return None if self._passes(verdict) else _rule_of(verdict)

    def _passes(self, verdict: Verdict) -> bool:
        if MINORS_CATEGORY in verdict.categories:
            return False
        return not verdict.flagged or (self._allow_adult_content and verdict.categories == {ADULT_CATEGORY})

    async def _refuse(self, user_id: str, field: str, rule: str, prompt: str) -> None:
        await self.record(user_id, field, rule, prompt)
        subject = "The negative prompt" if field == "negative_prompt" else "The prompt"
        raise PromptRefused(f"{subject} is not allowed here.", field=f"metadata.{field}")


def _rule_of(verdict: Verdict) -> str:
    # The names are the endpoint's: only what can be stored and read in a line.
    names = ", ".join(name for name in sorted(verdict.categories) if is_plain(name))
    return f"moderation: {names or 'flagged'}"[:MAX_RULE_CHARACTERS]
