"""Sends queued notices by webhook and e-mail."""

from __future__ import annotations

import hashlib
import hmac
import logging
import smtplib
import time
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import urlsplit

import httpx
import orjson

from loop.domain.errors import BadInput
from loop.ledger.notices import Notice, NoticeQueue
from loop.service.settings import Settings, is_loopback, parse_address

logger = logging.getLogger("turnwise")
TIMEOUT_SECONDS = 10.0
_SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class NoticeTargets:
    """Where notices go; "" for a way that is not used."""

    webhook_url: str = ""
    webhook_secret: str = ""
    smtp: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()

    @property
    def sends_email(self) -> bool:
        return bool(self.smtp and self.sender)


def read_targets(settings: Settings) -> NoticeTargets:
    """Raises :class:`BadInput` for a webhook over plain HTTP to another machine, or for mail
    without a sender."""
    url = settings.notice_webhook
    if url:
        parts = urlsplit(url)
        is_local = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if not parts.hostname or not (parts.scheme == "https" or is_local):
            raise BadInput(
                "TURNWISE_NOTICE_WEBHOOK names no place to send notices to.",
                fix="Write an https:// URL; http:// only to this machine.",
            )
    if settings.notice_smtp and not settings.notice_sender:
        raise BadInput("TURNWISE_NOTICE_SMTP needs TURNWISE_NOTICE_SENDER.")
    return NoticeTargets(
        url,
        settings.notice_webhook_secret,
        settings.notice_smtp,
        settings.notice_sender,
        settings.notice_recipients,
    )


def send_due(queue: NoticeQueue, targets: NoticeTargets) -> int:
    """Sends what waits; returns how many arrived. A failure is noted and tried again later."""
    arrived = 0
    for record in queue.due(time.time_ns() // 1000):
        notice = record.notice
        try:
            if notice.channel == "webhook":
                _post(notice, targets)
            else:
                _mail(notice, targets)
        except (httpx.HTTPError, OSError, smtplib.SMTPException, BadInput) as error:
            problem = str(error) or type(error).__name__
            logger.warning("notice %s was not sent: %s", notice.notice_id, problem)
            queue.note_failed(record, problem[:500], time.time_ns() // 1000)
        else:
            queue.note_sent(notice.notice_id, time.time_ns() // 1000)
            arrived += 1
    return arrived


def signature_of(secret: str, body: bytes) -> str:
    """What the header ``X-Turnwise-Signature`` says of a body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _post(notice: Notice, targets: NoticeTargets) -> None:
    if not targets.webhook_url:
        raise BadInput("No webhook is set any more.")
    body = orjson.dumps(
        {"notice_id": notice.notice_id, "subject": notice.subject, "text": notice.text}
        | dict(notice.document)
    )
    headers = {"content-type": "application/json", "x-turnwise-notice": notice.notice_id}
    if targets.webhook_secret:
        headers["x-turnwise-signature"] = signature_of(targets.webhook_secret, body)
    answer = httpx.post(
        targets.webhook_url,
        content=body,
        headers=headers,
        timeout=TIMEOUT_SECONDS,
        follow_redirects=False,
    )
    if not answer.is_success:
        raise BadInput(f"The webhook answered {answer.status_code}.")


def _mail(notice: Notice, targets: NoticeTargets) -> None:
    if not targets.sends_email:
        raise BadInput("No mail server is set any more.")
    message = EmailMessage()
    message["Subject"] = notice.subject
    message["From"] = targets.sender
    message["To"] = ", ".join(notice.recipients)
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{notice.notice_id}@turnwise>"
    message.set_content(notice.text)
    address = targets.smtp if ":" in targets.smtp else f"{targets.smtp}:{_SMTP_PORT}"
    host, port = parse_address(address, "notice_smtp")
    with smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS) as server:
        if server.has_extn("starttls"):
            server.starttls()
        server.send_message(message)
