"""OTLP over gRPC: the Export calls of logs, metrics and traces, as durable as over HTTP.

Messages are taken as bytes: they are decoded once to prove them readable, and the bytes
themselves go to the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as PackedMessage  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from collectors.body_decoding import validate
from collectors.journal import Journal
from collectors.otlp_http import Authorise, BodyLimits, anyone
from collectors.partial_success import PartialRejection
from collectors.refusals import REASONS, Refusals
from collectors.segments import RecordKind
from loop.access.callers import bearer_token
from loop.domain.errors import BadInput, Refused, Unavailable

_SERVICES: dict[str, RecordKind] = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
}
_Handler = Callable[[bytes, "grpc.aio.ServicerContext"], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class GrpcCollector:
    """A running server and the port it got (useful when port 0 was asked for)."""

    server: grpc.aio.Server
    port: int
    refusals: Refusals

    async def stop(self, grace_seconds: float = 2.0) -> None:
        """Takes no new calls and lets the running ones finish."""
        await self.server.stop(grace_seconds)
        await self.refusals.close()


async def serve_grpc(
    address: str,
    journal: Journal,
    limits: BodyLimits | None = None,
    authorise: Authorise = anyone,
) -> GrpcCollector:
    """Starts serving on ``host:port``.

    Raises:
        Unavailable: the address can't be bound.
    """
    body_limits = limits or BodyLimits()
    refusals = Refusals(journal)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", body_limits.compressed_bytes),
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                service,
                {
                    "Export": grpc.unary_unary_rpc_method_handler(
                        _exporter(signal, journal, authorise, refusals)
                    )
                },
            )
            for service, signal in _SERVICES.items()
        ]
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(
            f"OTLP/gRPC can't listen on {address}.",
            why=str(error),
            fix="Free the port or set another address.",
        ) from error
    await server.start()
    return GrpcCollector(server, port, refusals)


def _exporter(
    signal: RecordKind, journal: Journal, authorise: Authorise, refusals: Refusals
) -> _Handler:
    async def export(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        metadata = {str(key).lower(): value for key, value in context.invocation_metadata() or ()}
        authorization = metadata.get("authorization", "")
        token = bearer_token(authorization if isinstance(authorization, str) else "")
        credential: str | None = None
        try:
            credential = authorise(token)
            if credential is None:
                await refusals.count(signal, "protobuf", "", REASONS[401])
                await context.abort(
                    grpc.StatusCode.UNAUTHENTICATED, "A valid bearer token is required."
                )
            rejected = validate(signal, "protobuf", body)
            if rejected:
                journal.quarantine.check_room()
            await journal.append(signal, "protobuf", body, credential=credential or "")
            return PartialRejection(signal, rejected).as_protobuf()
        except Refused as error:
            await refusals.count(signal, "protobuf", "", REASONS[403])
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except BadInput as error:
            await refusals.count(signal, "protobuf", credential or "", REASONS[400])
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Unavailable as error:
            await refusals.count(signal, "protobuf", credential or "", REASONS[503])
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                str(error),
                trailing_metadata=(("grpc-status-details-bin", _retry_details(error)),),
            )
        return b""  # never reached: abort() raises

    return export


def _retry_details(error: Unavailable) -> bytes:
    detail = PackedMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=error.retry_after_seconds)))
    status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=str(error))
    status.details.append(detail)
    serialized: bytes = status.SerializeToString()
    return serialized
